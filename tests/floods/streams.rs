//! Connections: frames that are none, and clients that take their time (TCP, TLS, DTLS).

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use turnserver::stun::Method;

use crate::{
    common::dtls::prepare,
    scene::{Flood, Pace, Scene},
    sources::address,
    strangers::{self, junk, message},
};

pub(crate) fn floods() -> Vec<Flood> {
    vec![
        Flood::new("empty, oversize and broken frames on TCP", 1_000, frames),
        Flood::new("messages byte by byte on TCP", 100, |scene, pace| {
            let binding = message(Method::Binding, 1, |_| {});
            byte_by_byte(scene.plain, &binding, pace);
        }),
        Flood::new("handshakes byte by byte on TLS", 100, |scene, pace| {
            // A record of a handshake, and the beginning of a ClientHello.
            let hello = [&[22, 3, 1, 1, 0, 1, 0, 0, 0xFC, 3, 3], &junk(1, 100)[..]].concat();
            byte_by_byte(scene.secure, &hello, pace);
        }),
        Flood::new("ClientHellos of DTLS without a cookie, 100,000 sources", 1_000, strangers::hellos),
        Flood { lines: 20, growth_kib: 64 << 10, ..Flood::new("half-open handshakes of DTLS", 50, half_open) },
    ]
}

/// A connection from one of the many addresses, unless the system has no place for it now.
pub(crate) fn connect(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("any address of 10.0.0.0/8");
    socket.connect_timeout(&to.into(), Duration::from_millis(200)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    Some(stream)
}

/// Over and over from eight connections at a time; those that the server closes are made anew.
fn frames(scene: &Scene, pace: &mut Pace) {
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        connect(address(number), scene.plain)
    };
    let mut connections: Vec<Option<TcpStream>> = (0..8).map(|_| fresh()).collect();
    let kinds: [Vec<u8>; 5] = [
        // ChannelData without data, many of them; with as much as may be; a message that is longer than any; and no protocol.
        [0x40, 0, 0, 0].repeat(100),
        [&[0x40, 0, 0xFF, 0xFC], &vec![7; 0xFFFC][..]].concat(),
        [&[0, 1, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42], &vec![7; 0xFFFC + 12][..]].concat(),
        vec![0xFF; 1000],
        [&[0, 1, 0, 3, 0x21, 0x12, 0xA4, 0x42][..], &[7; 20]].concat(),
    ];
    let mut at = 0;
    while pace.goes_on() {
        let (connection, kind) = (at % connections.len(), at % kinds.len());
        let is_written = |stream: &mut TcpStream| stream.write_all(&kinds[kind]).is_ok();
        if !connections[connection].as_mut().is_some_and(is_written) {
            connections[connection] = fresh();
        }
        at += 1;
        pace.count(1);
    }
}

/// New connections, as long as there are not very many, each with the next byte of its message now and then.
fn byte_by_byte(to: SocketAddr, bytes: &[u8], pace: &mut Pace) {
    const CONNECTIONS: usize = 2000;
    let mut slow: Vec<(TcpStream, usize)> = Vec::new();
    let mut number = 0;
    while pace.goes_on() {
        number += 1;
        if slow.len() < CONNECTIONS {
            slow.extend(connect(address(number), to).map(|stream| (stream, 0)));
        }
        if slow.is_empty() {
            continue;
        }
        let at = number as usize * 7 % slow.len();
        let (stream, sent) = &mut slow[at];
        // The last byte never comes.
        let next = (*sent).min(bytes.len() - 2);
        if stream.write_all(&bytes[next..=next]).is_err() {
            drop(slow.swap_remove(at));
        } else {
            *sent += 1;
        }
        pace.count(1);
    }
}

/// Clients that prove their address and then say nothing.
fn half_open(scene: &Scene, pace: &mut Pace) {
    let (mut number, mut held) = (0, Vec::new());
    while pace.goes_on() {
        number += 1;
        let socket = UdpSocket::bind((address(number), 0)).expect("any address of 10.0.0.0/8");
        socket.connect(scene.secure).expect("connecting a socket");
        let mut stream = prepare(scene.server.folder(), socket);
        stream.get_ref().socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a time limit");
        // The cookie comes, and nothing after it.
        stream.get_mut().lose = 1..usize::MAX;
        while stream.get_ref().received.is_empty() && pace.goes_on() {
            let _ = stream.do_handshake();
        }
        held.push(stream);
        if held.len() > 2000 {
            held.clear();
        }
        pace.count(1);
    }
}
