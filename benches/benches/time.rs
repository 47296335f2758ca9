//! Nanoseconds of each step of a query, as `cargo xtask bench micro` shows them beside their instructions.
//!
//! Before: nothing. After: divan's table on stdout. Never: holds the measured code; see `cases`.

mod cases;

use divan::Bencher;

/// The rules of a large list.
const RULES: u32 = 1_000_000;
/// The names that are looked for in turn.
const NAMES: u32 = 500_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn frame_parse(bencher: Bencher<'_, '_>) {
    let frame = cases::frame();
    bencher.bench_local(|| cases::parse_frame(&frame));
}

#[divan::bench]
fn rate_100(bencher: Bencher<'_, '_>) {
    let rate = cases::limit();
    bencher.bench_local(|| cases::admit(rate));
}

#[divan::bench]
fn stage_100(bencher: Bencher<'_, '_>) {
    let counters = dot_userspace::ledger::WorkerCounters::default();
    bencher.bench_local(|| cases::record(&counters));
}

#[divan::bench]
fn framing_100(bencher: Bencher<'_, '_>) {
    let stream = cases::framed(100);
    bencher.bench_local(|| cases::cut(&stream));
}

#[divan::bench]
fn records(bencher: Bencher<'_, '_>) {
    let inputs = bencher.with_inputs(|| cases::to_exchange(false));
    inputs.bench_local_values(|mut prepared| (cases::exchange(&mut prepared), prepared));
}

#[divan::bench]
fn records_after_rest(bencher: Bencher<'_, '_>) {
    let inputs = bencher.with_inputs(|| cases::to_exchange(true));
    inputs.bench_local_values(|mut prepared| (cases::exchange(&mut prepared), prepared));
}

#[divan::bench]
fn query_parse(bencher: Bencher<'_, '_>) {
    let message = cases::query();
    bencher.bench_local(|| cases::parse(&message));
}

#[divan::bench]
fn triage(bencher: Bencher<'_, '_>) {
    let message = cases::query();
    bencher.bench_local(|| cases::triage(&message));
}

#[divan::bench]
fn cache_hit(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_hit();
    bencher.bench_local(|| cases::cache_hit(&mut prepared));
}

#[divan::bench]
fn forward(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_forward();
    bencher.bench_local(|| cases::forward(&mut prepared));
}

#[divan::bench]
fn respond(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_respond();
    bencher.bench_local(|| cases::respond(&mut prepared));
}

#[divan::bench]
fn access_1000(bencher: Bencher<'_, '_>) {
    let prepared = cases::to_admit();
    bencher.bench_local(|| cases::admit_client(&prepared));
}

#[divan::bench]
fn policy_miss(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_find(RULES, NAMES, false);
    bencher.bench_local(|| cases::find_rule(&mut prepared));
}

#[divan::bench]
fn policy_hit(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_find(RULES, NAMES, true);
    bencher.bench_local(|| cases::find_rule(&mut prepared));
}

#[divan::bench]
fn misuse_query(bencher: Bencher<'_, '_>) {
    let mut prepared = cases::to_watch();
    bencher.bench_local(|| cases::watch(&mut prepared));
}

#[divan::bench]
fn tenant_of_32(bencher: Bencher<'_, '_>) {
    let prepared = cases::to_choose();
    bencher.bench_local(|| cases::choose_tenant(&prepared));
}
