//! The words of a master file: one record at a time, over as many lines as its parentheses enclose.
//!
//! Before: an open file. After: `rpz` has the words of a record, and its first line.
//! Holds: one record's text.
//! Never: reads a line longer than [`LINE_OCTETS_MAX`], or a record longer than [`RECORD_OCTETS_MAX`].
//!
//! Source: RFC 1035 §5.1.

use std::{
    io::{self, BufRead, Read as _},
    ops::Range,
};

/// 64 KiB: longer than any record that fits into a message, written in decimal numbers.
pub(super) const LINE_OCTETS_MAX: u64 = 64 * 1024;
/// The same for a record over several lines.
const RECORD_OCTETS_MAX: usize = 256 * 1024;
/// Some editors write it at the beginning of a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Most characters of a word in a message: names are shorter, and a log line stays one line.
const SHOWN_MAX: usize = 300;

/// Reads lines, and counts them.
pub(super) struct Lines<R> {
    input: R,
    /// The number of the last line.
    pub(super) number: u32,
    octets_left: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `input`, up to this many octets.
    pub(super) fn new(input: R, octets_max: u64) -> Self {
        Self { input, number: 0, octets_left: octets_max }
    }

    /// Appends the next line to `text`, without its end. `false`: there is none.
    ///
    /// # Errors
    /// As for any file; a line or a file that is too long.
    pub(super) fn next(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let start = text.len();
        let read = self.input.by_ref().take(LINE_OCTETS_MAX + 1).read_until(b'\n', text)? as u64;
        if read == 0 {
            return Ok(false);
        }
        self.number = self.number.saturating_add(1);
        if read > LINE_OCTETS_MAX {
            return Err(io::Error::other(format!("a line of more than {LINE_OCTETS_MAX} octets")));
        }
        self.octets_left =
            self.octets_left.checked_sub(read).ok_or_else(|| io::Error::other("the file is too long"))?;
        if self.number == 1 && text.get(start..).is_some_and(|line| line.starts_with(BYTE_ORDER_MARK)) {
            text.drain(start..start + BYTE_ORDER_MARK.len());
        }
        while text.len() > start && matches!(text.last(), Some(b'\n' | b'\r')) {
            text.pop();
        }
        Ok(true)
    }
}

/// One record's words.
#[derive(Default)]
pub(super) struct Words {
    text: Vec<u8>,
    words: Vec<(Range<usize>, bool)>,
    /// Whether the line begins with a blank: its owner is that of the previous record.
    pub(super) has_no_owner: bool,
    /// Its first line.
    pub(super) line: u32,
}

impl Words {
    /// Reads the next record with a word. `false`: there is none.
    ///
    /// # Errors
    /// The mistake, to be reported with [`Words::line`].
    pub(super) fn read<R: BufRead>(&mut self, lines: &mut Lines<R>) -> Result<bool, String> {
        loop {
            self.text.clear();
            self.words.clear();
            let mut depth = 0_u32;
            let mut is_first = true;
            while is_first || depth > 0 {
                let start = self.text.len();
                if start > RECORD_OCTETS_MAX {
                    return Err(format!("a record of more than {RECORD_OCTETS_MAX} octets"));
                }
                let has_line = lines.next(&mut self.text).map_err(|error| {
                    self.line = lines.number;
                    error.to_string()
                })?;
                if is_first {
                    self.line = lines.number;
                    self.has_no_owner = matches!(self.text.first(), Some(b' ' | b'\t'));
                }
                if !has_line {
                    return if is_first { Ok(false) } else { Err("a parenthesis is not closed".to_owned()) };
                }
                depth = self.cut(start, depth)?;
                is_first = false;
            }
            if !self.words.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Finds the words of the line that begins at `at`, within this many parentheses; returns how many are open after
    /// it.
    fn cut(&mut self, mut at: usize, mut depth: u32) -> Result<u32, String> {
        while let Some(octet) = self.text.get(at).copied() {
            match octet {
                b' ' | b'\t' => at += 1,
                b';' => break,
                b'(' => (depth, at) = (depth + 1, at + 1),
                b')' => {
                    depth = depth.checked_sub(1).ok_or("a parenthesis is closed that was not opened")?;
                    at += 1;
                }
                b'"' => {
                    let end = self.end_of_quote(at + 1).ok_or("a quotation mark is not closed")?;
                    self.words.push((at + 1..end, true));
                    at = end + 1;
                }
                _ => {
                    let end = self.end_of_word(at);
                    self.words.push((at..end, false));
                    at = end;
                }
            }
        }
        Ok(depth)
    }

    fn end_of_word(&self, mut at: usize) -> usize {
        while let Some(octet) = self.text.get(at) {
            match octet {
                b' ' | b'\t' | b';' | b'(' | b')' | b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        at.min(self.text.len())
    }

    fn end_of_quote(&self, mut at: usize) -> Option<usize> {
        loop {
            match self.text.get(at)? {
                b'"' => return Some(at),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    /// The word at this place, quoted or not.
    pub(super) fn get(&self, place: usize) -> Option<&[u8]> {
        self.words.get(place).and_then(|(range, _)| self.text.get(range.clone()))
    }

    /// The word at this place as text, for a message.
    pub(super) fn text(&self, place: usize) -> String {
        shown(self.get(place).unwrap_or_default())
    }

    /// The number of words.
    pub(super) fn count(&self) -> usize {
        self.words.len()
    }

    /// The words from this one on, as they were written.
    pub(super) fn rest(&self, place: usize) -> String {
        let words = (place..self.count()).map(|place| {
            let word = String::from_utf8_lossy(self.get(place).unwrap_or_default());
            if self.words.get(place).is_some_and(|(_, is_quoted)| *is_quoted) {
                format!("\"{word}\"")
            } else {
                word.into_owned()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Text of a file for a message: without escape sequences, and with the end of a long text omitted.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Result<Vec<(u32, bool, String)>, String> {
        let (mut lines, mut words, mut found) =
            (Lines::new(text.as_bytes(), 1 << 20), Words::default(), vec![]);
        while words.read(&mut lines).map_err(|error| format!("{}: {error}", words.line))? {
            found.push((words.line, words.has_no_owner, words.rest(0)));
        }
        Ok(found)
    }

    /// Goal: records are divided as RFC 1035 §5.1 says: comments, quotes, parentheses over lines, blanks in front.
    /// Covers: C-441
    #[test]
    fn records_are_cut_as_they_are_written() {
        let text = "; nothing\n\na SOA x (\n 1 ; serial\n 2 )\n\tTXT \"a ; b\" c\\;d\r\nlast A 1";
        let found = records(text).unwrap();
        let expected = [
            (3, false, "a SOA x 1 2".to_owned()),
            (6, true, "TXT \"a ; b\" c\\;d".to_owned()),
            (7, false, "last A 1".to_owned()),
        ];
        assert_eq!(found, expected);
        for (text, at) in [("a\nb ( c\n", "2: "), ("a )", "1: "), ("\n\n\"a", "3: ")] {
            assert!(records(text).unwrap_err().starts_with(at), "{text}");
        }
        assert!(records(&"a".repeat(70_000)).unwrap_err().contains("65536"));
    }
}
