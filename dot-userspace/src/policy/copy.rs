//! The copy of a transferred zone: a zone file in dotd's own folder, written whole, or by differences from the
//! previous one.
//!
//! Before: records of a transfer, one by one. After: a [`Draft`] beside the copy, which replaces the copy once it was
//! read.
//! Holds: the draft's descriptor; for differences, the deleted and the added records.
//! Never: changes the copy in place; holds a whole zone in memory; writes more than its [`Bounds`].
//!
//! Source: RFC 5936 §3, RFC 1995 §4 (the order in which differences hold).

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::words::Lines;
use crate::{
    disk,
    dns::{Part, ZoneRecord},
};

const FIRST_LINE: &str = "; a copy that dotd has transferred and replaces by itself\n";
const CLASS_IN: u16 = 1;
/// Memory of a record of differences beside its text.
const DIFFERENCE_OCTETS: usize = 100;

/// The limits of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets of the copy.
    pub octets: u64,
    /// Records of the zone.
    pub records: u64,
    /// Memory that differences may take.
    pub difference_octets: usize,
}

/// The reason why a transfer is not used.
#[derive(Debug)]
pub enum Unfit {
    /// The differences are not from the present version: the whole zone may be requested.
    Differences(String),
    /// Anything else.
    Zone(String),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Zone(format!("the copy cannot be written: {error}"))
    }
}

/// A newer copy. Dropping it removes the file, unless it was kept.
pub struct Draft {
    file: BufWriter<File>,
    /// The open folder, because its path may lead elsewhere later.
    folder: File,
    path: PathBuf,
    target: PathBuf,
    octets: u64,
    records: u64,
    bounds: Bounds,
    is_kept: bool,
}

impl Draft {
    /// Starts a draft beside the copy at `target`.
    ///
    /// # Errors
    /// As for any file.
    pub fn begin(target: &Path, bounds: Bounds) -> io::Result<Self> {
        let folder = disk::open_folder(target.parent().unwrap_or(Path::new("")))?;
        let name = target.file_name().unwrap_or_default();
        let target = disk::path_of(&folder).join(name);
        let mut draft_name = name.to_owned();
        draft_name.push(format!(".{}", std::process::id()));
        let path = disk::path_of(&folder).join(draft_name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut draft = Self {
            file: BufWriter::new(file),
            folder,
            path,
            target,
            octets: 0,
            records: 0,
            bounds,
            is_kept: false,
        };
        draft.file.write_all(FIRST_LINE.as_bytes())?;
        Ok(draft)
    }

    /// The path of the draft.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The numbers of its records and octets.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.records, self.octets)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), Unfit> {
        self.records += 1;
        self.octets += line.len() as u64 + 1;
        if self.records > self.bounds.records || self.octets > self.bounds.octets {
            let Bounds { octets, records, .. } = self.bounds;
            return Err(Unfit::Zone(format!("the zone has more than {records} records or {octets} octets")));
        }
        self.file.write_all(line)?;
        Ok(self.file.write_all(b"\n")?)
    }

    /// Writes all of it to the disk.
    ///
    /// # Errors
    /// As for any file.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// Replaces the copy.
    ///
    /// # Errors
    /// As for any file; the copy stays then.
    pub fn keep(mut self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.path, &self.target)?;
        self.is_kept = true;
        self.folder.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept {
            // A draft that cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A transfer in progress.
pub struct Arriving {
    target: PathBuf,
    draft: Draft,
    first: Option<(u32, String)>,
    kind: Option<Kind>,
    /// The version to which the differences so far lead.
    reached: Option<u32>,
    /// Whether the next SOA record of the differences gives the version that a step leads to, and not the one that it
    /// begins from.
    is_in_step: bool,
    /// The part of the last record: a transfer ends with a SOA record.
    last: Part,
    deleted: HashSet<String>,
    /// Owner and data; the whole line.
    added: HashMap<String, String>,
    difference_octets: usize,
}

/// The kind of the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Differences,
}

impl Arriving {
    /// A transfer without records so far; the copy at `target`, if it exists, has the serial `has`.
    ///
    /// # Errors
    /// No file can be made beside the copy.
    pub fn begin(target: &Path, has: Option<u32>, bounds: Bounds) -> io::Result<Self> {
        Ok(Self {
            target: target.to_owned(),
            draft: Draft::begin(target, bounds)?,
            first: None,
            kind: None,
            reached: has,
            is_in_step: false,
            last: Part::First,
            deleted: HashSet::new(),
            added: HashMap::new(),
            difference_octets: 0,
        })
    }

    /// Takes a record.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn take(&mut self, part: Part, record: &ZoneRecord) -> Result<(), Unfit> {
        if record.class != CLASS_IN {
            return Err(Unfit::Zone(format!("a record has class {}", record.class)));
        }
        self.last = part;
        let (owner, data) = record.words();
        let line = format!("{owner} {} {data}", record.ttl);
        match part {
            Part::First => self.first = Some((record.soa().map_or(0, |soa| soa.serial), line)),
            Part::Zone | Part::End => {
                self.begin_whole()?;
                if part == Part::Zone {
                    self.draft.add(line.as_bytes())?;
                }
            }
            Part::Border => self.pass_border(record)?,
            Part::Deleted => {
                let key = format!("{owner} {data}");
                if self.added.remove(&key).is_none() {
                    self.note_difference(key.len())?;
                    self.deleted.insert(key);
                }
            }
            Part::Added => {
                let key = format!("{owner} {data}");
                self.note_difference(key.len() + line.len())?;
                self.added.insert(key, line);
            }
        }
        Ok(())
    }

