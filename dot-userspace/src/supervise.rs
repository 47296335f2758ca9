//! Tasks that a worker needs: one that panics starts again.
//!
//! Before: a module would spawn a task that serves many. After: a panic in it ends one of its turns, and not the worker's part.
//! A session's or a connection's own task needs none of this: it ends alone, and gives back what it held.
//! Never: hides a panic (each is an error in the log), or spins where one follows another.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;

/// Rest after a panic: what caused it may be there again at once.
const REST: Duration = Duration::from_millis(10);

/// Runs what `make` makes to its end; where it panics, what `make` makes then. What a task holds beyond a turn must
/// therefore lie outside of it.
///
/// # Cancel safety
/// That of the task.
pub async fn supervise<F: Future>(what: &'static str, mut make: impl FnMut() -> F) -> F::Output {
    loop {
        let mut task = Box::pin(make());
        if let Some(output) = poll_fn(|context| poll(task.as_mut(), context)).await {
            return output;
        }
        tracing::error!(what, "a part of a worker has panicked, and begins anew");
        sleep(REST).await;
    }
}

/// `None`: it has panicked, and is of no more use.
fn poll<F: Future>(task: Pin<&mut F>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
    match catch_unwind(AssertUnwindSafe(|| task.poll(context))) {
        Ok(turn) => turn.map(Some),
        Err(_) => Poll::Ready(None),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Goal: a task that panics, at once or after it has waited, starts again with the state outside of it, until it ends by
    /// itself. Method: a task whose first two runs panic.
    #[test]
    fn what_panics_begins_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let runs = Cell::new(0);
        let output = runtime.block_on(supervise("a test", || async {
            runs.set(runs.get() + 1);
            assert_ne!(runs.get(), 1, "a panic that the test makes");
            tokio::task::yield_now().await;
            assert_ne!(runs.get(), 2, "another one");
            "done"
        }));
        assert_eq!((output, runs.get()), ("done", 3));
    }
}
