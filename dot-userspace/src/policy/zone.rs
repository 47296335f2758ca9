//! One policy zone: the rules of its file, as modified by the config.
//!
//! Before: `[[policy.zone]]` and a file. After: `screen` asks it for each query.
//! Holds: rules that every worker shares; a zone with another action shares them with the previous one. The number of
//! matches.
//! Never: changes its rules once they are read.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    builder::Builder,
    hits::Hits,
    lists, rpz,
    rules::{Action, Rules},
    words::Lines,
};
use crate::{
    config::{LimitMode, PolicyAction, PolicyFormat, PolicyZone},
    disk::{self, Print},
    dns::Labels,
};

/// Most octets of a file. 1 GiB: twenty times a zone of a million names.
const FILE_OCTETS_MAX: u64 = 1 << 30;
/// TTL of an alias in the config. 60 s, so that clients soon follow a change.
const ALIAS_TTL_SECONDS: u32 = 60;

/// Why a zone cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneError {
    /// The zone.
    pub zone: String,
    /// Its file.
    pub file: PathBuf,
    /// The line; 0: no particular one.
    pub line: u32,
    /// The mistake.
    pub what: String,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, file, line, what } = self;
        match line {
            0 => write!(f, "policy zone {zone}: {}: {what}", file.display()),
            _ => write!(f, "policy zone {zone}: {}:{line}: {what}", file.display()),
        }
    }
}

impl std::error::Error for ZoneError {}

/// The rules of a file, and when it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rules.
    pub rules: Arc<Rules>,
    /// When it was read.
    pub at: SystemTime,
    /// How long that took.
    pub milliseconds: u64,
    /// `None`: there was no file.
    print: Option<Print>,
}

/// A policy zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its config.
    config: PolicyZone,
    loaded: Loaded,
    /// Its name in wire format.
    wire: Box<[u8]>,
    /// Code and text of its extended error.
    ede: Option<(u16, Box<str>)>,
    /// The target of every rule, if the config gives one.
    alias: Option<Box<[u8]>>,
    hits: Arc<Hits>,
}

impl Zone {
    /// Reads the file that `config` names.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn load(config: &PolicyZone) -> Result<Self, ZoneError> {
        Self::read(config, open(config))
    }

    /// Reads a copy of a transferred zone, in dotd's own folder. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// As [`Zone::load`].
    pub fn load_copy(config: &PolicyZone, path: &Path) -> Result<Option<Self>, ZoneError> {
        match disk::open_own(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => Self::read(config, opened.map_err(unreadable).and_then(checked)).map(Some),
        }
    }

    /// A zone without rules, for the time until there are some.
    ///
    /// # Errors
    /// A name in the config is invalid.
    pub fn empty(config: &PolicyZone) -> Result<Self, ZoneError> {
        let rules = Arc::new(Builder::default().build());
        let loaded = Loaded { rules, at: SystemTime::now(), milliseconds: 0, print: None };
        Self::of(config, loaded).map_err(|what| ZoneError {
            zone: config.name.clone(),
            file: config.file.clone(),
            line: 0,
            what,
        })
    }

    fn read(config: &PolicyZone, opened: Result<(File, Print), String>) -> Result<Self, ZoneError> {
        let began = Instant::now();
        let error = |line: u32, what: String| ZoneError {
            zone: config.name.clone(),
            file: config.file.clone(),
            line,
            what,
        };
        let (file, print) = opened.map_err(|what| error(0, what))?;
        let name = labels(&config.name).map_err(|what| error(0, what))?;
        let (mut lines, mut builder) =
            (Lines::new(BufReader::new(file), FILE_OCTETS_MAX), Builder::default());
        let outcome = match config.format {
            PolicyFormat::Rpz => rpz::read(&mut lines, &name, &mut builder),
            format => lists::read(&mut lines, format, &mut builder),
        };
        outcome.map_err(|(line, what)| error(line, what))?;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rules = Arc::new(builder.build());
        let loaded = Loaded { rules, at: SystemTime::now(), milliseconds, print: Some(print) };
        Self::of(config, loaded).map_err(|what| error(0, what))
    }

    /// The zone with these rules.
    fn of(config: &PolicyZone, loaded: Loaded) -> Result<Self, String> {
        let alias = match &config.action {
            PolicyAction::Cname(target) => Some(labels(target)?.octets().into()),
            _ => None,
        };
        let ede = config.ede.code().map(|code| (code, config.name.as_str().into()));
        let wire = labels(&config.name)?.octets().into();
        Ok(Self { config: config.clone(), loaded, wire, ede, alias, hits: Arc::default() })
    }

    /// The same rules under another config that names the same file in the same format. `None`: it does not.
    #[must_use]
    pub fn again(&self, config: &PolicyZone) -> Option<Self> {
        let is_same = (&self.config.name, &self.config.file, self.config.format)
            == (&config.name, &config.file, config.format);
        let same = is_same.then(|| Self::of(config, self.loaded.clone()).ok())??;
        Some(same.in_place_of(self))
    }

    /// Continues the counts of the zone that this one replaces.
    #[must_use]
    pub fn in_place_of(self, before: &Self) -> Self {
        Self { hits: Arc::clone(&before.hits), ..self }
    }

    /// Counts a match of a rule, also of a zone that only counts.
    pub fn hit(&self) {
        self.hits.add();
    }

    /// How often rules matched.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.count()
    }

    /// Whether its file is still the one that was read. The copy of a transferred zone is replaced together with the
    /// zone.
    #[must_use]
    pub fn is_as_read(&self) -> bool {
        self.config.is_transferred()
            || open(&self.config).is_ok_and(|(_, print)| Some(print) == self.loaded.print)
    }

    /// Its config.
    #[must_use]
    pub fn config(&self) -> &PolicyZone {
        &self.config
    }

    /// The rules with the time of reading.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.loaded.rules
    }

    /// The action of a rule in this zone.
    #[must_use]
    pub fn action(&self, rule: u32) -> Action<'_> {
        match &self.config.action {
            PolicyAction::Given => self.rules().action(rule),
            PolicyAction::NxDomain => Action::NxDomain,
            PolicyAction::NoData => Action::NoData,
            PolicyAction::Drop => Action::Drop,
            PolicyAction::Passthru => Action::Passthru,
            PolicyAction::TcpOnly => Action::TcpOnly,
            PolicyAction::Cname(_) => Action::Alias(self.alias.as_deref().unwrap_or(&[0]), ALIAS_TTL_SECONDS),
        }
    }

    /// Whether its rules only count.
    #[must_use]
    pub fn only_counts(&self) -> bool {
        self.config.mode == LimitMode::Count
    }

    /// Its name in wire format.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The extended error of its answers, with its name.
    #[must_use]
    pub fn ede(&self) -> Option<(u16, &str)> {
        self.ede.as_ref().map(|(code, text)| (*code, &**text))
    }
}

fn open(config: &PolicyZone) -> Result<(File, Print), String> {
    disk::open_named(&config.file).map_err(unreadable).and_then(checked)
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn checked(file: File) -> Result<(File, Print), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("is not a file".to_owned());
    }
    Ok((file, disk::print_of(&found)))
}

fn labels(name: &str) -> Result<Labels, String> {
    Labels::parse(name.as_bytes(), None).map_err(|error| format!("{name}: {error}"))
}
