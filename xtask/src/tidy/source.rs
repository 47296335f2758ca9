//! A Rust file in the two forms that the rules need: its syntax tree and its list of tokens.
//!
//! Before: the file's text. After: `sizes` walks the tree, `foreign_crates` and `unsafety` walk the tokens.
//! Holds: which lines are test code (`#[cfg(test)]`), to which some rules do not apply.
//! Never: judges.

use std::ops::RangeInclusive;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    spanned::Spanned,
    visit::{self, Visit},
};

/// A parsed file.
pub(super) struct Source<'a> {
    /// Relative to the top of the repository.
    pub(super) path: &'a str,
    /// The tree.
    pub(super) tree: syn::File,
    /// Every token in order, also those inside macro calls; comments and strings hold none.
    pub(super) tokens: Vec<Token>,
    test_lines: Vec<RangeInclusive<usize>>,
}

/// One token.
pub(super) struct Token {
    /// Its text; literals are all `""`, brackets are themselves.
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// A file that is not valid Rust.
pub(super) struct ParseError {
    pub(super) line: usize,
    pub(super) what: String,
}

impl<'a> Source<'a> {
    /// Parses `text`.
    ///
    /// # Errors
    /// The text is not valid Rust; the error has the line.
    pub(super) fn parse(path: &'a str, text: &str) -> Result<Self, ParseError> {
        let broken = |error: syn::Error| ParseError {
            line: error.span().start().line,
            what: format!("does not parse: {error}; mend the syntax first"),
        };
        let tree = syn::parse_file(text).map_err(broken)?;
        let stream: TokenStream = syn::parse_str(text).map_err(broken)?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut tests = TestLines { lines: Vec::new() };
        tests.visit_file(&tree);
        Ok(Self { path, tree, tokens, test_lines: tests.lines })
    }

    /// Whether this line is inside an item under `#[cfg(test)]`.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// The text of the token at `index`, "" beyond either end.
    pub(super) fn text(&self, index: Option<usize>) -> &str {
        index.and_then(|index| self.tokens.get(index)).map_or("", |token| token.text.as_str())
    }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                tokens.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: group.span_close().end().line });
            }
            TokenTree::Ident(ident) => {
                tokens.push(Token { text: ident.to_string().trim_start_matches("r#").to_owned(), line });
            }
            TokenTree::Punct(punct) => tokens.push(Token { text: punct.as_char().to_string(), line }),
            TokenTree::Literal(_) => tokens.push(Token { text: "\"\"".to_owned(), line }),
        }
    }
}

struct TestLines {
    lines: Vec<RangeInclusive<usize>>,
}

impl<'ast> Visit<'ast> for TestLines {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.attrs.iter().any(is_cfg_test) {
            self.lines.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.attrs.iter().any(is_cfg_test) {
            self.lines.push(item.span().start().line..=item.span().end().line);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.attrs.iter().any(is_cfg_test) {
            self.lines.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item_fn(self, item);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
}
