//! Tests of the command line: options on both sides of a verb, examples that parse, and help with examples.

use clap::CommandFactory as _;

use super::*;

/// Goal: the tree of verbs is consistent: no clashing options, no missing values. Method: clap's own assertions.
#[test]
fn tree_is_sound() {
    Arguments::command().debug_assert();
}

/// Goal: the option --config works on both sides of the verb, because operators write it there.
#[test]
fn config_stands_before_or_after_the_verb() {
    for words in [["dotd", "-c", "x.toml", "check"], ["dotd", "check", "--config", "x.toml"]] {
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!(arguments.config, Some("x.toml".into()));
    }
}

/// Goal: every verb has examples. Method: its help contains EXAMPLES and the verb itself.
#[test]
fn every_verb_has_examples() {
    fn look(command: &mut clap::Command, words: &str) {
        let leaves: Vec<_> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        if leaves.is_empty() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("EXAMPLES") && help.contains(words), "{words}: {help}");
        }
        for leaf in leaves.iter().filter(|leaf| *leaf != "help") {
            look(command.find_subcommand_mut(leaf).unwrap(), &format!("{words} {leaf}"));
        }
    }
    look(&mut Arguments::command(), "dotd");
}

/// The command lines of `dotd` in a text, each as its words. Text after two blanks is a remark; text after a pipe, a
/// `>` or `&&` belongs to another program.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let parts = text.lines().flat_map(|line| line.split(['|', '>', '&'])).map(str::trim);
    let ours = parts.filter(|part| part.starts_with("dotd "));
    let line = |part: &str| part.split("  ").next().unwrap_or_default().to_owned();
    let words = |line: String| {
        let quoted = line.split('\'').enumerate().flat_map(|(place, piece)| match place % 2 {
            0 => piece.split_whitespace().map(str::to_owned).collect(),
            _ => vec![piece.to_owned()],
        });
        quoted.collect()
    };
    ours.map(line).map(words).collect()
}

/// Goal: every command line that the help and the README show is valid. Method: every command line of dotd in them is
/// parsed.
#[test]
fn examples_parse() {
    fn help(command: &mut clap::Command) -> String {
        let both = [command.render_help().to_string(), command.render_long_help().to_string()];
        // The text above the examples is prose, and a line of it may begin with the name.
        let own = both.iter().filter_map(|text| text.split_once("EXAMPLES")).map(|(_, examples)| examples);
        let own = own.collect::<String>();
        command.get_subcommands_mut().map(help).fold(own, |text, more| text + &more)
    }
    let help = help(&mut Arguments::command());
    let readme = include_str!("../../../../README.md");
    let blocks: String = readme.split("```").skip(1).step_by(2).collect();
    let lines = [command_lines(&help), command_lines(&blocks)].concat();
    assert!(lines.len() > 30, "{} examples", lines.len());
    for line in lines {
        let words = crate::cli::query::as_options(line.iter().map(std::ffi::OsString::from));
        let parsed = Arguments::try_parse_from(words);
        assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
    }
}
