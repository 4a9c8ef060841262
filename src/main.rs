//! The binary `turnserver`.

fn main() {}
