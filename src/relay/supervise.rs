//! A worker's life: it runs until the server stops. Should a bug end it, it begins anew on the same sockets, so that the clients
//! of other workers notice nothing and its own are served as soon as they come back.

use std::{
    cell::OnceCell,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, sync::watch, task::LocalSet};

use super::{
    complaint,
    start::random,
    system,
    worker::{self, Life, Parts, Plan},
};
use crate::turn::{EndReason, Totals};

/// How long a worker waits after its first failure before it begins anew; doubled with each.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest that it waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A life as long as this makes up for the failures before it.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// Runs a worker until `stop` says so; returns what it has counted. Tells `started` as soon as it serves.
///
/// # Errors
/// It could not begin at all. What happens later is logged.
pub(super) fn run(plan: &Plan, started: &SyncSender<()>, mut stop: watch::Receiver<bool>) -> io::Result<Totals> {
    if let Some(processor) = plan.processor
        && let Err(error) = system::pin_thread(processor)
    {
        tracing::warn!(worker = plan.index, processor, %error, "cannot pin this worker; it runs anywhere");
    }
    let desk = &plan.shared.desks[plan.index];
    let mut pause = SHORTEST_PAUSE;
    for life in 0.. {
        let began = Instant::now();
        let end = live(plan, life, started, &stop);
        let worker = plan.index;
        if began.elapsed() >= LONG_LIFE {
            pause = SHORTEST_PAUSE;
        }
        match end {
            Ok(Life { totals, stopped }) => {
                desk.add(&totals);
                if stopped {
                    break;
                }
                desk.count_failure();
                let why = complaint::newest_panic();
                tracing::error!(
                    worker,
                    ?pause,
                    why,
                    "a bug: a worker has panicked; its sessions are lost, all others go on"
                );
            }
            Err(error) if life == 0 => return Err(error),
            Err(error) => tracing::error!(worker, ?pause, %error, "a worker cannot begin anew; it tries again"),
        }
        if is_stopped_within(pause, &mut stop) {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        tracing::info!(worker, "a worker begins anew");
    }
    Ok(desk.before())
}

/// One life, on a runtime of its own: a panic may have come from inside the runtime, which is of no use then.
fn live(plan: &Plan, life: u64, started: &SyncSender<()>, stop: &watch::Receiver<bool>) -> io::Result<Life> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (tasks, kept) = (LocalSet::new(), OnceCell::new());
    let end = catch_unwind(AssertUnwindSafe(|| {
        let work = worker::work(parts(plan, life)?, started, stop.clone(), &kept);
        tasks.block_on(&runtime, work)
    }));
    let end = end.unwrap_or_else(|_| {
        let core = kept.get().ok_or_else(|| io::Error::other("a worker panicked before it served anybody"))?;
        let _context = runtime.enter();
        Ok(Life { totals: worker::end(core, EndReason::Lost), stopped: false })
    });
    // What a fault has left behind may be broken in any way; nothing of it is used again.
    let _ = catch_unwind(AssertUnwindSafe(|| drop((kept, tasks, runtime))));
    end
}

/// Waits for so long, or until the worker is to stop; whether it is.
fn is_stopped_within(pause: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    // Such a runtime takes no descriptors, of which there may be none.
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() else {
        thread::sleep(pause);
        return *stop.borrow();
    };
    // An error means that the main thread is gone, which is a reason to stop, too.
    runtime.block_on(async { tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() })
}

/// What a life of a worker begins with.
fn parts(plan: &Plan, life: u64) -> io::Result<Parts> {
    // Lives of workers number their sessions in ranges of their own.
    let first_id = ((plan.index as u64) << 48) + (life << 32) + 1;
    Ok(Parts { plan: plan.clone(), seed: random()?, first_id })
}

#[cfg(test)]
mod tests;
