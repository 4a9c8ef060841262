//! Any target: the one that the environment names. Building this one is quicker than building them all.

#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

static NAME: LazyLock<String> =
    LazyLock::new(|| env::var("TURNSERVER_FUZZ_TARGET").expect("TURNSERVER_FUZZ_TARGET to be the name of a target"));

fuzz_target!(|bytes: &[u8]| turnserver_fuzz::run(&NAME, bytes));
