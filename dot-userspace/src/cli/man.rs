//! `dotd man`: manual pages of dotd and its verbs, generated from their help.
//!
//! Before: the tree of verbs. After: troff on standard output, or a file for each verb in a folder.
//! Never: contains text that `--help` does not have.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{arguments::Arguments, error::CliError, print};

/// Prints the page of one verb, or writes all of them into a folder.
pub(super) fn run(verbs: &[String], to: Option<&Path>) -> Result<(), CliError> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = to else {
        let mut found = &command;
        for verb in verbs {
            found = found.find_subcommand(verb).ok_or_else(|| CliError::NoSuchVerb(verb.clone()))?;
        }
        return print(&page(found).map_err(CliError::Output)?);
    };
    write_all(&command, folder).map_err(|error| CliError::Write { folder: folder.to_owned(), error })
}

/// The page of a verb, and those of the verbs below it.
fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    fs::write(folder.join(Man::new(command.clone()).get_filename()), page(command)?)?;
    command.get_subcommands().try_for_each(|verb| write_all(verb, folder))
}

/// One page. Examples keep their lines: clap_mangen would fill them into paragraphs.
fn page(command: &Command) -> io::Result<String> {
    let man = Man::new(command.clone());
    let mut troff = Vec::new();
    man.render_title(&mut troff)?;
    man.render_name_section(&mut troff)?;
    man.render_synopsis_section(&mut troff)?;
    man.render_description_section(&mut troff)?;
    man.render_options_section(&mut troff)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut troff)?;
    }
    let mut text = String::from_utf8_lossy(&troff).into_owned();
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    text += &sections(&after.map(ToString::to_string).unwrap_or_default());
    text += ".SH SEE ALSO\n.BR dotd (1),\n.BR dotd.toml (5)\n";
    Ok(text)
}

/// Lines in capitals are headings; what follows keeps its lines.
fn sections(text: &str) -> String {
    let is_heading =
        |line: &str| line.chars().all(|sign| sign.is_ascii_uppercase() || matches!(sign, ' ' | ':'));
    let mut out = String::new();
    let mut is_open = false;
    for line in text.lines() {
        if !line.trim().is_empty() && is_heading(line) {
            out += if is_open { ".fi\n" } else { "" };
            out += &format!(".SH {}\n.nf\n", line.trim_end_matches(':'));
            is_open = true;
        } else if is_open {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            out += if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            out += &line;
            out.push('\n');
        }
    }
    out + if is_open { ".fi\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every verb has a page, and its examples are lines. Method: all pages in a folder, and the tree.
    #[test]
    fn every_verb_has_a_page() {
        fn count(command: &Command) -> usize {
            1 + command.get_subcommands().map(count).sum::<usize>()
        }
        let folder = tempfile::tempdir().expect("a folder");
        run(&[], Some(folder.path())).expect("pages");
        let files = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, count(&Arguments::command()));
        let text = fs::read_to_string(folder.path().join("dotd-ban-add.1")).expect("a page of a verb's verb");
        assert!(text.contains(".SH EXAMPLES\n.nf\n  dotd ban add "), "{text}");
        assert!(run(&["bann".to_owned()], None).is_err());
    }
}