    fn begin_whole(&mut self) -> Result<(), Unfit> {
        if self.kind.replace(Kind::Whole).is_none()
            && let Some((_, line)) = &self.first
        {
            self.draft.add(line.as_bytes())?;
        }
        Ok(())
    }

    /// Each step begins at the version that the previous one leads to; after the last one that version is named
    /// again.
    fn pass_border(&mut self, border: &ZoneRecord) -> Result<(), Unfit> {
        self.kind = Some(Kind::Differences);
        self.note_difference(0)?;
        let serial = border.soa().map(|soa| soa.serial);
        if !self.is_in_step && serial != self.reached {
            let reached = self.reached;
            return Err(Unfit::Differences(format!("a step begins at {serial:?}, not at {reached:?}")));
        }
        (self.reached, self.is_in_step) = (serial, !self.is_in_step);
        Ok(())
    }

    fn note_difference(&mut self, octets: usize) -> Result<(), Unfit> {
        self.difference_octets += octets + DIFFERENCE_OCTETS;
        let most = self.draft.bounds.difference_octets;
        if self.difference_octets > most {
            return Err(Unfit::Differences(format!(
                "the differences need more than {most} octets of memory"
            )));
        }
        Ok(())
    }

    /// Ends the transfer. Returns the newer copy, and whether it was made of differences. `None`: the present version
    /// is the newest.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn finish(mut self) -> Result<Option<(Draft, bool)>, Unfit> {
        match (self.kind, self.last) {
            (None, _) => return Ok(None),
            (Some(Kind::Whole), Part::End) => {}
            (Some(Kind::Differences), Part::Border) if self.has_arrived() => self.apply()?,
            (Some(Kind::Whole), _) => {
                return Err(Unfit::Zone("the transfer ends before its last record".to_owned()));
            }
            (Some(Kind::Differences), _) => {
                return Err(Unfit::Differences("the differences end before their last record".to_owned()));
            }
        }
        self.draft.sync()?;
        Ok(Some((self.draft, self.kind == Some(Kind::Differences))))
    }

    /// Whether the differences lead to the version of the transfer.
    fn has_arrived(&self) -> bool {
        self.is_in_step && self.reached == self.first.as_ref().map(|(serial, _)| *serial)
    }

    /// Writes the copy again without the deleted records, and with the added ones.
    fn apply(&mut self) -> Result<(), Unfit> {
        if let Some((_, line)) = &self.first {
            self.draft.add(line.as_bytes())?;
        }
        let old = disk::open_own(&self.target)
            .map_err(|error| Unfit::Differences(format!("the copy cannot be read: {error}")))?;
        let (mut lines, mut line) = (Lines::new(BufReader::new(old), self.draft.bounds.octets), Vec::new());
        let mut found = HashSet::new();
        let broken = |what: &str| Unfit::Differences(format!("the copy is broken: {what}"));
        loop {
            line.clear();
            if !lines.next(&mut line).map_err(|error| broken(&error.to_string()))? {
                break;
            }
            let text = std::str::from_utf8(&line).map_err(|error| broken(&error.to_string()))?;
            if text.starts_with(';') {
                continue;
            }
            let mut words = text.splitn(3, ' ');
            let (Some(owner), Some(_), Some(data)) = (words.next(), words.next(), words.next()) else {
                return Err(broken("a line has no three words"));
            };
            let key = format!("{owner} {data}");
            if data.starts_with("SOA ") || self.added.contains_key(&key) {
                continue;
            }
            match self.deleted.take(&key) {
                Some(key) => drop(found.insert(key)),
                None if found.contains(&key) => {}
                None => self.draft.add(&line)?,
            }
        }
        // A record that is deleted and added again may have been present or not.
        let missing = self.deleted.iter().find(|key| !self.added.contains_key(*key));
        if let Some(missing) = missing {
            return Err(Unfit::Differences(format!("the copy does not have the record {missing}")));
        }
        self.added.values().try_for_each(|line| self.draft.add(line.as_bytes()))
    }
}

/// Removes the drafts of copies that an earlier process left in `folder`.
pub fn remove_drafts(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_draft = name.strip_prefix(COPY_PREFIX).and_then(|name| name.rsplit_once(COPY_SUFFIX));
        if is_draft
            .is_some_and(|(_, rest)| rest.strip_prefix('.').is_some_and(|pid| pid.parse::<u32>().is_ok()))
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The copy of the zone `name` in `folder`.
#[must_use]
pub fn copy_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{COPY_PREFIX}{}{COPY_SUFFIX}", name.trim_end_matches('.').to_ascii_lowercase()))
}

/// The beginning and the end of the names of copies.
pub const COPY_PREFIX: &str = "policy-";
const COPY_SUFFIX: &str = ".zone";

#[cfg(test)]
mod tests;
