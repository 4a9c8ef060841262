//! Compiles the kernel's part of the relay (`src/relay/offload/bpf`) with clang, if the feature `offload` is on and clang is there;
//! `CLANG` names another one. Without it the build goes on, and the program says that it has no offload, and why.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCES: &str = "src/relay/offload/bpf";

fn main() {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rustc-check-cfg=cfg(offload_program)");
    match compile() {
        Ok(()) => println!("cargo::rustc-cfg=offload_program"),
        Err(why) => println!("cargo::rustc-env=OFFLOAD_ABSENT={why}"),
    }
}

/// Makes `relay.bpf.o`, or says why there is none.
fn compile() -> Result<(), String> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        return Err("only Linux has it".to_owned());
    }
    if env::var_os("CARGO_FEATURE_OFFLOAD").is_none() {
        return Err("the feature `offload` was off when it was built".to_owned());
    }
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let target = if variable("CARGO_CFG_TARGET_ENDIAN") == "big" { "bpfeb" } else { "bpfel" };
    let object = PathBuf::from(variable("OUT_DIR")).join("relay.bpf.o");
    let output = Command::new(&clang)
        .args(["-target", target, "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-nostdinc", "-c"])
        .arg(Path::new(SOURCES).join("relay.bpf.c"))
        .arg("-o")
        .arg(&object)
        .output();
    let why = match output {
        Ok(output) if output.status.success() => {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                println!("cargo::warning={line}");
            }
            return Ok(());
        }
        Ok(output) => {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                println!("cargo::warning={line}");
            }
            "clang could not compile it"
        }
        Err(_) => {
            // It may be installed before the next build: what is never there has cargo run this each time.
            println!("cargo::rerun-if-changed={}", object.with_file_name("no-clang").display());
            "clang was not there when it was built"
        }
    };
    println!(
        "cargo::warning=built without offload: {why} (Debian's package is clang; the feature `offload` off says the same without a word)"
    );
    Err(why.to_owned())
}
