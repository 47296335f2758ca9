//! Rule: a file has at most 400 lines (600 for tests), a function at most 70.
//!
//! Before: a file's text and tree. After: findings with the measured number. Never: counts closures separately.

use syn::{
    spanned::Spanned,
    visit::{self, Visit},
};

use super::{Finding, source::Source};

/// Lines of a file, header and tests included.
pub(super) const FILE_LINES_MAX: usize = 400;
/// The same for a file that holds only tests.
pub(super) const TEST_LINES_MAX: usize = 600;
/// Lines of a function from `fn` to its closing brace, attributes and documentation not counted.
pub(super) const FUNCTION_LINES_MAX: usize = 70;

/// Checks a file's length.
pub(super) fn check_file(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let lines_max = if is_test { TEST_LINES_MAX } else { FILE_LINES_MAX };
    (lines > lines_max).then(|| {
        let what = format!("file of {lines} lines, limit {lines_max}; split it where its ideas part");
        Finding::new(path, lines_max + 1, what)
    })
}

/// Checks the length of every function, method and provided trait method.
pub(super) fn check_functions(source: &Source<'_>) -> Vec<Finding> {
    let mut functions = Functions { path: source.path, findings: Vec::new() };
    functions.visit_file(&source.tree);
    functions.findings
}

struct Functions<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let lines = block.span().end().line - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!(
                "fn {} has {lines} lines, limit {FUNCTION_LINES_MAX}; let the parent decide and leaves compute",
                signature.ident
            );
            self.findings.push(Finding::new(self.path, first, what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
