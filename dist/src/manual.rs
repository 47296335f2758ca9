//! Manual pages: those of the verbs by dotd itself, dotd.toml(5) from docs/config.md.
//!
//! Before: the program, and a page in Markdown. After: troff with the macros of man(7).
//! Holds: the forms of Markdown that the project's pages use: headings, blocks of code, tables, lists, links, code
//! within a line.
//! Never: needs a formatter to be installed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// The pages of dotd and its verbs, by file name.
///
/// # Errors
/// The program cannot write them.
pub(crate) fn pages(bin: &Path) -> Result<Vec<(String, String)>> {
    let folder = std::env::temp_dir().join(format!("dot-dist-man-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let status = Command::new(bin).args(["man", "--to"]).arg(&folder).status();
    let status = status.with_context(|| format!("cannot start {}", bin.display()))?;
    let read = || -> Result<Vec<(String, String)>> {
        let mut pages = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            pages.push((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?));
        }
        pages.sort();
        Ok(pages)
    };
    let pages = read();
    let _ = fs::remove_dir_all(&folder);
    if !status.success() {
        bail!("{} man --to ended with {status}", bin.display());
    }
    pages
}

/// dotd.toml(5).
#[must_use]
pub fn page(markdown: &str, version: &str) -> String {
    let mut page = format!(
        ".TH DOTD.TOML 5 \"\" \"dotd {version}\" \"\"\n.SH NAME\ndotd.toml \\- config file of dotd\n.SH DESCRIPTION\n"
    );
    let mut is_code = false;
    let mut paragraph = String::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            flush(&mut paragraph, &mut page);
            page += if is_code { ".RE\n.fi\n" } else { ".PP\n.nf\n.RS 2\n" };
            is_code = !is_code;
        } else if is_code {
            page += &code(line);
            page.push('\n');
        } else if !block(line, &mut paragraph, &mut page) {
            let separator = if paragraph.is_empty() { "" } else { " " };
            paragraph = format!("{paragraph}{separator}{}", line.trim());
        }
    }
    flush(&mut paragraph, &mut page);
    page + ".SH SEE ALSO\n.BR dotd (1),\n.BR dotd\\-check (1)\n"
}

/// Handles a line that begins or ends a block. False: the line continues the paragraph.
fn block(line: &str, paragraph: &mut String, page: &mut String) -> bool {
    let mut begin = |page: &mut String| flush(paragraph, page);
    if line.trim().is_empty() {
        begin(page);
    } else if let Some(heading) = line.strip_prefix("# ") {
        begin(page);
        // The title is in .TH.
        let _ = heading;
    } else if let Some(heading) = line.strip_prefix("## ") {
        begin(page);
        *page += &format!(
            ".SH {}\n",
            inline(heading).to_uppercase().replace("\\FB", "\\fB").replace("\\FR", "\\fR")
        );
    } else if let Some(heading) = line.strip_prefix("### ") {
        begin(page);
        *page += &format!(".SS {}\n", inline(heading));
    } else if line.starts_with('|') {
        begin(page);
        row(line, page);
    } else if let Some(item) = line.strip_prefix("- ") {
        begin(page);
        *page += ".IP \\(bu 2\n";
        *paragraph = format!("\u{1}{item}");
    } else {
        return false;
    }
    true
}

/// Writes the collected paragraph, if there is one; a paragraph of a list has its macro already.
fn flush(paragraph: &mut String, page: &mut String) {
    let text = std::mem::take(paragraph);
    if let Some(item) = text.strip_prefix('\u{1}') {
        *page += &format!("{}\n", inline(item));
    } else if !text.is_empty() {
        *page += &format!(".PP\n{}\n", inline(&text));
    }
}

/// A row of a table: the first cell is the tag, the others follow it.
fn row(line: &str, page: &mut String) {
    let line = line.trim_matches('|').replace("\\|", "\u{2}");
    let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('\u{2}', "|")).collect();
    if cells.iter().all(|cell| cell.chars().all(|sign| matches!(sign, '-' | ':'))) {
        return;
    }
    let (first, others) =
        cells.split_first().map_or(("", &[][..]), |(first, others)| (first.as_str(), others));
    let others: Vec<String> =
        others.iter().filter(|cell| !cell.is_empty()).map(|cell| inline(cell)).collect();
    *page += &format!(".TP\n{}\n{}\n", inline(first), others.join("; "));
}

/// A line of code, as it is.
fn code(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Text within a line: code becomes bold, a link becomes its text.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out += &format!("\\fB{}\\fR", code(part).trim_start_matches("\\&"));
        } else {
            out += code(&links(&part.replace("**", ""))).trim_start_matches("\\&");
        }
    }
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// `[words](target)` as its words.
fn links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (lead, words) = before.rsplit_once('[').unwrap_or(("", before));
        out += lead;
        out += words;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each form of Markdown has its macro, and no text at the beginning of a line is taken for a macro. Method:
    /// one of each.
    #[test]
    fn each_form_has_its_macro() {
        let markdown = "# dotd.toml\n\nRead from `/etc/x-y`, see\n[config](a.md).\n\n## Lists `a`\n\n- one\n  more\n- two\n\n\
            | key | means |\n|---|---|\n| `a` | b \\| c |\n\n```toml\n.a = \"\\\\\"\n```\n.end\n";
        let page = page(markdown, "1.2.3");
        for part in [
            ".PP\nRead from \\fB/etc/x\\-y\\fR, see config.\n",
            ".SH LISTS \\fBA\\fR\n",
            ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n",
            ".TP\n\\fBa\\fR\nb | c\n",
            ".nf\n.RS 2\n\\&.a = \"\\e\\e\"\n.RE\n.fi\n",
            ".PP\n\\&.end\n",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
    }
}
