//! The work of the ACME process: waits until a certificate is due, gets it, and keeps its state for operators.
//!
//! Before: this process has no rights left, and sockets for `http-01`. After: the keeper ends it; it ends by itself only when another
//! process can see more than this one, and no order is under way.
//! Holds: the state, which goes on in the next process.
//! Never: attempts anything before its time, except when an operator asks (USR1).

use std::{
    convert::Infallible,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::TcpListener,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use instant_acme::{CertificateIdentifier, Error};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};

use super::{
    account::{AccountFile, account},
    errand::Errand,
    folder::{Folder, has},
    http01::Door,
    order,
    pace::{self, Life, Window},
    proof::Proof,
    resolver,
    standing::{Standing, seconds},
    web::Web,
    words::{Failure, clean},
};
use crate::tls::{WebTls, certificate::Identity};

/// How often the authority is asked for renewal information, whatever it says.
const ARI_MIN: Duration = Duration::from_secs(3600);
const ARI_MAX: Duration = Duration::from_secs(24 * 3600);
/// After a failure, and where the authority has none (RFC 9773 §4.3.3).
const ARI_RETRY: Duration = Duration::from_secs(6 * 3600);
/// Time for a whole attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The ACME process.
struct Client {
    errand: Errand,
    folder: Folder,
    account: AccountFile,
    door: Door,
    standing: Standing,
    /// What the authority says about the certificate that serves, and when to ask again.
    window: Option<Window>,
    window_until: SystemTime,
    has_ari: bool,
}

/// Gets and renews certificates until the process ends. `sockets`: bound for `http-01`, and not listening. `account`: the file of the
/// account.
///
/// `hear`: unblocks signals, once there is a handler.
///
/// # Errors
/// No signal handler can be installed; or the files by which servers are found were replaced, and only a new process may read them.
pub async fn run(
    errand: Errand,
    (sockets, account): (Vec<TcpListener>, File),
    hear: fn() -> io::Result<()>,
) -> io::Result<Infallible> {
    let mut asked = signal(SignalKind::user_defined1())?;
    hear()?;
    let folder = Folder(errand.folder.clone());
    folder.remove_accounts();
    let standing = Standing::go_on(folder.standing(), &errand.acme);
    let mut client = Client {
        errand,
        folder,
        account: AccountFile(account),
        door: Door::new(sockets),
        standing,
        window: None,
        window_until: UNIX_EPOCH,
        has_ari: false,
    };
    tracing::info!(
        "acme: certificates for {} come from {}",
        client.errand.acme.names.join(", "),
        client.errand.acme.directory_url()
    );
    let was_hidden = resolver::is_hidden();
    loop {
        if !was_hidden && resolver::is_hidden() {
            return Err(io::Error::other(
                "/etc/resolv.conf or /etc/hosts is another file now, for the next process",
            ));
        }
        client.look_for_window().await;
        let at = client.plan();
        client.folder.keep_standing(&client.standing);
        if client.wait(at, &mut asked).await {
            client.attempt().await;
            // A request that came meanwhile has its answer.
            while let Ok(Some(())) = timeout(Duration::ZERO, asked.recv()).await {}
            // Before the authority is asked for anything else: this process may end at any moment.
            client.plan();
            client.folder.keep_standing(&client.standing);
        }
    }
}

impl Client {
    /// Decides when the next attempt begins.
    fn plan(&mut self) -> SystemTime {
        let serves = self.folder.certificate();
        self.standing.not_after = serves.as_ref().map(|identity| seconds(identity.not_after));
        let reason = serves.as_ref().and_then(|identity| self.unsuited(identity));
        let (at, because) = match (&serves, reason) {
            (Some(identity), None) => {
                let life = Life { from: identity.not_before, until: identity.not_after };
                let why = if self.window.is_some() {
                    "the authority suggests it"
                } else {
                    "two thirds of its life are over then"
                };
                (pace::renewal(life, self.window, chance(identity)), why.to_owned())
            }
            (Some(_), Some(reason)) => (UNIX_EPOCH, reason),
            (None, _) => (UNIX_EPOCH, "there is no certificate yet".to_owned()),
        };
        // After a failure the wait that was decided then stays, also where an operator had asked too early.
        let at = self.standing.waits_until(SystemTime::now()).unwrap_or(at);
        self.standing.state = match (self.standing.failures, &serves) {
            (1.., _) => "failing",
            (0, Some(_)) => "issued",
            (0, None) => "waiting",
        }
        .to_owned();
        (self.standing.next, self.standing.because) = (Some(seconds(at.max(SystemTime::now()))), because);
        at
    }

