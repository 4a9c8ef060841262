//! Writes the seed corpus: one file for each sample message, and streams of several.

use std::{fs, io, path::Path};

#[path = "../../tests/stun/mod.rs"]
mod stun;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let directory = corpus.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name).with_extension("bin"), bytes)
    };
    let samples = stun::samples::all();
    for (name, bytes) in &samples {
        put("message", name, bytes)?;
    }
    for (number, several) in samples.chunks(4).enumerate() {
        let stream: Vec<u8> = several.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        put("frame", &format!("stream-{number}"), &[&[3, 1, 7, 40], &stream[..]].concat())?;
    }
    Ok(())
}
