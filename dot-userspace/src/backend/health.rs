//! Asks each backend now and then whether it answers, from the control thread, once for all workers.
//!
//! Before: `start` has a list of backends. After: workers, status and metrics read one flag each.
//! Why in one place: all workers agree on one state, and there is one query an interval, however many workers
//! there are. A failure that a worker sees itself (a closed port, a failed connection) rests the backend for that
//! worker only.
//! It also holds how many messages of a backend matched no query, and why the last one did not: silence and
//! useless answers are different faults.
//! Never: judges an answer: any rcode means up, also an error without the question. Asks more often than each
//! eighth of an interval, or less often than each interval.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
    time::{sleep, timeout},
};

use super::{
    BackendConfig,
    dial::{NotOpened, Opened, dial},
    matching::{Unmatched, fit},
    outcomes,
    random::Random,
};
use crate::{config::Transport, dns::framing::append_message, proxy};

/// A backend is down after this many misses in a row: one lost datagram proves nothing.
const MISSES_MAX: u32 = 3;
/// The first check after a miss comes after this part of an interval; the time doubles up to the interval.
const SOONEST: u32 = 8;
/// dotd logs a backend that answers fewer queries in a hundred.
const POOR_PERCENT: u8 = 50;
/// The question `. NS IN`: every resolver has the answer, and other servers refuse it as cheaply.
const QUESTION: [u8; 5] = [0, 0, 2, 0, 1];

/// The state of a backend. Clones share it; two are equal if they are the same one.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    state: AtomicU8,
    /// Messages that matched no query or check.
    unmatched: AtomicU64,
    /// Why the last of them did not match, as [`Unmatched`] numbers it.
    last_unmatched: AtomicU8,
    /// Answered and unanswered queries of all workers.
    answered: AtomicU64,
    lost: AtomicU64,
    /// Answered queries in a hundred at the last check, plus one. 0: there were too few queries.
    percent: AtomicU8,
    /// Why the last check was missed; only the control thread reads it.
    reason: Mutex<String>,
}

/// Up, down, or not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// No check has had a result yet.
    Unchecked,
    /// The last check was answered, or fewer than [`MISSES_MAX`] were missed.
    Up,
    /// [`MISSES_MAX`] checks or more in a row were missed.
    Down,
}

impl HealthState {
    /// The name in status and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl PartialEq for Health {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Health {}

impl Health {
    /// The current state.
    #[must_use]
    pub fn state(&self) -> HealthState {
        match self.0.state.load(Relaxed) {
            UP => HealthState::Up,
            DOWN => HealthState::Down,
            _ => HealthState::Unchecked,
        }
    }

    /// Whether the last check was answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.state.load(Relaxed) == UP
    }

    /// Whether new queries should go elsewhere.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.0.state.load(Relaxed) == DOWN
    }

    /// Why the last check was missed. `None`: it was answered.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        (!reason.is_empty()).then(|| reason.clone())
    }

    /// Counts a message of this backend that matched no query: it is late or forged.
    pub fn note_unmatched(&self, why: Unmatched) {
        self.0.last_unmatched.store(why as u8, Relaxed);
        self.0.unmatched.fetch_add(1, Relaxed);
    }

    /// The number of such messages, and why the last one did not match.
    #[must_use]
    pub fn unmatched(&self) -> Option<(u64, Unmatched)> {
        let count = self.0.unmatched.load(Relaxed);
        let why = Unmatched::ALL.get(usize::from(self.0.last_unmatched.load(Relaxed)));
        why.filter(|_| count > 0).map(|why| (count, *why))
    }

    /// Adds counts of answered and lost queries. Each worker calls this once a second.
    pub fn note_outcomes(&self, answered: u32, lost: u32) {
        self.0.answered.fetch_add(answered.into(), Relaxed);
        self.0.lost.fetch_add(lost.into(), Relaxed);
    }

    /// Answered queries in a hundred between the last two checks. `None`: there were too few queries.
    #[must_use]
    pub fn answered_percent(&self) -> Option<u8> {
        self.0.percent.load(Relaxed).checked_sub(1)
    }

    /// Adds up the workers' counts since the last check. `Some`: a change that is worth a log line; `false`:
    /// fewer than half were answered, `true`: at least half are again.
    fn learn_outcomes(&self) -> Option<bool> {
        let was_poor = self.answered_percent().map(|percent| percent < POOR_PERCENT);
        let percent = outcomes::percent(self.0.answered.swap(0, Relaxed), self.0.lost.swap(0, Relaxed));
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        self.0.percent.store(percent.map_or(0, |percent| percent + 1), Relaxed);
        let is_poor = percent.map(|percent| percent < POOR_PERCENT)?;
        (is_poor != was_poor.unwrap_or(false)).then_some(is_poor)
    }

    fn note(&self, reason: String) {
        *self.0.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Takes the result of a check, as a number of misses in a row. `Some`: a change that is worth a log line; a
    /// backend that is up from the start is not.
    fn learn(&self, misses: u32) -> Option<HealthState> {
        let (state, number) = match misses {
            0 => (HealthState::Up, UP),
            MISSES_MAX.. => (HealthState::Down, DOWN),
            _ => return None,
        };
        let before = self.state();
        self.0.state.store(number, Relaxed);
        let is_first = before == HealthState::Unchecked && state == HealthState::Up;
        (before != state && !is_first).then_some(state)
    }
}

