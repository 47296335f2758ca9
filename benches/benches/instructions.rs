//! Instructions of each step of a query, counted by valgrind: the same on a busy machine as on a calm one.
//!
//! Before: `cargo xtask bench micro` has valgrind and the runner. After: a summary for each case, which `micro` reads.
//! Never: holds the measured code; see `cases`.

// The macros make functions without documentation, and call exit, which skips no destructor of ours.
#![allow(missing_docs, clippy::disallowed_methods)]

mod cases;

use cases::{Admitting, Cached, Exchange, Forwarding, Framed, Grouped, Responding, Ruled, Watched};
use dot_common::rate::Rate;
use gungraun::prelude::*;

#[library_benchmark]
#[bench::case(cases::frame())]
fn frame_parse(frame: Framed) -> (bool, Framed) {
    // The input is returned, so that its destructor is not counted.
    (cases::parse_frame(&frame), frame)
}

#[library_benchmark]
#[bench::case(cases::limit())]
fn rate_100(rate: Rate) -> u64 {
    cases::admit(rate)
}

#[library_benchmark]
#[bench::case(dot_userspace::ledger::WorkerCounters::default())]
fn stage_100(
    counters: dot_userspace::ledger::WorkerCounters,
) -> (u64, dot_userspace::ledger::WorkerCounters) {
    (cases::record(&counters), counters)
}

#[library_benchmark]
#[bench::case(cases::framed(100))]
fn framing_100(stream: Vec<u8>) -> (usize, Vec<u8>) {
    (cases::cut(&stream), stream)
}

#[library_benchmark]
#[bench::case(cases::to_exchange(false))]
fn records(mut prepared: Exchange) -> (usize, Exchange) {
    (cases::exchange(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_exchange(true))]
fn records_after_rest(mut prepared: Exchange) -> (usize, Exchange) {
    (cases::exchange(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::query())]
fn query_parse(message: Vec<u8>) -> (bool, Vec<u8>) {
    (cases::parse(&message), message)
}

#[library_benchmark]
#[bench::case(cases::query())]
fn triage(message: Vec<u8>) -> (bool, Vec<u8>) {
    (cases::triage(&message), message)
}

#[library_benchmark]
#[bench::case(cases::to_hit())]
fn cache_hit(mut prepared: Cached) -> (usize, Cached) {
    (cases::cache_hit(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_forward())]
fn forward(mut prepared: Forwarding) -> (usize, Forwarding) {
    (cases::forward(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_respond())]
fn respond(mut prepared: Responding) -> (usize, Responding) {
    (cases::respond(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_admit())]
fn access_1000(prepared: Admitting) -> (bool, Admitting) {
    (cases::admit_client(&prepared), prepared)
}

/// Rules under valgrind: the instructions of a look-up do not grow with the rules, and a million take minutes to make there.
const RULES: u32 = 50_000;

#[library_benchmark]
#[bench::case(cases::to_find(RULES, 1000, false))]
fn policy_miss(mut prepared: Ruled) -> (bool, Ruled) {
    (cases::find_rule(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_find(RULES, 1000, true))]
fn policy_hit(mut prepared: Ruled) -> (bool, Ruled) {
    (cases::find_rule(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_watch())]
fn misuse_query(mut prepared: Watched) -> (bool, Watched) {
    (cases::watch(&mut prepared), prepared)
}

#[library_benchmark]
#[bench::case(cases::to_choose())]
fn tenant_of_32(prepared: Grouped) -> (bool, Grouped) {
    (cases::choose_tenant(&prepared), prepared)
}

library_benchmark_group!(
    name = steps,
    benchmarks = [
        frame_parse,
        rate_100,
        stage_100,
        framing_100,
        records,
        records_after_rest,
        query_parse,
        triage,
        cache_hit,
        forward,
        respond,
        access_1000,
        policy_miss,
        policy_hit,
        misuse_query,
        tenant_of_32
    ]
);

main!(library_benchmark_groups = steps);
