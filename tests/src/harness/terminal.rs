//! A terminal of 160 by 50 cells for a program that draws on it, as a user sees it.
//!
//! Before: a program that needs a terminal. After: a test types, and reads the screen.
//! Holds: the process under `script`, which makes the pseudo-terminal, and the screen as cells.
//! Never: interprets more control sequences than those for cursor, text and clearing.

use std::{
    io::{Read, Write},
    process::{ChildStdin, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use super::{eventually, process::bounded};

const COLUMNS: usize = 160;
const ROWS: usize = 50;

/// A program on a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: std::process::Child,
    keys: Option<ChildStdin>,
    octets: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a shell command.
    ///
    /// # Panics
    /// When `script` is missing.
    #[must_use]
    pub fn start(command_line: &str) -> Self {
        let line = format!("stty rows {ROWS} cols {COLUMNS}; exec {command_line}");
        let mut command = bounded("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("script (bsdutils) starts");
        let (octets, mut output) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().expect("piped"));
        let written = Arc::clone(&octets);
        thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut room) {
                written.lock().expect("no reader panics").extend_from_slice(&room[..count]);
            }
        });
        let keys = child.stdin.take();
        Self { child, keys, octets }
    }

    /// Types these octets.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn press(&mut self, keys: &str) {
        let stdin = self.keys.as_mut().expect("open");
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("the program reads");
    }

    /// Waits until `part` is on the screen.
    ///
    /// # Panics
    /// When that takes too long; the message has the screen.
    pub fn shows(&self, part: &str) {
        eventually(&format!("{part:?} stands on the screen"), || self.screen().contains(part).then_some(()));
    }

    /// The screen, one line for each row.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn screen(&self) -> String {
        screen_of(&String::from_utf8_lossy(&self.octets.lock().expect("no reader panics")))
    }

    /// Waits for the end; returns whether the exit status is 0.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn ends(mut self) -> bool {
        self.keys = None;
        let status = eventually("the program ends", || self.child.try_wait().expect("it is ours"));
        status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The screen that these octets produce.
fn screen_of(text: &str) -> String {
    let mut cells = vec![[' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' if letters.next_if_eq(&'[').is_some() => {
                let mut parameters = String::new();
                let end = loop {
                    match letters.next() {
                        Some(end @ '@'..='~') => break end,
                        Some(other) => parameters.push(other),
                        None => break ' ',
                    }
                };
                let mut numbers = parameters.split(';').map(|number| number.parse().unwrap_or(1));
                match end {
                    'H' => {
                        row = numbers.next().unwrap_or(1_usize).saturating_sub(1);
                        column = numbers.next().unwrap_or(1).saturating_sub(1);
                    }
                    'J' => cells = vec![[' '; COLUMNS]; ROWS],
                    _ => {}
                }
            }
            '\x1b' => {}
            '\r' => column = 0,
            '\n' => row += 1,
            letter => {
                if let Some(cell) = cells.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                    *cell = letter;
                }
                column += 1;
            }
        }
    }
    cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_where_the_cursor_is() {
        let screen = screen_of("\x1b[2J\x1b[2;3Hab\x1b[1mc\x1b[2;3Hx\r\nend");
        assert!(screen.starts_with("\n  xbc\nend\n"), "{screen}");
    }
}
