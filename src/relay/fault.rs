//! Panics are bugs of this server. They are stopped where they cost least.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use super::complaint;

/// Runs a step of a worker; a panic in it costs that step, not the worker. `None` after a panic.
pub(super) fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(step)).ok();
    if done.is_none() {
        complaint::about_fault();
    }
    done
}

/// Waits for `future`; `None` if it panics, which ends it.
pub(super) async fn outlive<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
