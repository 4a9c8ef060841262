//! Every exercise of the fuzz targets on every input of their corpora, on what these become when they are damaged, and on any bytes: what
//! fuzzing has found stays found, without a fuzzer.

mod exercises;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

/// The inputs of an exercise, in order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn nothing_in_the_corpora_breaks_anything() {
    for (name, exercise) in exercises::ALL {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        inputs.iter().for_each(|input| exercise(input));
    }
}

/// Cut off, and with a byte that is another: what is nearly right goes further than any bytes.
#[test]
fn nothing_that_is_damaged_breaks_anything() {
    // Each of its inputs takes a thousand times as long as one of the others.
    for (name, exercise) in exercises::ALL.iter().filter(|(name, _)| *name != "management") {
        for input in corpus(name) {
            let step = input.len() / 16 + 1;
            for at in (0..input.len()).step_by(step) {
                exercise(&input[..at]);
                for change in [1, 0x80, input[at].wrapping_add(1) ^ input[at]] {
                    let mut damaged = input.clone();
                    damaged[at] ^= change;
                    exercise(&damaged);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8 * ProptestConfig::default().cases, failure_persistence: None, ..ProptestConfig::default() })]

    /// After a rule or two, and two clients that have allocated, got a permission and bound a channel: from nothing, random bytes hardly
    /// ever come that far.
    #[test]
    fn no_bytes_break_the_engine(rules in any::<[u8; 3]>(), bytes in vec(any::<u8>(), 0..600)) {
        const FIRST_STEPS: u8 = 23;
        let (_, engine) = exercises::ALL.iter().find(|(name, _)| *name == "engine").unwrap();
        let begun = [FIRST_STEPS, 0, 0, 2, FIRST_STEPS, 1, 1, 0];
        engine(&[&rules[..], &begun, &bytes].concat());
    }
}
