//! Shows the records of `dns-01`: by dotd itself at `listen.do53`, or by an UPDATE to the zone's server.
//!
//! Before: `order` has the records. After: the server that the authority asks answers with them; and later no more.
//! Never: reports a record that it has not seen itself; sends an update without the key, if there is one.
//!
//! Source: RFC 8555 §8.4, RFC 2136, RFC 8945 §5.3.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{errand::Errand, folder::Folder, wanted::Wanted, words::Failure};
use crate::{
    backend::{self, BackendConfig},
    dns::{self, Change, TsigKey},
    policy,
};

/// How long a record may take to be seen.
const SEEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for an update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the records are shown.
pub(super) enum Shown {
    /// In the file that the engine answers by.
    Here { folder: Folder, servers: Vec<SocketAddr> },
    /// In a zone of another server.
    There { server: SocketAddr, zone: String, key: Option<Box<TsigKey>>, records: Vec<(String, String)> },
}

impl Shown {
    /// By the errand.
    pub(super) fn by(errand: &Errand, folder: &Folder) -> Result<Self, Failure> {
        let Some(server) = errand.acme.update_server else {
            let servers = errand.do53.iter().map(|listener| reached(*listener)).collect();
            return Ok(Self::Here { folder: folder.clone(), servers });
        };
        let key = errand.tsig.as_deref().map(policy::key_in).transpose();
        let key = key.map_err(|error| Failure::new(format!("acme.update_tsig: {error}")))?.map(Box::new);
        Ok(Self::There { server, zone: errand.acme.update_zone.clone(), key, records: Vec::new() })
    }

    /// Shows them; returns when they are seen.
    pub(super) async fn present(&mut self, wanted: &[Wanted]) -> Result<(), Failure> {
        let all: Vec<_> = wanted.iter().map(|one| (dns::proof_name(&one.name), one.record.clone())).collect();
        let servers = match self {
            Self::Here { folder, servers } => {
                folder.show(&by_name(&all))?;
                servers.clone()
            }
            Self::There { server, zone, key, records } => {
                // Before the update: its response may be lost after the server has taken the records.
                records.clone_from(&all);
                update(*server, zone, key.as_deref(), &all, Change::Add).await?;
                vec![*server]
            }
        };
        let until = Instant::now() + SEEN_TIMEOUT;
        for server in servers {
            for (name, record) in &all {
                see(server, name, record, until).await?;
            }
        }
        Ok(())
    }

    /// Takes them away. A failure is only logged: the records have no use any more.
    pub(super) async fn withdraw(&mut self) {
        let done = match self {
            Self::Here { folder, .. } => folder.show(&BTreeMap::new()),
            Self::There { server, zone, key, records } if !records.is_empty() => {
                let records = std::mem::take(records);
                update(*server, zone, key.as_deref(), &records, Change::Delete).await
            }
            Self::There { .. } => Ok(()),
        };
        if let Err(Failure { text, .. }) = done {
            tracing::warn!("acme: records of dns-01 stay behind: {text}");
        }
    }
}

fn by_name(all: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, record) in all {
        names.entry(name.clone()).or_default().push(record.clone());
    }
    names
}

/// The address at which this machine reaches a listener.
fn reached(listener: SocketAddr) -> SocketAddr {
    let host = match listener.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, listener.port())
}

/// Asks until the server answers with the record.
async fn see(server: SocketAddr, name: &str, record: &str, until: Instant) -> Result<(), Failure> {
    let asked = BackendConfig::over_udp(server.to_string(), server, ANSWER_TIMEOUT);
    loop {
        let query =
            dns::text_query(name, 0).ok_or_else(|| Failure::new(format!("{name} is no domain name")))?;
        let answer = backend::ask(&asked, query).await.map_err(|missed| missed.to_string());
        let why = match answer.and_then(|message| dns::texts_in(&message)) {
            Ok(texts) if texts.iter().any(|text| text == record) => return Ok(()),
            Ok(texts) => format!("it answers with {} other records", texts.len()),
            Err(why) => why,
        };
        if Instant::now() >= until {
            return Err(Failure::new(format!(
                "dns-01: {server} does not show the TXT record of {name} within {SEEN_TIMEOUT:?}: {why}"
            )));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn update(
    server: SocketAddr,
    zone: &str,
    key: Option<&TsigKey>,
    records: &[(String, String)],
    change: Change,
) -> Result<(), Failure> {
    let exchanged = timeout(UPDATE_TIMEOUT, exchange(server, zone, key, records, change)).await;
    let exchanged = exchanged.unwrap_or_else(|_| Err(format!("no answer within {UPDATE_TIMEOUT:?}")));
    exchanged.map_err(|why| Failure::new(format!("acme.update_server {server}, zone {zone}: {why}")))
}

async fn exchange(
    server: SocketAddr,
    zone: &str,
    key: Option<&TsigKey>,
    records: &[(String, String)],
    change: Change,
) -> Result<(), String> {
    let [high, low, ..] = getrandom::u32().map_err(|error| error.to_string())?.to_be_bytes();
    let id = u16::from_be_bytes([high, low]);
    let mut message = dns::update(zone, records, change, id)?;
    let signatures = key.map(|key| key.sign_query(&mut message, now()));
    let octets = u16::try_from(message.len()).map_err(|_| "the update is too long")?;
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    stream.write_all(&[&octets.to_be_bytes()[..], &message].concat()).await.map_err(failed)?;
    let octets = stream.read_u16().await.map_err(failed)?;
    let mut response = vec![0; usize::from(octets)];
    stream.read_exact(&mut response).await.map_err(failed)?;
    let verified = signatures.map_or(Ok(()), |mut signatures| signatures.take(&response, now()));
    // A server that refuses need not sign: its rcode says more than the missing signature.
    dns::is_updated(&response, id)?;
    verified.map_err(|error| error.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Goal: records that a server may have taken are deleted again, also if its response did not come. Method: a server that ends the
    /// connection after each update; the second one deletes what the first one added. Covers: C-756
    #[tokio::test]
    async fn a_lost_response_leaves_no_record() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let updates = tokio::spawn(async move {
            let mut updates = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut update = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut update).await.unwrap();
                updates.push(update.split_off(2));
            }
            updates
        });
        let mut shown = Shown::There { server, zone: "lab.test".to_owned(), key: None, records: Vec::new() };
        let wanted = Wanted {
            name: "dot.lab.test".to_owned(),
            token: String::new(),
            text: String::new(),
            record: "digest".to_owned(),
        };
        assert!(shown.present(&[wanted]).await.is_err());
        shown.withdraw().await;
        let records = [("_acme-challenge.dot.lab.test".to_owned(), "digest".to_owned())];
        let of = |change| dns::update("lab.test", &records, change, 0).unwrap().split_off(2);
        let updates = timeout(UPDATE_TIMEOUT, updates).await.expect("a second update").unwrap();
        assert_eq!(updates, [of(Change::Add), of(Change::Delete)]);
    }
}