/// Why a check was missed.
#[derive(Debug, Error)]
enum Missed {
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    #[error("no answer: {0}")]
    Unanswered(io::Error),
    #[error("no answer that fits; {0}")]
    Unmatched(Seen),
}

/// A message that was no answer to the check.
#[derive(Clone, Copy, Debug)]
struct Seen {
    count: u64,
    last: Unmatched,
}

impl fmt::Display for Seen {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(form, "unmatched: {}, last: {}", self.count, self.last)
    }
}

/// A check under way: its query, and the message that was no answer to it.
struct Asking<'a> {
    backend: &'a BackendConfig,
    query: Vec<u8>,
    seen: Option<Seen>,
}

const UP: u8 = 1;
const DOWN: u8 = 2;

/// Checks `backend` until the task is dropped.
///
/// # Cancel safety
/// Dropping it leaves the last state.
pub async fn watch(backend: BackendConfig) {
    let backend = BackendConfig { timeout: backend.timeout.min(backend.health_interval), ..backend };
    let mut misses: u32 = 0;
    loop {
        let result = check(&backend).await;
        backend.health.note(result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        misses = if result.is_ok() { 0 } else { misses.saturating_add(1) };
        match (backend.health.learn(misses), result) {
            (Some(HealthState::Down), Err(error)) => {
                tracing::warn!(backend = %backend.name, %error, "backend is down");
            }
            (Some(HealthState::Up), _) => tracing::info!(backend = %backend.name, "backend is up again"),
            _ => {}
        }
        match backend.health.learn_outcomes() {
            Some(true) => {
                let percent = backend.health.answered_percent().unwrap_or_default();
                tracing::warn!(backend = %backend.name, percent, "backend answers few of its queries");
            }
            Some(false) => {
                tracing::info!(backend = %backend.name, "backend answers most of its queries again");
            }
            None => {}
        }
        let chance = Random::default().u16().unwrap_or_default();
        sleep(pause(misses, backend.health_interval, chance)).await;
    }
}

/// Time until the next check. Up to a quarter of it is random, so that checks of several backends spread out.
fn pause(misses: u32, interval: Duration, chance: u16) -> Duration {
    let whole = match misses {
        0 => interval,
        _ => (interval / SOONEST).saturating_mul(1 << (misses - 1).min(16)).min(interval),
    };
    whole - whole.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

/// Sends one query over the transport that clients' queries take, and waits for its answer.
async fn check(backend: &BackendConfig) -> Result<(), Missed> {
    let mut asking = Asking { backend, query: query().map_err(Missed::Unanswered)?, seen: None };
    let answer = if backend.transport == Transport::Udp {
        timeout(backend.timeout, asking.over_udp()).await
    } else {
        match dial(backend, backend.timeout, None).await? {
            Opened::Clear(mut tcp) => timeout(backend.timeout, asking.over_stream(&mut tcp)).await,
            Opened::Secure(mut wire) => timeout(backend.timeout, asking.over_stream(&mut wire)).await,
        }
    };
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answer.map_err(|error| asking.seen.map_or(Missed::Unanswered(error), Missed::Unmatched))
}

fn query() -> io::Result<Vec<u8>> {
    let id = Random::default().u16().ok_or_else(|| io::Error::other("no random numbers"))?;
    // RD is not set: an answer from the server's own data is enough.
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.splice(..2, id.to_be_bytes());
    query.extend_from_slice(&QUESTION);
    Ok(query)
}

impl Asking<'_> {
    /// Whether `message` is the answer; the reason is kept if it is not.
    fn is_answered_by(&mut self, message: &[u8]) -> bool {
        let has_id = message.first_chunk::<2>() == self.query.first_chunk::<2>();
        let last = match fit(message, &self.query, self.query.len()) {
            _ if !has_id => Unmatched::Id,
            Ok(_) => return true,
            Err(why) => why,
        };
        self.backend.health.note_unmatched(last);
        let count = self.seen.map_or(0, |seen| seen.count) + 1;
        self.seen = Some(Seen { count, last });
        false
    }

    async fn over_udp(&mut self) -> io::Result<()> {
        let host: IpAddr = match self.backend.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((host, 0)).await?;
        socket.connect(self.backend.address).await?;
        let mut datagram = Vec::new();
        if self.backend.proxy_v2 {
            proxy::header::write(None, &mut datagram);
        }
        datagram.extend_from_slice(&self.query);
        socket.send(&datagram).await?;
        let mut message = [0; 4096];
        loop {
            let octets = socket.recv(&mut message).await?;
            if message.get(..octets).is_some_and(|message| self.is_answered_by(message)) {
                return Ok(());
            }
        }
    }

    async fn over_stream<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        let mut framed = Vec::new();
        append_message(&mut framed, |out| {
            out.extend_from_slice(&self.query);
            io::Result::Ok(())
        })?;
        stream.write_all(&framed).await?;
        stream.flush().await?;
        let mut message = Vec::new();
        loop {
            let octets = stream.read_u16().await?;
            message.resize(usize::from(octets), 0);
            stream.read_exact(&mut message).await?;
            if self.is_answered_by(&message) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tests::backend_at;

    /// Goal: one miss changes nothing, three mean down, one answer means up; only changes are logged.
    #[test]
    fn three_misses_are_down_and_one_answer_is_up() {
        let health = Health::default();
        assert_eq!(health.state(), HealthState::Unchecked);
        assert_eq!((health.learn(0), health.state()), (None, HealthState::Up));
        assert_eq!([1, 2].map(|misses| health.learn(misses)), [None; 2]);
        assert_eq!((health.learn(3), health.is_down()), (Some(HealthState::Down), true));
        assert_eq!(health.learn(4), None);
        assert_eq!((health.learn(0), health.is_down()), (Some(HealthState::Up), false));
    }

    /// Goal: a backend that is back is found within an interval, and a backend that is down is asked less
    /// and less often.
    #[test]
    fn checks_thin_out_up_to_the_interval() {
        let second = Duration::from_secs(1);
        let pauses = [1, 2, 3, 4, 5, 100].map(|misses| pause(misses, second, 0).as_millis());
        assert_eq!(pauses, [125, 250, 500, 1000, 1000, 1000]);
        assert_eq!(pause(0, second, u16::MAX).as_millis(), 750);
    }

    /// Goal: any rcode is an answer, also an error without the question; another question or a query is no
    /// answer, and the reason is kept. Covers: C-231, C-232
    #[test]
    fn an_answer_is_known_by_id_and_question() {
        let backend = backend_at(([127, 0, 0, 1], 53).into(), Transport::Udp);
        let mut asking = Asking { backend: &backend, query: query().expect("random numbers"), seen: None };
        let mut refused = asking.query.clone();
        refused[2] |= 0x80;
        refused[3] |= 5;
        let mut bare = refused[..12].to_vec();
        bare[5] = 0;
        assert!(asking.is_answered_by(&refused) && asking.is_answered_by(&bare));
        assert!(asking.seen.is_none() && backend.health.unmatched().is_none());
        assert!(!asking.is_answered_by(&asking.query.clone()));
        let mut other = refused.clone();
        other[14] = 1;
        assert!(!asking.is_answered_by(&other));
        refused[0] ^= 1;
        assert!(!asking.is_answered_by(&refused));
        assert_eq!(backend.health.unmatched(), Some((3, Unmatched::Id)));
        let seen = asking.seen.expect("three");
        assert_eq!(
            Missed::Unmatched(seen).to_string(),
            format!("no answer that fits; unmatched: 3, last: {}", Unmatched::Id)
        );
    }
}
