//! A fuzz target for each exercise of `tests/fuzz`.

#[allow(missing_docs, unreachable_pub, reason = "shared with `cargo test`")]
#[path = "../../tests/fuzz/exercises/mod.rs"]
mod exercises;

/// Runs the exercise of this name on these bytes.
///
/// # Panics
/// If something does not hold, which is what fuzzing is for; or if there is no such exercise.
pub fn run(name: &str, bytes: &[u8]) {
    let exercise = exercises::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, exercise)) = exercise else { panic!("there is no exercise {name:?}") };
    exercise(bytes);
}

/// The target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run($name, bytes));
    };
}
