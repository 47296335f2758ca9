//! Unit tests of `accept`: a panic in a session frees what it held and harms no other; errors of accept(2).

use std::{net::IpAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::{LocalSet, yield_now},
};

use super::*;
use crate::{
    backend::Backends,
    cache::Keeping,
    config::{ClientAddress, ClientSubnet, Config, Policy, XdpMode},
    ledger::{ControlCounters, Snapshot, WorkerCounters},
    policy::{Access, AccessReason, TenantId, Tenants},
    proxy::Trusted,
    session::{
        IdleProbe, Tenancy, WorkerShared,
        scripted::{Read, Scripted, no_limits},
    },
    tls::{Tickets, certificate},
    worker::{Admission, Caps, ChargesSink, Settings, charges::Accounts},
    xdp,
};

fn admission_of_ten() -> Arc<Admission> {
    let caps = Caps { total: 10, per_prefix: 10, ..Caps::default() };
    Arc::new(Admission::new(caps, (32, 56), 1))
}

/// The acceptor of a worker without backends.
fn acceptor(admission: &Arc<Admission>) -> Rc<Acceptor> {
    let mut config = Config::default();
    let folder = tempfile::tempdir().unwrap();
    config.xdp.mode = XdpMode::Off;
    let identities = certificate::load_all(&config.tls, folder.path(), &[]).unwrap().identities;
    let tickets = Tickets::new(&config.tls.ticket_secret, config.tls.ticket_rotation).unwrap();
    let settings = Settings {
        serving: tls::serving(&identities, &config.tls, &tickets).unwrap(),
        limits: no_limits(),
        handshake_timeout: Duration::from_secs(60),
        proxy_protocol_from: Trusted::default(),
        client_address: ClientAddress::None,
        backends: Vec::new(),
        policy: Policy::First,
        hedge_percent: 0,
        client_subnet: ClientSubnet::Pass,
        keeping: Keeping::of(0),
        access: None,
        screen: None,
        misuse: crate::config::Misuse::default(),
        tenancy: crate::worker::tenants::Plan::default(),
        notified: None,
        discovery: (crate::config::Discovery::default(), Vec::new()),
        tap: None,
    };
    let counters = WorkerCounters::default();
    let backends = Backends::start(&[], Policy::First, 0, ClientSubnet::Pass, &counters);
    let shared = Rc::new(WorkerShared::new(settings.limits, backends, counters, Arc::default()));
    let status = xdp::start(&config.xdp, &[]).unwrap().status_writer(0);
    let accounts = Accounts::new(ChargesSink::new().0);
    Rc::new(Acceptor::new(shared, Arc::clone(admission), accounts, status, &settings))
}

/// Sends a query with opcode 2, which dotd answers by itself: NOTIMP.
async fn assert_served(client: &mut TcpStream) {
    client.write_all(&[0, 12, 0xab, 0xcd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut answer = [0; 14];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!((&answer[2..4], answer[5] & 0x0f), (&[0xab, 0xcd][..], 4), "{answer:?}");
}

/// Goal: a panic ends only its own session: its place, its count and its entry for eviction are free, and sessions
/// beside it and new ones are served. Method: a session over a connection that panics when it is read, between two over
/// TCP.
///
#[test]
fn a_panic_ends_one_session() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let admission = admission_of_ten();
        let acceptor = acceptor(&admission);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entry = Entry { transport: Transport::Do53, number: 0, listener: None };
        spawn_local(accept_all(Rc::new(listener), entry, Rc::clone(&acceptor)));
        let mut beside = TcpStream::connect(address).await.unwrap();
        assert_served(&mut beside).await;
        let counters = acceptor.shared().counters.clone();
        counters.add(Counter::Accepted, 1);
        let place = acceptor.admission.admit(address.ip(), 0).ok().unwrap();
        let open = acceptor.open(place, None);
        let client =
            Client { source: address, destination: address, is_datagram: false, tls: None, tlvs: None };
        let panics = Scripted::new(|_: &mut [u8]| -> Read { panic!("a panic that the test makes") });
        serve(panics, client.into(), Rc::clone(&acceptor), open, Carried::begun());
        assert_eq!((admission.total(), acceptor.shared().counters.get(Counter::Open)), (2, 2));
        while admission.total() > 1 {
            yield_now().await;
        }
        assert_eq!(acceptor.shared().counters.get(Counter::Open), 1);
        assert_served(&mut beside).await;
        let mut new = TcpStream::connect(address).await.unwrap();
        assert_served(&mut new).await;
        drop((beside, new));
        while !acceptor.shared().is_quiet() || admission.total() > 0 {
            yield_now().await;
        }
        assert_eq!((counters.get(Counter::Open), counters.get(Counter::EndPanic)), (0, 1));
        assert!(is_balanced(&counters), "{counters:?}");
    });
}

