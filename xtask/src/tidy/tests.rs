//! The rules of tidy with samples that break each of them, and samples that must pass.
//!
//! Before: nothing. After: a rule that stops finding its sample fails here, not in review.
//! Never: reads the real tree, except in the test that it is clean.

use std::path::Path;

use super::{Finding, check, sizes};

const HEADER: &str = "//! A sample that obeys the rules.\n";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

fn findings(path: &str, body: &str) -> Vec<Finding> {
    check(top(), path, &format!("{HEADER}{body}"))
}

/// Asserts one finding at `line` whose text holds `what`.
fn assert_found(path: &str, body: &str, line: usize, what: &str) {
    let found = findings(path, body);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].line, line, "{found:?}");
    assert!(found[0].what.contains(what), "{found:?}");
}

/// Goal: a file without a header is found. Method: three first lines without one.
#[test]
fn rejects_missing_header() {
    for text in ["use std::fs;\n", "// A comment that is no header.\n", "", "//! stub\n"] {
        let found = check(top(), "xtask/src/sample.rs", text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert_eq!(found[0].line, 1);
    }
    assert_eq!(findings("xtask/src/sample.rs", ""), []);
}

/// Goal: 400 lines pass and 401 do not; 600 of tests. Method: comments up to the limit.
#[test]
fn rejects_file_over_its_limit() {
    for (path, lines) in [
        ("xtask/src/sample.rs", sizes::FILE_LINES_MAX),
        ("xtask/src/sample/tests.rs", sizes::TEST_LINES_MAX),
        ("tests/tests/it/sample.rs", sizes::TEST_LINES_MAX),
    ] {
        let body = "// line\n".repeat(lines - 1);
        assert_eq!(findings(path, &body), []);
        assert_found(path, &format!("{body}// line\n"), lines + 1, "split it where its ideas part");
    }
}

/// Goal: a lock or an atomic that threads share is found on the query path, and nowhere else. Method: each in a folder
/// of the workers, in a file that is listed, in a test, and in the control thread's folder.
#[test]
fn rejects_locks_where_queries_go() {
    for body in [
        "use std::sync::Mutex;\n",
        "fn f(a: &A) { a.fetch_add(1); }\n",
        "fn f(a: &A) { a.x.compare_exchange(); }\n",
    ] {
        assert_found("dot-userspace/src/session/sample.rs", body, 2, "where queries go");
        for path in ["dot-userspace/src/worker/admission.rs", "dot-userspace/src/control/sample.rs"] {
            assert_eq!(findings(path, body), []);
        }
        assert_eq!(
            findings("dot-userspace/src/cache/sample.rs", &format!("#[cfg(test)]\nmod tests {{ {body} }}\n")),
            []
        );
    }
}

/// Goal: functions, methods and provided trait methods are all measured, brackets in strings are not.
/// Method: bodies of 70 and 71 lines in each of the three.
#[test]
fn rejects_function_over_its_limit() {
    let wrap = [("", ""), ("struct S; impl S {", "}"), ("trait T {", "}")];
    for (before, after) in wrap {
        let function = |lines: usize| {
            format!(
                "{before}\n#[inline]\nfn long() {{\n{}}}\n{after}\n",
                "let _ = \"}\";\n".repeat(lines - 2)
            )
        };
        assert_eq!(findings("xtask/src/sample.rs", &function(sizes::FUNCTION_LINES_MAX)), []);
        let over = function(sizes::FUNCTION_LINES_MAX + 1);
        assert_found("xtask/src/sample.rs", &over, 4, "fn long has 71 lines");
    }
}

/// Goal: a foreign crate outside its folder is found in every form of a path.
/// Method: each form in a folder that does not own the crate, then in the one that does.
#[test]
fn rejects_foreign_crate_outside_its_room() {
    let forms = [
        "use aya::Ebpf;\n",
        "use {std::fs, aya::Ebpf};\n",
        "use aya as kernel;\n",
        "extern crate aya;\n",
        "fn f(_: &::aya::Ebpf) {}\n",
        "fn f() { println!(\"{:?}\", aya::nr_cpus()); }\n",
    ];
    for form in forms {
        assert_found("dot-userspace/src/worker/sample.rs", form, 2, "names crate aya");
        assert_eq!(findings("dot-userspace/src/xdp/sample.rs", form), [], "{form}");
        assert_eq!(findings("tests/src/sample.rs", form), [], "{form}");
    }
}

/// Goal: words that only look like a crate are accepted. Method: a member, a segment, a comment, a string, a local name
/// and a test module.
#[test]
fn accepts_names_that_are_no_foreign_crate() {
    let samples = [
        "use crate::xdp::aya::Thing;\n",
        "fn f(s: S) { s.toml; }\n",
        "// aya::Ebpf loads it\n",
        "const A: &str = \"aya::Ebpf\";\n",
        "fn f(toml: u8) -> u8 { toml }\n",
        "#[cfg(test)]\nmod tests {\n    use aya::Ebpf;\n}\n",
    ];
    for sample in samples {
        assert_eq!(findings("dot-userspace/src/worker/sample.rs", sample), [], "{sample}");
    }
}

/// Goal: unsafe code of every form is found in a file that is not listed; the word in a comment is not.
#[test]
fn rejects_unsafe_in_unlisted_file() {
    for form in ["fn f() { unsafe { g() } }\n", "unsafe fn f() {}\n", "unsafe impl Send for S {}\n"] {
        assert_found("dot-userspace/src/dns/sample.rs", form, 2, "unsafe in a file");
    }
    assert_found("dot-userspace/src/dns/sample.rs", "use libc::c_int;\n", 2, "libc in a file");
    assert_eq!(findings("dot-userspace/src/dns/sample.rs", "// unsafe { libc::close(3) }\n"), []);
    assert_eq!(findings("dot-userspace/src/dns/sample.rs", "#![forbid(unsafe_code)]\n"), []);
}

/// Goal: unfinished code is found. Method: each macro in a function body, also inside another macro.
#[test]
fn rejects_unfinished_code() {
    for name in ["todo", "unimplemented", "dbg"] {
        let body = format!("fn f() {{\n    println!(\"{{}}\", {name}!());\n}}\n");
        assert_found("xtask/src/sample.rs", &body, 3, "is left");
    }
}

/// Goal: places of one machine and paths out of the repository are found, also in documents. Method: both kinds in a
/// README; then valid paths.
#[test]
fn rejects_places_outside_the_project() {
    let private = concat!("see /ho", "me/me/notes for more\n");
    let outward = concat!("see ..", "/elsewhere/notes.md\n");
    let nowhere = concat!("see ..", "/xtask/src/nowhere.rs\n");
    for (path, text) in [("README.md", private), ("README.md", outward), ("tests/README.md", nowhere)] {
        let found = check(top(), path, text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
    }
    let fine = concat!("[x](..", "/Cargo.toml), https://host/ho", "me/x, `cd ..`, and so on...\n");
    assert_eq!(check(top(), "tests/README.md", fine), []);
}

/// Goal: a broken file is a finding with its line, not a crash. Method: an unclosed brace.
#[test]
fn reports_a_file_that_does_not_parse() {
    let found = findings("xtask/src/sample.rs", "fn f() {\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("does not parse"), "{found:?}");
}

/// Goal: an import from the same or a higher layer is found. Method: imports of each form, upward, sideways and
/// downward; in a test; and a module that is in no layer.
#[test]
fn rejects_imports_from_higher_layers() {
    const BACKEND: &str = "dot-userspace/src/backend/sample.rs";
    for body in [
        "use crate::session::Inbox;\n",
        "use crate::{dns::Query, tls::Serving};\n",
        "fn f() -> crate::worker::W { g() }\n",
        "use crate::{config, session};\n",
    ] {
        assert_found(BACKEND, body, 2, "which is no lower layer");
    }
    assert_eq!(findings(BACKEND, "use crate::{config::{Backend, tls}, dns, backend::Sink};\n"), []);
    assert_eq!(findings(BACKEND, "#[cfg(test)]\nmod tests {\n    use crate::session::Inbox;\n}\n"), []);
    assert_eq!(findings("dot-userspace/src/backend/tests.rs", "use crate::session::Inbox;\n"), []);
    assert_found("dot-userspace/src/attic/mod.rs", "fn f() {}\n", 1, "is in no layer");
}

/// Goal: unit tests in other places are found. Method: the two other places.
#[test]
fn rejects_unit_tests_elsewhere() {
    assert_found("dot-userspace/src/dns/edit_tests.rs", "", 1, "go to X/tests.rs");
    let attribute = format!("#[{} = \"x/tests.rs\"]\nmod tests;\n", "path");
    assert_found("dot-userspace/src/dns/x.rs", &attribute, 2, "by itself");
}
