//! Nanoseconds of each step of a query, as `cargo xtask bench micro` shows them beside their instructions.
//!
//! Before: nothing. After: divan's table on stdout. Never: holds the measured code; see `cases`.

mod cases;

use divan::Bencher;

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
