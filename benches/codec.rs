//! What the codec costs per packet: `cargo bench --bench codec`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use samples::TID;
use stun::samples;
use turnserver::stun::{
    AttributeType as A, ChannelData, Class, MacAlgorithm, Message, MessageWriter, Method, demultiplex::Protocol,
};

#[path = "../tests/stun/mod.rs"]
mod stun;

fn codec(criterion: &mut Criterion) {
    let allocate = samples::allocate();
    let send = samples::send();
    let channel_data = samples::channel_data(0x4000, &[0x42; 1000]);
    let keys = samples::keys();
    let sha1 = keys.iter().find(|key| key.algorithm() == MacAlgorithm::Sha1).unwrap();
    let peer = samples::v4();
    assert_eq!(allocate.len(), 156);

    criterion.bench_function("parse Allocate with credentials", |bencher| {
        bencher.iter(|| Message::parse(black_box(&allocate)).is_ok());
    });
    criterion.bench_function("verify MESSAGE-INTEGRITY with a prepared key", |bencher| {
        let message = Message::parse(&allocate).unwrap();
        assert!(sha1.verifies(&message));
        bencher.iter(|| sha1.verifies(black_box(&message)));
    });
    criterion.bench_function("parse Allocate and verify MESSAGE-INTEGRITY", |bencher| {
        bencher.iter(|| Message::parse(black_box(&allocate)).is_ok_and(|message| sha1.verifies(&message)));
    });
    criterion.bench_function("encode Binding response", |bencher| {
        let mut buffer = [0; 64];
        bencher.iter(|| {
            let mut writer = MessageWriter::new(black_box(&mut buffer), Method::Binding, Class::Success, TID);
            writer.xor_address(A::XOR_MAPPED_ADDRESS, black_box(peer));
            writer.finish()
        });
    });
    criterion.bench_function("parse Send indication of 1,000 bytes", |bencher| {
        bencher.iter(|| {
            let message = Message::parse(black_box(&send)).ok()?;
            let peer = message.get_xor_address(A::XOR_PEER_ADDRESS)?.ok()?;
            Some((peer, message.value_offset(A::DATA)?, message.get(A::DATA)?.len()))
        });
    });
    criterion.bench_function("write Data indication header", |bencher| {
        let mut buffer = [0; 64];
        bencher.iter(|| {
            let mut writer = MessageWriter::new(black_box(&mut buffer), Method::Data, Class::Indication, TID);
            writer.xor_address(A::XOR_PEER_ADDRESS, black_box(peer));
            writer.finish_before_value(A::DATA, black_box(1000))
        });
    });
    criterion.bench_function("parse ChannelData header", |bencher| {
        bencher.iter(|| {
            let bytes = black_box(&channel_data[..]);
            (Protocol::of(bytes[0], false) == Protocol::ChannelData).then(|| ChannelData::parse(bytes))
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