fn is_balanced(counters: &WorkerCounters) -> bool {
    let own = std::slice::from_ref(counters);
    Snapshot::collect(Vec::new(), own, ControlCounters::default()).difference().is_zero()
}

/// Goal: a connection has one end in the ledger, also if a panic comes in its handshake, and a panic after its end adds
/// none. Method: tasks that panic with an open connection.
#[test]
fn a_panic_in_a_handshake_is_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let admission = admission_of_ten();
        let acceptor = acceptor(&admission);
        let counters = acceptor.shared().counters.clone();
        for is_counted in [false, true] {
            counters.add(Counter::Accepted, 1);
            let place = acceptor.admission.admit(IpAddr::from([192, 0, 2, 1]), 0).ok().unwrap();
            let mut open = acceptor.open(place, None);
            let task = spawn_local(async move {
                if is_counted {
                    open.end(Counter::HandshakeClosed);
                }
                panic!("a panic that the test makes")
            });
            assert!(task.await.is_err_and(|error| error.is_panic()));
            assert!(is_balanced(&counters), "{counters:?}");
        }
        assert_eq!((counters.get(Counter::HandshakePanic), admission.total()), (1, 0));
    });
}

/// Errors of accept(2), as Linux numbers them.
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const EPROTO: i32 = 71;

/// Goal: no session loses its place for an error that a free place would not cure. Method: each error of accept(2); a
/// session that has been idle for an hour leaves when resources are short, and stays when a policy refuses. Covers:
///
#[test]
fn only_a_shortage_takes_a_place() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let admission = admission_of_ten();
        let acceptor = acceptor(&admission);
        let probe = Rc::new(IdleProbe::default());
        let queued = acceptor.eviction.take(
            &probe,
            admission.admit("192.0.2.1".parse().unwrap(), 0).ok().unwrap(),
            None,
        );
        let (since, later) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
        probe.note_for_test(Some(since));
        for errno in [EPERM, EACCES, EINVAL, EPROTO] {
            acceptor.note_refusal(&io::Error::from_raw_os_error(errno), later);
            assert_eq!(admission.total(), 1, "{errno}");
        }
        acceptor.note_refusal(&io::Error::from_raw_os_error(EMFILE), later);
        assert_eq!(admission.total(), 0);
        drop(queued);
    });
}

/// Goal: a client is judged at the end of its handshake by the settings of that moment, although a reload came after it had begun: by
/// the access lists for its address, and by the tenants, whose places may be others. Method: a client before a reload and after it;
/// no tenant is recognised by names.
#[test]
fn a_reload_during_a_handshake_counts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let acceptor = acceptor(&admission_of_ten());
        let shared = acceptor.shared();
        let address: SocketAddr = "127.0.0.1:853".parse().unwrap();
        let parse = |text: &str| {
            let listen = "[listen]\ndot = [\"127.0.0.1:853\"]\n";
            crate::config::parse(&format!("{listen}{text}"), "f").unwrap()
        };
        let serve = |text: &str| {
            let tenants = Tenants::new(&parse(text).tenant).map(Arc::new);
            let own = text.matches("name").map(|_| Tenancy::default()).collect();
            shared.serve_tenants(tenants, Arc::default(), own);
        };
        let tenant =
            |name: &str, net: &str| format!("[[tenant]]\nname = \"{name}\"\nprefixes = [\"{net}\"]\n");
        let (home, office) = (tenant("home", "192.0.2.0/24"), tenant("office", "10.0.0.0/8"));
        let source = "192.0.2.1:4000".parse().unwrap();
        let client = Client { source, destination: address, is_datagram: false, tls: None, tlvs: None };
        let entry = Entry { transport: Transport::Dot, number: 0, listener: Some(address) };
        serve(&home);
        let mut guest = acceptor.guest(entry, client.clone());
        assert_eq!((guest.member.tenant, guest.by_address), (TenantId::at(0), None));
        serve(&(office + &home));
        let access = parse("[access]\ndeny = [\"192.0.2.0/24\"]\n").access;
        shared.admit_by(Access::new(&access, &[]).map(Arc::new));
        acceptor.recognise(&mut guest, None, Vec::new());
        assert_eq!(guest.member.tenant, TenantId::at(1));
        assert_eq!(guest.by_address.map(|denial| denial.reason), Some(AccessReason::Denied));
        assert_eq!(shared.counters.get(Counter::AccessDenied), 1);
        acceptor.recognise(&mut guest, None, Vec::new());
        assert_eq!(shared.counters.get(Counter::AccessDenied), 1, "counted once");
        serve("");
        shared.admit_by(None);
        acceptor.recognise(&mut guest, None, Vec::new());
        assert_eq!((guest.member.tenant, guest.by_address), (TenantId::NOBODY, None));
    });
}
