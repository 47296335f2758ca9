//! Supervises tasks that a worker needs: a task that panics is started again.
//!
//! Before: a module spawns a task that serves many clients. After: a panic in it ends one of its turns, and not the
//! task. The task of a single session or connection needs no supervision: it ends alone, and frees what it held.
//! Never: hides a panic (each is an error in the log), or restarts without a pause.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;

/// The pause after a panic, whose cause may still be there.
const REST: Duration = Duration::from_millis(10);

/// Runs the task that `make` returns to its end; after a panic it runs a new one. So state that must outlive a turn
/// must be outside of the task.
///
/// # Cancel safety
/// That of the task.
pub async fn supervise<F: Future>(what: &'static str, mut make: impl FnMut() -> F) -> F::Output {
    loop {
        let mut task = Box::pin(make());
        if let Some(output) = poll_fn(|context| poll(task.as_mut(), context)).await {
            return output;
        }
        tracing::error!(what, "a task of a worker has panicked, and is started again");
        sleep(REST).await;
    }
}

/// `None`: the task has panicked, and cannot be used any more.
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

    /// Goal: a task that panics, at once or after it has waited, is started again with the state outside of it, until
    /// it ends normally. Method: a task whose first two runs panic.
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
