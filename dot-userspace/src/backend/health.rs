//! Asks each backend now and then whether it is there, from the control thread, once for all workers.
//!
//! Before: `start` has a list of backends. After: workers, status and metrics read one flag each.
//! Why in one place: a state that all agree on, and one query an interval however many workers there are.
//! What a worker meets by itself (a closed port, a failed connection) rests the backend for that worker.
//! It also holds how many messages of a backend matched nothing, and why the last one did: silence and answers that
//! nobody can use are not the same fault.
//! Never: judges an answer: any rcode means up, also an error without the question. Asks faster than an interval's eighth, or slower than it.

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

/// Misses in a row after which a backend is down: one lost datagram is none.
const MISSES_MAX: u32 = 3;
/// After a miss the next check comes this part of an interval later; then twice that, up to the interval.
const SOONEST: u32 = 8;
/// A backend that answers fewer queries in a hundred is worth a line.
const POOR_PERCENT: u8 = 50;
/// The question `. NS IN`: every resolver has the answer, and others refuse it as cheaply.
const QUESTION: [u8; 5] = [0, 0, 2, 0, 1];

/// What is known of a backend. Cloning shares it; equal means the same one.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    state: AtomicU8,
    /// Messages that matched nothing, queries' and checks'.
    unmatched: AtomicU64,
    /// Why the last of them did, as [`Unmatched`] counts.
    last_unmatched: AtomicU8,
    /// Queries of all workers that were answered, and that were not.
    answered: AtomicU64,
    lost: AtomicU64,
    /// Answered ones of a hundred at the last check, and one; 0: too few were asked.
    percent: AtomicU8,
    /// Why the last check was missed; the control thread's alone.
    reason: Mutex<String>,
}

/// A moment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// No check has had a result yet.
    Unchecked,
    /// The last check was answered, or too few were missed.
    Up,
    /// Checks in a row were missed.
    Down,
}

impl HealthState {
    /// As status and metrics say it.
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
    /// What is known now.
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

    /// Why the last check was missed; `None`: it was not.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let reason = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        (!reason.is_empty()).then(|| reason.clone())
    }

    /// A message of its came that nobody waited for. Once for such a message, which is late or forged.
    pub fn note_unmatched(&self, why: Unmatched) {
        self.0.last_unmatched.store(why as u8, Relaxed);
        self.0.unmatched.fetch_add(1, Relaxed);
    }

    /// How many did, and why the last one.
    #[must_use]
    pub fn unmatched(&self) -> Option<(u64, Unmatched)> {
        let count = self.0.unmatched.load(Relaxed);
        let why = Unmatched::ALL.get(usize::from(self.0.last_unmatched.load(Relaxed)));
        why.filter(|_| count > 0).map(|why| (count, *why))
    }

    /// So many queries more were answered, and so many were not. Once a second, from each worker.
    pub fn note_outcomes(&self, answered: u32, lost: u32) {
        self.0.answered.fetch_add(answered.into(), Relaxed);
        self.0.lost.fetch_add(lost.into(), Relaxed);
    }

    /// How many of a hundred queries were answered between the last checks. `None`: too few were asked.
    #[must_use]
    pub fn answered_percent(&self) -> Option<u8> {
        self.0.percent.load(Relaxed).checked_sub(1)
    }

    /// Adds up what workers saw since the last check. Returns what has become of it, if that is worth a line: less than
    /// half were answered, or half and more again.
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

    /// Takes the result of a check: how many were missed in a row. Returns what has changed and is worth a line:
    /// a backend that was there from the first is not.
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

/// What came in the place of an answer.
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

/// A check under way: what it asked, and what came that is no answer to it.
struct Asking<'a> {
    backend: &'a BackendConfig,
    query: Vec<u8>,
    seen: Option<Seen>,
}

const UP: u8 = 1;
const DOWN: u8 = 2;

/// Checks `backend` for ever.
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

/// Time until the next check. Up to a quarter of it is left to chance, so that checks do not march in step.
fn pause(misses: u32, interval: Duration, chance: u16) -> Duration {
    let whole = match misses {
        0 => interval,
        _ => (interval / SOONEST).saturating_mul(1 << (misses - 1).min(16)).min(interval),
    };
    whole - whole.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 4.0)
}

/// One question, one answer, by the way that queries take.
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
    // No RD: what a server has at hand is enough.
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.splice(..2, id.to_be_bytes());
    query.extend_from_slice(&QUESTION);
    Ok(query)
}

impl Asking<'_> {
    /// Whether `message` is the answer; what is not is remembered.
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

    /// Goal: one miss is none, three are down, one answer is up; only changes are told.
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

    /// Goal: a backend that is back is found within an interval, and one that is not is asked ever less.
    #[test]
    fn checks_thin_out_up_to_the_interval() {
        let second = Duration::from_secs(1);
        let pauses = [1, 2, 3, 4, 5, 100].map(|misses| pause(misses, second, 0).as_millis());
        assert_eq!(pauses, [125, 250, 500, 1000, 1000, 1000]);
        assert_eq!(pause(0, second, u16::MAX).as_millis(), 750);
    }

    /// Goal: any rcode is an answer, also without the question where it is an error; another question or a query is not, and
    /// the reason is kept. Covers: C-231, C-232
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