    /// Why the certificate that serves is not the one that the config asks for.
    fn unsuited(&self, identity: &Identity) -> Option<String> {
        let names = &self.errand.acme.names;
        if let Some(missing) = names.iter().find(|name| !has(identity, name)) {
            return Some(format!("{missing} is not in the certificate"));
        }
        if identity.dns_names.len() + identity.addresses.len() > names.len() {
            return Some("the certificate has other names too".to_owned());
        }
        let url = self.errand.acme.directory_url();
        (self.standing.issued_by != url).then(|| "another authority issued the certificate".to_owned())
    }

    /// Waits. `true`: an attempt begins; `false`: look again.
    async fn wait(&self, at: SystemTime, asked: &mut Signal) -> bool {
        let Ok(left) = at.duration_since(SystemTime::now()) else { return true };
        if left.is_zero() {
            return true;
        }
        tokio::select! {
            () = sleep(pace::look(at, self.window_until, SystemTime::now())) => at <= SystemTime::now(),
            Some(()) = asked.recv() => {
                tracing::info!("acme: an operator asks for a certificate now");
                true
            }
        }
    }

    /// Tries to get a certificate, and notes how that went.
    async fn attempt(&mut self) {
        let before = self.standing.waits_until(SystemTime::now());
        self.standing.begin(SystemTime::now());
        self.folder.keep_standing(&self.standing);
        let outcome = timeout(ATTEMPT_TIMEOUT, self.obtain_patiently()).await;
        let outcome = outcome
            .unwrap_or_else(|_| Err(Failure::new(format!("it was not done within {ATTEMPT_TIMEOUT:?}"))));
        let now = SystemTime::now();
        match outcome {
            Ok(life) => {
                (self.window, self.window_until) = (None, UNIX_EPOCH);
                let standing = &mut self.standing;
                standing.issued_by = self.errand.acme.directory_url().to_owned();
                (standing.failures, standing.unreached) = (0, 0);
                (standing.error, standing.next) = (None, None);
                (standing.last_success, standing.issued) = (Some(seconds(now)), standing.issued + 1);
                let days = life.until.duration_since(now).unwrap_or_default().as_secs() / 86_400;
                tracing::info!(
                    days,
                    "acme: a certificate for {} was issued",
                    self.errand.acme.names.join(", ")
                );
            }
            Err(failure) => {
                let standing = &mut self.standing;
                let text = failure.text.clone();
                let pause = standing.fail(failure, before, (now, jitter(now)));
                let rest = if standing.not_after.is_some() {
                    "the old certificate serves on"
                } else {
                    "there is none yet"
                };
                tracing::error!(
                    "acme: no certificate for {}: {text}; {rest}, next attempt in {}",
                    self.errand.acme.names.join(", "),
                    in_words(pause)
                );
            }
        }
    }

    /// A nonce that is refused says nothing about the order (RFC 8555 §6.5). The library signs each request anew three times; then the
    /// order begins anew.
    async fn obtain_patiently(&mut self) -> Result<Life, Failure> {
        for _ in 1..ATTEMPTS_MAX {
            match self.obtain().await {
                Err(failure) if failure.text.contains(BAD_NONCE) => {
                    tracing::debug!("acme: once more: {}", failure.text);
                }
                outcome => return outcome,
            }
        }
        self.obtain().await
    }

    async fn obtain(&mut self) -> Result<Life, Failure> {
        let web = self.web()?;
        // Before the authority is asked for anything: a port that is in use costs no order.
        let mut proof = Proof::begin(&self.errand, &self.folder, &self.door)?;
        let opened = account((&self.errand, &self.folder, &self.account), &web).await;
        let (account, is_new) = opened.map_err(|failure| waiting(failure, &web))?;
        let replaced = if self.has_ari { self.serving_id() } else { None };
        let ordered = order::obtain((&self.errand, &self.folder), &account, &mut proof, replaced).await;
        let unknown = |failure: &Failure| failure.text.contains(UNKNOWN_ACCOUNT);
        if !is_new && ordered.as_ref().err().is_some_and(unknown) {
            // The authority has forgotten it, as a test server does when it restarts.
            self.account.forget();
        }
        ordered.map_err(|failure| waiting(failure, &web))
    }

