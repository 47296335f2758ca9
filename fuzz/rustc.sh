#!/bin/sh
# The compiler of `cargo xtask fuzz` (RUSTC_WORKSPACE_WRAPPER): cargo calls it for the crates of this workspace
# alone, so that what they depend on is neither instrumented nor built twice. The flags are stable ones:
# optimise, count edges in eight bits each, note their places, show comparisons to the engine.
rustc=$1
shift
case " $* " in
*" build_script_"*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" -Copt-level=2 -Ccodegen-units=8 --cfg=fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
