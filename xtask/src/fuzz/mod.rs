//! `cargo xtask fuzz`: each target of `fuzz/` under libFuzzer, with the installed compiler, for the requested time.
//!
//! Before: a clone, a C++ compiler. After: a line for each target with its figures, or the octets that broke it.
//! Holds: no flags for instrumentation: `fuzz/rustc.sh` has them, all stable, so no nightly is needed.
//! Never: passes when no target ran, or one did not run to its end; without a C++ compiler it says SKIPPED and why.

mod end;
mod figures;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{build, command, setup};
use end::{End, written};
use figures::Figures;

/// Longest input: a DNS message with its prefix, and the further octets that a target needs.
const INPUT_OCTETS_MAX: usize = 66_000;
/// Seconds for one input; none takes a hundredth of one.
const INPUT_SECONDS_MAX: u32 = 20;
/// Memory of one target; none needs a tenth.
const MEMORY_MIB_MAX: u32 = 2048;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
    A target is a function that reads octets of strangers; fuzz/src/targets says what must hold for each.
    Inputs that reach new code are kept in target/fuzz/corpus, so that a later run goes on from there. Seeds
    lie in fuzz/seeds; `cargo test -p dot-fuzz` runs them without an engine.

EXAMPLES:
    cargo xtask fuzz                            every target for a minute each
    cargo xtask fuzz --seconds 600 response     one target for ten minutes
    cargo xtask fuzz --save query               let what reaches new code become seeds
    cargo xtask fuzz query --input FILE         one input once more, with its backtrace

EXIT STATUS:
    0 when every target held (or SKIPPED: no C++ compiler), 1 when one broke or was interrupted, 2 for a mistake in the
    command line.")]
pub(crate) struct Fuzz {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Afterwards, make seeds of the smallest inputs that reach all that was reached
    #[arg(long, conflicts_with = "input")]
    save: bool,
    /// Run this one file through one target, and nothing else
    #[arg(long)]
    input: Option<PathBuf>,
    /// Targets; none: all of them
    targets: Vec<String>,
}

/// Builds the targets with instrumentation and runs them one after another.
///
/// # Errors
/// The build failed, a name is no target, or a target broke.
pub(crate) fn run(root: &Path, arguments: &Fuzz) -> Result<()> {
    let targets = chosen(root, &arguments.targets)?;
    if !setup::is_command("c++") {
        println!("SKIPPED fuzz: libFuzzer needs a C++ compiler (`cargo xtask setup --tests` installs it)");
        return Ok(());
    }
    setup::ensure(setup::Wants::default())?;
    let engine = build_engine(root)?;
    let folder = build::target(root).join("fuzz");
    if let Some(input) = &arguments.input {
        let [target] = targets.as_slice() else { bail!("--input wants the name of one target beside it") };
        return command::run(engine_for(&engine, target).arg(input));
    }
    let mut broken = Vec::new();
    for target in &targets {
        let run = Run { root, folder: &folder, engine: &engine, target };
        match run.fuzz(arguments.seconds)? {
            End::Held if arguments.save => run.save()?,
            End::Held => {}
            End::Interrupted | End::Slow => bail!("fuzz: interrupted at {target}"),
            End::Broke => broken.push(target.as_str()),
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("fuzz: broken: {}", broken.join(", ")) }
}

/// The targets that were named, or all: each has a folder of seeds (a test checks that).
fn chosen(root: &Path, named: &[String]) -> Result<Vec<String>> {
    let folder = root.join("fuzz/seeds");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    match named.iter().find(|name| !all.contains(name)) {
        Some(name) => bail!("no target {name}; there are: {}", all.join(", ")),
        None if named.is_empty() => Ok(all),
        None => Ok(named.to_vec()),
    }
}

/// Builds the binary `fuzz`: the crates of this workspace through `fuzz/rustc.sh`, all others without it.
fn build_engine(root: &Path) -> Result<PathBuf> {
    let mut cargo = command::cargo(root);
    cargo.args(["build", "--package", "dot-fuzz", "--features", "engine", "--bin", "fuzz"]);
    command::run(cargo.env("RUSTC_WORKSPACE_WRAPPER", root.join("fuzz/rustc.sh")))?;
    Ok(build::target(root).join("debug/fuzz"))
}

fn engine_for(engine: &Path, target: &str) -> Command {
    let mut command = Command::new(engine);
    command.env("DOTD_FUZZ_TARGET", target).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command
}

/// One target and its folders.
struct Run<'a> {
    root: &'a Path,
    folder: &'a Path,
    engine: &'a Path,
    target: &'a str,
}

impl Run<'_> {
    fn corpus(&self) -> PathBuf {
        self.folder.join("corpus").join(self.target)
    }

    fn seeds(&self) -> PathBuf {
        self.root.join("fuzz/seeds").join(self.target)
    }

    /// Runs the target and prints its line.
    fn fuzz(&self, seconds: u32) -> Result<End> {
        let found = self.folder.join("found").join(self.target);
        for folder in [&self.corpus(), &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let log = self.folder.join(format!("{}.log", self.target));
        let mut engine = engine_for(self.engine, self.target);
        engine.arg(format!("-max_total_time={seconds}"));
        engine.arg(format!("-max_len={INPUT_OCTETS_MAX}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        engine.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}")).arg("-print_final_stats=1");
        engine.arg(format!("-artifact_prefix={}/", found.display())).args([self.corpus(), self.seeds()]);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        engine.stdout(file.try_clone()?).stderr(file);
        let end = End::of(command::status(&mut engine)?);
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let figures = Figures::of(&text);
        match end {
            End::Held => println!("fuzz: {:<10} {figures}", self.target),
            End::Interrupted => println!("fuzz: {:<10} interrupted after {figures}", self.target),
            End::Slow if self.holds(written(&text))? => {
                println!("fuzz: {:<10} an input took long once, and not again; {figures}", self.target);
            }
            End::Slow | End::Broke => {
                self.show(&text, &log, &found);
                return Ok(End::Broke);
            }
        }
        Ok(end)
    }

    /// Whether an input holds when it is run alone.
    fn holds(&self, input: Option<&Path>) -> Result<bool> {
        let Some(input) = input else { return Ok(false) };
        let mut engine = engine_for(self.engine, self.target);
        engine.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(input);
        Ok(command::status(engine.stdout(Stdio::null()).stderr(Stdio::null()))?.success())
    }

    /// Prints the input that broke the target.
    fn show(&self, text: &str, log: &Path, found: &Path) {
        println!("fuzz: {} BROKE; the end of {}:", self.target, log.display());
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| println!("    {line}"));
        println!("fuzz: once more: cargo xtask fuzz {} --input {}/<file>", self.target, found.display());
    }

    /// Adds to the seeds what reaches code that they do not.
    fn save(&self) -> Result<()> {
        let mut engine = engine_for(self.engine, self.target);
        engine.args(["-merge=1", "-verbosity=0"]).arg(format!("-max_len={INPUT_OCTETS_MAX}"));
        command::run(engine.args([self.seeds(), self.corpus()]))
    }
}
