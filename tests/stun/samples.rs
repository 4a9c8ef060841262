//! One valid message of each kind that a server reads or writes.

use std::net::SocketAddr;

use turnserver::stun::{
    AttributeType as A, ChannelData, ChannelNumber, Class, ErrorCode, IntegrityKey, MacAlgorithm, Message,
    MessageWriter, Method, TransactionId,
};

use super::vectors;

pub(crate) const TID: TransactionId = TransactionId(*b"\x01sample id\xFE\xFF");

/// Keys that protect the samples.
pub(crate) fn keys() -> [IntegrityKey; 2] {
    [IntegrityKey::new(MacAlgorithm::Sha1, &[0x5A; 16]), IntegrityKey::new(MacAlgorithm::Sha256, &[0xA5; 32])]
}

pub(crate) fn v4() -> SocketAddr {
    "192.0.2.1:49152".parse().unwrap()
}

pub(crate) fn v6() -> SocketAddr {
    "[2001:db8::1]:3478".parse().unwrap()
}

/// Writes a message with what `fill` adds.
pub(crate) fn write(method: Method, class: Class, fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0xEE; 2048];
    let mut writer = MessageWriter::new(&mut buffer, method, class, TID);
    fill(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

fn credentials(writer: &mut MessageWriter<'_>) {
    writer
        .attribute(A::USERNAME, b"1700000000:some-user-42")
        .attribute(A::REALM, b"turn.example.org")
        .attribute(A::NONCE, b"obMatJos2gAAA8vM0ZbSVhQd2nV5oRkMx4xT");
}

fn sha256_credentials(writer: &mut MessageWriter<'_>) {
    writer
        .attribute(A::USERHASH, &[0x77; 32])
        .attribute(A::REALM, b"turn.example.org")
        .attribute(A::NONCE, b"obMatJos2wAAA8vM0ZbSVhQd2nV5oRkMx4xT")
        .attribute(A::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
        .attribute(A::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
}

/// An Allocate request as clients send them: 156 bytes with credentials, MESSAGE-INTEGRITY and FINGERPRINT.
pub(crate) fn allocate() -> Vec<u8> {
    write(Method::Allocate, Class::Request, |writer| {
        writer.attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).u32(A::LIFETIME, 600);
        credentials(writer);
        writer.integrity(&keys()[0]).fingerprint();
    })
}

/// A Send indication with 1,000 bytes of data.
pub(crate) fn send() -> Vec<u8> {
    write(Method::Send, Class::Indication, |writer| {
        writer.xor_address(A::XOR_PEER_ADDRESS, v4()).attribute(A::DATA, &[0x42; 1000]);
    })
}

/// All samples, by name.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let [sha1, sha256] = &keys();
    let request = |method, fill: &dyn Fn(&mut MessageWriter<'_>)| {
        write(method, Class::Request, |writer| {
            fill(writer);
            credentials(writer);
            writer.integrity(sha1);
        })
    };
    let mut classic = vectors::message(0x0001, &[]);
    classic[4] ^= 0xFF;
    let unknown = vectors::message(0x0003, &[vectors::attribute(0x7FF0, b"what"), vectors::attribute(0x7FF1, b"")]);
    let too_many_attributes = vec![vectors::attribute(0xFFF0, b""); 100];
    vec![
        ("rfc5769-request", vectors::REQUEST.to_vec()),
        ("rfc5769-response-ipv4", vectors::RESPONSE_IPV4.to_vec()),
        ("rfc5769-response-ipv6", vectors::RESPONSE_IPV6.to_vec()),
        ("rfc5769-long-term-request", vectors::LONG_TERM_REQUEST.to_vec()),
        ("rfc8489-userhash-request", vectors::USERHASH_REQUEST.to_vec()),
        ("classic-binding", classic),
        ("unknown-attributes", unknown),
        ("many-attributes", vectors::message(0x0001, &too_many_attributes)),
        ("binding", write(Method::Binding, Class::Request, |_| {})),
        (
            "binding-fingerprint",
            write(Method::Binding, Class::Request, |writer| {
                writer.fingerprint();
            }),
        ),
        ("binding-indication", write(Method::Binding, Class::Indication, |_| {})),
        (
            "binding-success",
            write(Method::Binding, Class::Success, |writer| {
                writer
                    .xor_address(A::XOR_MAPPED_ADDRESS, v4())
                    .address(A::MAPPED_ADDRESS, v6())
                    .attribute(A::SOFTWARE, b"turnserver");
            }),
        ),
        (
            "binding-try-alternate",
            write(Method::Binding, Class::Error, |writer| {
                writer
                    .error_code(ErrorCode::TryAlternate)
                    .address(A::ALTERNATE_SERVER, v6())
                    .attribute(A::ALTERNATE_DOMAIN, b"other.example.org")
                    .integrity(sha256)
                    .fingerprint();
            }),
        ),
        (
            "allocate-bare",
            write(Method::Allocate, Class::Request, |writer| {
                writer.attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            }),
        ),
        ("allocate", allocate()),
        (
            "allocate-everything",
            write(Method::Allocate, Class::Request, |writer| {
                writer
                    .attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                    .u32(A::LIFETIME, 3600)
                    .attribute(A::DONT_FRAGMENT, &[])
                    .attribute(A::EVEN_PORT, &[0x80])
                    .attribute(A::RESERVATION_TOKEN, &[9; 8])
                    .attribute(A::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])
                    .attribute(A::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                sha256_credentials(writer);
                writer.integrity(sha1).integrity(sha256).fingerprint();
            }),
        ),
        (
            "allocate-unauthenticated",
            write(Method::Allocate, Class::Error, |writer| {
                writer
                    .error_code(ErrorCode::Unauthenticated)
                    .attribute(A::REALM, b"turn.example.org")
                    .attribute(A::NONCE, b"obMatJos2wAAA8vM0ZbSVhQd2nV5oRkMx4xT")
                    .attribute(A::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            }),
        ),
        (
            "allocate-unknown-attribute",
            write(Method::Allocate, Class::Error, |writer| {
                writer
                    .error_code(ErrorCode::UnknownAttribute)
                    .unknown_attributes([A(0x7FF0), A(0x7FF1), A(0x7FF2)].into_iter(), 100)
                    .integrity(sha1);
            }),
        ),
        (
            "allocate-success",
            write(Method::Allocate, Class::Success, |writer| {
                writer
                    .xor_address(A::XOR_RELAYED_ADDRESS, v4())
                    .xor_address(A::XOR_RELAYED_ADDRESS, v6())
                    .u32(A::LIFETIME, 600)
                    .xor_address(A::XOR_MAPPED_ADDRESS, v6())
                    .attribute(A::RESERVATION_TOKEN, &[7; 8])
                    .address_error_code(2, ErrorCode::InsufficientCapacity)
                    .integrity(sha256);
            }),
        ),
        (
            "refresh",
            request(Method::Refresh, &|writer| {
                writer.u32(A::LIFETIME, 0);
            }),
        ),
        (
            "refresh-success",
            write(Method::Refresh, Class::Success, |writer| {
                writer.u32(A::LIFETIME, 0).integrity(sha1);
            }),
        ),
        (
            "create-permission",
            request(Method::CreatePermission, &|writer| {
                writer.xor_address(A::XOR_PEER_ADDRESS, v4()).xor_address(A::XOR_PEER_ADDRESS, v6());
            }),
        ),
        (
            "channel-bind",
            request(Method::ChannelBind, &|writer| {
                writer.u32(A::CHANNEL_NUMBER, 0x4000_0000).xor_address(A::XOR_PEER_ADDRESS, v4());
            }),
        ),
        (
            "send",
            write(Method::Send, Class::Indication, |writer| {
                writer
                    .xor_address(A::XOR_PEER_ADDRESS, v6())
                    .attribute(A::DONT_FRAGMENT, &[])
                    .attribute(A::DATA, b"some data");
            }),
        ),
        (
            "data",
            write(Method::Data, Class::Indication, |writer| {
                writer.xor_address(A::XOR_PEER_ADDRESS, v4()).attribute(A::DATA, b"data");
            }),
        ),
        (
            "data-icmp",
            write(Method::Data, Class::Indication, |writer| {
                writer.xor_address(A::XOR_PEER_ADDRESS, v4()).attribute(A::ICMP, &[0, 0, 6, 4, 0, 0, 5, 0xDC]);
            }),
        ),
        ("channel-data", channel_data(0x4000, b"channel data")),
        ("channel-data-padded", channel_data(0x4FFF, b"channel data with padding")),
        ("channel-data-empty", channel_data(0x4ABC, b"")),
    ]
}

/// A ChannelData message, padded as on a stream.
pub(crate) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let message = ChannelData { number: ChannelNumber(number), len: u16::try_from(data.len()).unwrap() };
    let mut bytes = [&message.header()[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The samples that parse as STUN messages.
pub(crate) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    all().into_iter().filter(|(_, bytes)| Message::parse(bytes).is_ok()).collect()
}
