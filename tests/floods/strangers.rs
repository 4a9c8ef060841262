//! Datagrams of nobody: any address may stand on them.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use turnserver::stun::{
    AttributeType, ChannelNumber, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId,
};

use crate::{
    common::{
        REALM, USER,
        client::{channel_data, key},
        dtls::prepare,
    },
    scene::{Flood, Pace, SERVER, Scene},
    sources::{BATCH, Sources},
};

pub(crate) fn floods() -> Vec<Flood> {
    vec![
        Flood::new("Binding requests, 100,000 sources", 2_000, |scene, pace| {
            from_everywhere(scene.plain, pace, |number| message(Method::Binding, number, |_| {}));
        }),
        Flood::new("Allocate requests without credentials, 100,000 sources", 2_000, |scene, pace| {
            from_everywhere(scene.plain, pace, |number| message(Method::Allocate, number, udp));
        }),
        Flood::new("junk datagrams, 100,000 sources", 2_000, |scene, pace| {
            from_everywhere(scene.plain, pace, |number| junk(number, 1 + number as usize % 600));
        }),
        Flood::new("empty, oversize and lying datagrams", 500, |scene, pace| {
            from_everywhere(scene.plain, pace, odd_length);
        }),
        Flood::new("ChannelData and Send indications, 100,000 sources", 2_000, |scene, pace| {
            from_everywhere(scene.plain, pace, |number| {
                if number % 2 == 0 { channel_data(ChannelNumber(0x4000), b"data") } else { send_indication(number) }
            });
        }),
        Flood::new("wrong passwords, 100,000 sources", 1_000, |scene, pace| {
            let wrong = IntegrityKey::new(MacAlgorithm::Sha1, b"wrong");
            from_everywhere(scene.plain, pace, |number| login(number, b"invented", &wrong));
        }),
        Flood::new("a nonce replayed from 100,000 sources, right password", 1_000, |scene, pace| {
            let nonce = nonce_of(scene.plain);
            let key = key();
            from_everywhere(scene.plain, pace, |number| login(number, &nonce, &key));
        }),
    ]
}

/// ClientHellos that no cookie follows.
pub(crate) fn hellos(scene: &Scene, pace: &mut Pace) {
    let hello = hello(scene.server.folder(), scene.secure);
    from_everywhere(scene.secure, pace, |number| {
        let mut hello = hello.clone();
        hello[27..31].copy_from_slice(&number.to_be_bytes());
        hello
    });
}

/// The first ClientHello of a client.
pub(crate) fn hello(folder: &std::path::Path, to: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect(to).expect("connecting a socket");
    let mut stream = prepare(folder, socket);
    stream.get_mut().lose = 0..usize::MAX;
    assert!(stream.do_handshake().is_err());
    stream.get_mut().sent.swap_remove(0)
}

fn from_everywhere(to: SocketAddr, pace: &mut Pace, mut make: impl FnMut(u32) -> Vec<u8>) {
    let mut sources = Sources::new(to);
    while pace.goes_on() {
        let sent = sources.send(&mut make);
        pace.count(sent);
    }
    assert!(pace.done() >= BATCH as u64, "nothing was sent");
}

/// A request.
pub(crate) fn message(method: Method, number: u32, attributes: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    written(method, Class::Request, number, attributes)
}

fn written(method: Method, class: Class, number: u32, attributes: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let (mut id, mut buffer) = ([7; 12], [0; 1024]);
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId(id));
    attributes(&mut writer);
    let len = writer.finish().expect("room for a message");
    buffer[..len].to_vec()
}

/// REQUESTED-TRANSPORT.
pub(crate) fn udp(writer: &mut MessageWriter<'_>) {
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

fn send_indication(number: u32) -> Vec<u8> {
    written(Method::Send, Class::Indication, number, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, (SERVER, 9).into());
        writer.attribute(AttributeType::DATA, b"data");
    })
}

/// An Allocate with credentials of the user.
pub(crate) fn login(number: u32, nonce: &[u8], key: &IntegrityKey) -> Vec<u8> {
    message(Method::Allocate, number, |writer| {
        udp(writer);
        writer.attribute(AttributeType::USERNAME, USER.as_bytes());
        writer.attribute(AttributeType::REALM, REALM.as_bytes());
        writer.attribute(AttributeType::NONCE, nonce);
        writer.integrity(key);
    })
}

/// A nonce that is good for somebody.
pub(crate) fn nonce_of(server: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind((SERVER, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
    let mut buffer = [0; 1024];
    let len = (0..20).find_map(|number| {
        socket.send_to(&message(Method::Allocate, number, udp), server).expect("sending");
        socket.recv(&mut buffer).ok()
    });
    let challenge = Message::parse(&buffer[..len.expect("a challenge")]).expect("a STUN message");
    challenge.get(AttributeType::NONCE).expect("a nonce").to_vec()
}

/// Bytes without any order; the same for the same number.
pub(crate) fn junk(number: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        // Knuth's generator: the upper bits are good enough for junk.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Nothing at all, as much as a datagram takes, and headers that say another length than there is.
fn odd_length(number: u32) -> Vec<u8> {
    let mut binding = message(Method::Binding, number, |_| {});
    match number % 5 {
        0 => Vec::new(),
        1 => junk(number, 65_507),
        2 => {
            binding[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
            binding
        }
        3 => [&[0x40, 0, 0xFF, 0xFF], &[0; 100][..]].concat(),
        _ => [&binding[..], &[0; 1400]].concat(),
    }
}
