//! `dotd top`: the present activity of the running dotd, on the whole terminal or once as text or JSON.
//!
//! Before: an operator types the verb. After: the terminal is restored.
//! Holds: the last two samples. Never: makes dotd count clients for longer than the verb runs (`events::Heavy`).

mod sample;
mod screen;
mod text;
mod view;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{error::CliError, print, socket};
use sample::Sample;
pub(in crate::cli) use view::Order;
use view::View;

/// The options of the command line.
pub(super) struct Wish {
    pub(super) once: bool,
    pub(super) json: bool,
    pub(super) with_names: bool,
    pub(super) order: Order,
    pub(super) filter: String,
    pub(super) interval: Duration,
}

/// Runs the verb.
pub(super) fn run(
    wish: &Wish,
    control: &super::arguments::ControlArguments,
    config: Option<&Path>,
) -> Result<(), CliError> {
    let socket: PathBuf = socket(control, config);
    if wish.once || wish.json {
        let before = Sample::take(&socket, wish.with_names)?;
        std::thread::sleep(wish.interval);
        let view = View::between(&before, &Sample::take(&socket, wish.with_names)?);
        if wish.json {
            let text = serde_json::to_string(&view).map_err(|error| CliError::Output(error.into()))?;
            return print(&format!("{text}\n"));
        }
        return print(&text::text(&view, wish.order, &wish.filter));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    screen::run(&socket, wish)
}
