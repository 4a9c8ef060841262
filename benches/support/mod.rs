//! Heap allocations per operation, beside Criterion's time per operation.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Write as _,
    hint::black_box,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{Bencher, Criterion};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn note(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// By benchmark: heap allocations and bytes of so many operations.
static COUNTED: Mutex<Vec<(String, u64, u64)>> = Mutex::new(Vec::new());
/// Operations that are counted, after as many that are not.
const OPERATIONS: u64 = 2000;
/// Operations that are prepared, then timed together.
const CHUNK: u64 = 100;

fn counted() -> [u64; 2] {
    [&CALLS, &BYTES].map(|counter| counter.load(Ordering::Relaxed))
}

/// Counts what `run` allocates, unless this benchmark was counted before; `run` takes a number of operations.
fn count(name: &str, mut run: impl FnMut(u64) -> [u64; 2]) {
    let is_new = |all: &[(String, u64, u64)]| all.iter().all(|(of, _, _)| of != name);
    if !is_new(&COUNTED.lock().unwrap_or_else(PoisonError::into_inner)) {
        return;
    }
    run(OPERATIONS);
    let [calls, bytes] = run(OPERATIONS);
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), calls, bytes));
}

/// Times an operation, and counts what it allocates.
pub(crate) fn bench<T>(criterion: &mut Criterion, name: &str, mut operation: impl FnMut() -> T) {
    criterion.bench_function(name, |bencher: &mut Bencher<'_>| {
        count(name, |operations| {
            let before = counted();
            (0..operations).for_each(|_| drop(black_box(operation())));
            let after = counted();
            [0, 1].map(|at| after[at] - before[at])
        });
        bencher.iter(&mut operation);
    });
}

/// The same for an operation for which something has to be `prepared`, which is neither timed nor counted.
#[allow(dead_code, reason = "not every benchmark has one")]
pub(crate) fn bench_prepared<S>(
    criterion: &mut Criterion,
    name: &str,
    state: &mut S,
    mut prepare: impl FnMut(&mut S),
    mut operation: impl FnMut(&mut S),
) {
    criterion.bench_function(name, |bencher: &mut Bencher<'_>| {
        count(name, |operations| {
            let mut sum = [0; 2];
            for _ in 0..operations / CHUNK {
                (0..CHUNK).for_each(|_| prepare(state));
                let before = counted();
                (0..CHUNK).for_each(|_| operation(state));
                let after = counted();
                [0, 1].into_iter().for_each(|at| sum[at] += after[at] - before[at]);
            }
            sum
        });
        bencher.iter_custom(|iterations| {
            let mut time = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let chunk = left.min(CHUNK);
                (0..chunk).for_each(|_| prepare(state));
                let start = Instant::now();
                (0..chunk).for_each(|_| operation(state));
                time += start.elapsed();
                left -= chunk;
            }
            time
        });
    });
}

/// Runs the benchmarks, and prints what was counted.
pub(crate) fn run(benches: fn()) {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let all = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.is_empty() {
        return;
    }
    let mut table = format!("{:<56} {:>16} {:>12}\n", "", "allocations/op", "bytes/op");
    for (name, calls, bytes) in all.iter() {
        let each = |sum: &u64| *sum as f64 / OPERATIONS as f64;
        let _ = writeln!(table, "{name:<56} {:>16.3} {:>12.1}", each(calls), each(bytes));
    }
    eprint!("\nheap allocations, over {OPERATIONS} operations:\n{table}");
}
