//! Detects whether the content of a path has changed, without reading it.
//!
//! Before: a file is open. After: its reader compares this value with an earlier one.
//! Never: reads the file.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

/// Device, inode, length, and when it was written and changed.
pub type Print = (u64, u64, u64, (i64, i64), (i64, i64));

/// The value for a file.
#[must_use]
pub fn print_of(file: &Metadata) -> Print {
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    (file.dev(), file.ino(), file.len(), modified, changed)
}
