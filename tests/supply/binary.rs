//! What the linker has made of the program: nothing in it is at a known place, both written to and run, or changed after the start.

use std::process::Command;

#[test]
fn the_binary_is_position_independent_and_none_of_it_is_writable_and_executable() {
    let output = Command::new("readelf")
        .args(["--wide", "--file-header", "--segments", "--dynamic", "--version-info"])
        .arg(env!("CARGO_BIN_EXE_turnserver"))
        .env("LC_ALL", "C")
        .output()
        .expect("readelf");
    assert!(output.status.success(), "{output:?}");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = |words: &[&str]| -> Vec<String> {
        all.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    };
    assert!(lines(&["Flags", "NOW", "PIE"]).len() == 1, "loaded anywhere, and bound at the start:\n{all}");
    assert!(lines(&["GNU_RELRO"]).len() == 1, "read-only after that:\n{all}");
    // The flags of a segment stand by themselves: "R", "R E", "RW".
    let flags = |line: &str| -> String {
        let fields = line.split_whitespace().skip(1);
        fields.filter(|field| field.chars().all(|letter| "RWE".contains(letter))).collect()
    };
    let loaded = lines(&["LOAD", "0x"]);
    assert!(loaded.len() > 2, "{all}");
    for line in &loaded {
        let flags = flags(line);
        assert!(flags.contains('R') && !(flags.contains('W') && flags.contains('E')), "{line}");
    }
    let stack = lines(&["GNU_STACK"]);
    assert!(stack.len() == 1 && flags(&stack[0]) == "RW", "{stack:?}");
    for unwanted in ["TEXTREL", "RPATH", "RUNPATH"] {
        assert!(lines(&[unwanted]).is_empty(), "{unwanted}: {all}");
    }
}

/// What it is linked with is what SECURITY.md says, so that nobody is surprised by whose updates they need.
#[test]
fn the_binary_is_linked_with_the_c_library_and_openssl_alone() {
    let output = Command::new("readelf")
        .args(["--wide", "--dynamic"])
        .arg(env!("CARGO_BIN_EXE_turnserver"))
        .env("LC_ALL", "C")
        .output()
        .expect("readelf");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let linked: Vec<&str> =
        all.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1)).collect();
    assert!(linked.len() > 2, "{all}");
    for library in linked {
        let known = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux", "libssl.so.", "libcrypto.so."];
        assert!(known.iter().any(|start| library.starts_with(start)), "{library}");
    }
}
