//! `dotd.toml`: any text is a config, or a list of readable mistakes.
//!
//! Before: any octets; those that are UTF-8 are a file. After: parsed twice, with the same outcome.
//! Never: touches the file system.

use dot_userspace::config::parse;

/// Runs the target.
///
/// # Panics
/// When a mistake is not one line, or a text has two meanings.
pub fn run(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match (parse(text, "fuzz.toml"), parse(text, "fuzz.toml")) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(one), Err(other)) => {
            assert!(!one.mistakes.is_empty(), "refused without a reason");
            assert_eq!(one.to_string(), other.to_string());
            for mistake in &one.mistakes {
                assert!(!mistake.to_string().contains('\n'), "a mistake is one line: {mistake}");
            }
        }
        (one, other) => panic!("two outcomes: {one:?}, {other:?}"),
    }
}
