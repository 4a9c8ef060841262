//! What the codec costs per packet, in time and heap allocations: `cargo bench --bench codec`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group};
use samples::TID;
use stun::samples;
use support::bench;
use turnserver::stun::{
    AttributeType as A, ChannelData, ChannelNumber, Class, MacAlgorithm, Message, MessageWriter, Method,
    demultiplex::Protocol,
};

#[path = "../tests/stun/mod.rs"]
mod stun;
mod support;

fn codec(criterion: &mut Criterion) {
    let allocate = samples::allocate();
    let send = samples::send();
    let channel_data = samples::channel_data(0x4000, &[0x42; 1000]);
    let keys = samples::keys();
    let sha1 = keys.iter().find(|key| key.algorithm() == MacAlgorithm::Sha1).unwrap();
    let peer = samples::v4();
    let number = ChannelNumber(0x4000);
    assert_eq!(allocate.len(), 156);

    bench(criterion, "parse Allocate with credentials", || Message::parse(black_box(&allocate)).is_ok());
    let message = Message::parse(&allocate).unwrap();
    for (name, algorithm) in [("SHA-1", MacAlgorithm::Sha1), ("SHA-256", MacAlgorithm::Sha256)] {
        let key = keys.iter().find(|key| key.algorithm() == algorithm).unwrap();
        bench(criterion, &format!("verify integrity with a prepared key, {name}"), || {
            black_box(key).verifies(black_box(&message))
        });
    }
    assert!(sha1.verifies(&message));
    bench(criterion, "parse Allocate and verify MESSAGE-INTEGRITY", || {
        Message::parse(black_box(&allocate)).is_ok_and(|message| sha1.verifies(&message))
    });
    let mut buffer = [0; 128];
    bench(criterion, "encode Binding response", || {
        let mut writer = MessageWriter::new(black_box(&mut buffer), Method::Binding, Class::Success, TID);
        writer.xor_address(A::XOR_MAPPED_ADDRESS, black_box(peer));
        writer.finish()
    });
    bench(criterion, "encode Refresh response with MESSAGE-INTEGRITY", || {
        let mut writer = MessageWriter::new(black_box(&mut buffer), Method::Refresh, Class::Success, TID);
        writer.u32(A::LIFETIME, black_box(600)).integrity(sha1);
        writer.finish()
    });
    bench(criterion, "parse Send indication of 1,000 bytes", || {
        let message = Message::parse(black_box(&send)).ok()?;
        let peer = message.get_xor_address(A::XOR_PEER_ADDRESS)?.ok()?;
        Some((peer, message.value_offset(A::DATA)?, message.get(A::DATA)?.len()))
    });
    bench(criterion, "write Data indication header", || {
        let mut writer = MessageWriter::new(black_box(&mut buffer), Method::Data, Class::Indication, TID);
        writer.xor_address(A::XOR_PEER_ADDRESS, black_box(peer));
        writer.finish_before_value(A::DATA, black_box(1000))
    });
    bench(criterion, "parse ChannelData header", || {
        let bytes = black_box(&channel_data[..]);
        (Protocol::of(bytes[0], false) == Protocol::ChannelData).then(|| ChannelData::parse(bytes).is_some())
    });
    bench(criterion, "write ChannelData header", || black_box(ChannelData { number, len: 1000 }).header());
}

criterion_group!(benches, codec);

fn main() {
    support::run(benches);
}
