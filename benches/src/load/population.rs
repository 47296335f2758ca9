//! The clients of a real server: a few that ask all the time, many that hardly ask, some that ask once.
//!
//! Before: `--mix`. After: `threads` knows what each connection is, and this file drives those that are not chatty.
//! Holds: their pauses, and their reaction when the server closes meanwhile. Never: sends faster than its pauses: a
//! server that stalls gets fewer queries from these clients, as from people.

use std::{fmt, io, rc::Rc, str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split},
    time::{sleep, timeout},
};

use super::{
    client::Client,
    connection::{CLOSING, FAILURES_MAX, Flight, Stream, exchange, open},
    pacer::Random,
    threads::Share,
};

/// A kind of client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Population {
    /// Keeps its queries in flight, or takes what falls due.
    #[default]
    Chatty,
    /// Holds its connection and asks after pauses.
    Idle,
    /// Connects, asks, closes, pauses.
    OneShot,
}

/// All of them, in the order of reports.
pub const POPULATIONS: [Population; 3] = [Population::Chatty, Population::Idle, Population::OneShot];

impl fmt::Display for Population {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Chatty => "chatty",
            Self::Idle => "idle",
            Self::OneShot => "one-shot",
        })
    }
}

/// `--mix`: parts of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; 3]);

impl Mix {
    /// The kind of connection `number`: every run of as many connections as the parts add up to has these parts.
    #[must_use]
    pub fn of(&self, number: u32) -> Population {
        let mut place = number % self.0.iter().sum::<u32>().max(1);
        for (population, part) in POPULATIONS.into_iter().zip(self.0) {
            match place.checked_sub(part) {
                None => return population,
                Some(rest) => place = rest,
            }
        }
        Population::Chatty
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = [0; 3];
        for word in text.split(',') {
            let (name, part) = word.split_once('=').ok_or_else(|| format!("`{word}` is not NAME=PART"))?;
            let place = POPULATIONS.iter().position(|population| population.to_string() == name);
            let place = place.ok_or_else(|| format!("`{name}` is none of chatty, idle, one-shot"))?;
            let part = part.parse().ok().filter(|part| *part <= PART_MAX);
            parts[place] = part.ok_or_else(|| format!("`{word}`: a part is a number up to {PART_MAX}"))?;
        }
        if parts == [0; 3] {
            return Err("at least one part must be above zero".to_owned());
        }
        Ok(Self(parts))
    }
}

/// Three of them add up to what a number of connections can be divided by.
const PART_MAX: u32 = 100_000;

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = POPULATIONS.iter().zip(self.0).filter(|(_, part)| *part > 0);
        let words: Vec<String> = words.map(|(population, part)| format!("{part} {population}")).collect();
        f.write_str(&words.join(" : "))
    }
}

/// The end of an idle client's pause.
enum Waited {
    /// It may ask.
    Ask,
    /// The run is over.
    Over,
    /// The server closed.
    Closed,
}

/// Asks from time to time until the run is over: over one connection, or over a new one each time.
pub async fn wander(
    share: Rc<Share>,
    client: Client,
    population: Population,
    mut first: Option<Stream>,
    seed: u64,
) {
    let mut random = Random::new(seed);
    let mut failures = 0;
    while failures < FAILURES_MAX {
        let begins_idle = first.is_some();
        let stream = match first.take() {
            Some(stream) => Some(stream),
            None if matches!(pause(&share, &mut random, None).await, Waited::Ask) => {
                open(&share, &client).await
            }
            None => return,
        };
        let Some(stream) = stream else {
            failures += 1;
            continue;
        };
        match live(&share, population, stream, begins_idle, &mut random).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                share.tally.borrow_mut().error(error.to_string());
            }
        }
        if !share.may_send() {
            return;
        }
    }
}

/// One connection, from its first pause or query to its end.
async fn live(
    share: &Share,
    population: Population,
    stream: Stream,
    begins_idle: bool,
    random: &mut Random,
) -> io::Result<()> {
    let (mut reader, mut writer) = split(stream);
    let mut flight = Flight::new(1, population);
    let mut result = Ok(());
    // Those that connect during the run paused before; those that stood at its begin would ask all at once.
    let mut asks = !begins_idle;
    loop {
        if asks {
            result = exchange(share, None, &mut flight, 1, &mut reader, &mut writer).await.map(|_| ());
            share.tally.borrow_mut().lost += flight.in_flight();
        }
        if result.is_err() || population == Population::OneShot {
            break;
        }
        asks = true;
        match pause(share, random, Some(&mut reader)).await {
            Waited::Ask => {}
            Waited::Over => break,
            Waited::Closed => {
                share.tally.borrow_mut().closed_by_server += 1;
                return Ok(());
            }
        }
    }
    if result.is_ok() {
        // The server may be gone by now: nothing depends on it.
        let _ = timeout(CLOSING, writer.shutdown()).await;
    }
    result
}

/// Pauses for an exponential time, or until the run or the connection ends.
async fn pause(share: &Share, random: &mut Random, reader: Option<&mut ReadHalf<Stream>>) -> Waited {
    let time = random.gap(1.0 / share.pause.as_secs_f64());
    let left = share.time_left().unwrap_or(Duration::MAX);
    let mut octet = [0];
    let closed = async {
        match reader {
            // No query is in flight, so only the end, or something unexpected, can arrive.
            Some(reader) => drop(reader.read(&mut octet).await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep(time.min(left)) => if share.may_send() { Waited::Ask } else { Waited::Over },
        () = closed => Waited::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: parts are kept at every number of connections that they divide. Method: a mix of ten, a hundred
    /// connections.
    #[test]
    fn mix_keeps_its_parts() {
        let mix: Mix = "idle=6,chatty=1,one-shot=3".parse().expect("a mix");
        let count = |population| (0..100).filter(|number| mix.of(*number) == population).count();
        assert_eq!(POPULATIONS.map(count), [10, 60, 30]);
        assert_eq!(mix.to_string(), "1 chatty : 6 idle : 3 one-shot");
        let idle: Mix = "idle=1".parse().expect("a mix");
        assert_eq!((idle.of(0), idle.of(u32::MAX)), (Population::Idle, Population::Idle));
    }

    /// Goal: a slip in the mix is told. Method: one of each kind.
    #[test]
    fn mix_tells_slips() {
        for (text, complaint) in [
            ("idle", "NAME=PART"),
            ("lazy=1", "none of chatty"),
            ("idle=-1", "a part is a number"),
            ("idle=100001", "a part is a number"),
            ("idle=0", "at least one"),
        ] {
            let error = text.parse::<Mix>().expect_err(text);
            assert!(error.contains(complaint), "{error}");
        }
    }
}