    fn web(&self) -> Result<Web, Failure> {
        Ok(Web::new(WebTls::by(self.errand.ca.as_deref())?))
    }

    /// Asks the authority when the certificate that serves should be renewed (RFC 9773).
    async fn look_for_window(&mut self) {
        let now = SystemTime::now();
        let is_early = self.window_until > now && self.window_until < now + ARI_MAX * 2;
        let Some(id) = self.serving_id().filter(|_| !is_early && self.standing.failures == 0) else { return };
        let asked = timeout(ATTEMPT_TIMEOUT, self.renewal_info(&id)).await.ok();
        let wait = match asked {
            Some(Ok((window, wait))) => {
                if self.window != Some(window) {
                    tracing::debug!(
                        "acme: the authority suggests a renewal between {} and {}",
                        seconds(window.start),
                        seconds(window.end)
                    );
                }
                (self.window, self.has_ari) = (Some(window), true);
                wait.clamp(ARI_MIN, ARI_MAX)
            }
            Some(Err(Error::Unsupported(_))) => {
                (self.window, self.has_ari) = (None, false);
                ARI_MAX
            }
            Some(Err(error)) => {
                tracing::debug!("acme: renewal information: {}", clean(&error.to_string()));
                ARI_RETRY
            }
            None => ARI_RETRY,
        };
        self.window_until = SystemTime::now() + wait;
    }

    async fn renewal_info(&self, id: &CertificateIdentifier<'_>) -> Result<(Window, Duration), Error> {
        let other = |failure: Failure| Error::Other(failure.text.into());
        let web = self.web().map_err(other)?;
        let opened = account((&self.errand, &self.folder, &self.account), &web).await;
        let (account, _) = opened.map_err(other)?;
        let (info, wait) = account.renewal_info(id).await?;
        let at = |moment: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(moment).unwrap_or_default());
        let (start, end) = (info.suggested_window.start, info.suggested_window.end);
        let window = Window { start: at(start.unix_timestamp()), end: at(end.unix_timestamp()) };
        // RFC 9773 §4.2: a window that ends before it begins says nothing.
        if window.end <= window.start {
            return Err(Error::Str("the suggested window is empty"));
        }
        if let Some(page) = info.explanation_url {
            tracing::info!("acme: the authority explains its suggestion at {}", clean(&page));
        }
        Ok((window, wait))
    }

    /// The authority's name for the certificate that serves, if it issued that.
    fn serving_id(&self) -> Option<CertificateIdentifier<'static>> {
        if self.standing.issued_by != self.errand.acme.directory_url() {
            return None;
        }
        let identity = self.folder.certificate()?;
        let id = CertificateIdentifier::try_from(identity.chain.first()?).ok()?;
        Some(id.into_owned())
    }
}

/// The type of the problem when a nonce is refused.
const BAD_NONCE: &str = "(badNonce)";
/// Orders in a row while nonces are refused.
const ATTEMPTS_MAX: usize = 3;
/// The type of the problem when the authority does not know the account.
const UNKNOWN_ACCOUNT: &str = "accountDoesNotExist";

/// With the time that the authority asked to wait, and whether it was reached at all.
fn waiting(failure: Failure, web: &Web) -> Failure {
    Failure { wait: web.take_asked(), is_unreached: !web.was_reached(), ..failure }
}

/// Seconds, or minutes if it is many.
fn in_words(pause: Duration) -> String {
    match pause.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// A number below 1 that stays the same for a certificate.
fn chance(identity: &Identity) -> f64 {
    let mut hash = DefaultHasher::new();
    (&identity.spki_pin, identity.not_after).hash(&mut hash);
    f64::from(u32::try_from(hash.finish() >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// A number below 1 that two machines hardly share.
fn jitter(now: SystemTime) -> f64 {
    f64::from(now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros()) / 1_000_000.0
}
