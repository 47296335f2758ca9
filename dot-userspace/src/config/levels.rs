//! Levels of the log by name, for the command line and for log lines.
//!
//! Before: a word, or a level. After: the other. Never: decides which level is in effect.

use super::LogLevel;

impl LogLevel {
    /// Every level, by its name in the file.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// Whether lines of level info are written: lines of connections have that level.
    #[must_use]
    pub fn shows_connections(self) -> bool {
        !matches!(self, Self::Error | Self::Warn)
    }

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Goal: a level has the same name here as in the file. Method: each name in a config.
    #[test]
    fn names_are_those_of_the_file() {
        for (name, level) in LogLevel::NAMED {
            assert_eq!(parse(&format!("[log]\nlevel = \"{name}\""), "f").unwrap().log.level, level);
            assert_eq!(level.name(), name);
        }
    }
}
