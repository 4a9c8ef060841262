//! H-01, H-02: any bytes, over UDP and TCP, before and after authentication.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::{Client, Event};
use crate::setup::{AUTHENTICATED, Scheme, Server, Session, connected, server};
use crate::wire::{
    BINDING, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, DATA, EVEN_PORT, LIFETIME, Msg, PASSWORD_ALGORITHM,
    PASSWORD_ALGORITHMS, REALM, REFRESH, REQUESTED_ADDRESS_FAMILY, USERNAME, allocate, padded_channel_data, send,
};

/// A small generator whose seed is all that is needed to repeat a run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }

    /// Changes bytes in one to four places, or the length.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let place = self.roll(bytes.len());
            match self.roll(7) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place.min(bytes.len()), self.roll(256) as u8),
                2 => bytes.extend((0..self.roll(12)).map(|byte| byte as u8)),
                3 if bytes.len() > 4 => {
                    // A length field, of the message or of an attribute.
                    let place = [2, 22, place & !3 | 2][self.roll(3)].min(bytes.len() - 2);
                    let extreme = [0u16, 1, 3, 4, 0x7FFF, 0xFFFC, 0xFFFF][self.roll(7)];
                    bytes[place..place + 2].copy_from_slice(&extreme.to_be_bytes());
                }
                _ if place < bytes.len() => {
                    bytes[place] = [0, 0xFF, 1 << self.roll(8), self.roll(256) as u8][self.roll(4)]
                }
                _ => {}
            }
        }
    }
}

/// Messages of every kind, not yet signed.
fn seeds() -> Vec<Msg> {
    let peer = ([127, 0, 0, 1], 9);
    vec![
        Msg::new(BINDING).fingerprint(),
        Msg::new(BINDING).attr(0x7FF0, b"unknown"),
        allocate().u32(LIFETIME, 900).attr(EVEN_PORT, &[0x80]),
        allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
        Msg::new(REFRESH).u32(LIFETIME, 700),
        Msg::new(CREATE_PERMISSION).peer(peer).peer(([127, 0, 0, 2], 9)),
        Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer),
        send(peer.into(), b"some data"),
    ]
}

fn survives(server: &Server) {
    let start = Instant::now();
    for session in Session::each(server) {
        let (mut session, peer, relayed) = connected(session);
        session.round_trip(&peer, relayed);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "service takes {:?}", start.elapsed());
}

#[test]
fn h_01_mutated_datagrams() {
    const DATAGRAMS: usize = 200_000;
    let server = server(&[]);
    let mut dice = Dice::new(0x9E37_79B9_7F4A_7C15);
    let (mut session, _peer, _) = connected(Session::udp(&server));
    let stranger_seeds = seeds();
    for count in 0..DATAGRAMS / 4 {
        // As it is; with credentials and then changed; changed and then signed, which gets past authentication.
        let seed = &stranger_seeds[dice.roll(stranger_seeds.len())];
        let mut plain = seed.0.clone();
        dice.mutate(&mut plain);
        session.scheme = [Scheme::Legacy, Scheme::Md5, Scheme::Sha256][dice.roll(3)];
        let mut signed = session.sign(seed.clone()).0;
        dice.mutate(&mut signed);
        let mut body = seed.0[20..].to_vec();
        dice.mutate(&mut body);
        body.resize(body.len() & !3, 0);
        let mut inner = Msg::new(u16::from_be_bytes([seed.0[0], seed.0[1]]));
        inner.0.extend(body);
        let inner = session.sign(inner).0;
        let mut channel = padded_channel_data(0x4000, b"channel data");
        dice.mutate(&mut channel);
        for bytes in [plain, signed, inner, channel] {
            if !bytes.is_empty() {
                session.send(&bytes);
            }
        }
        if count % 32 == 31 {
            // Everything up to here has been taken in; every answer was a well-formed message.
            session.fence();
        }
    }
    survives(&server);
}

#[test]
fn h_01_random_datagrams_draw_no_answer() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    let mut dice = Dice::new(0xD1B5_4A32_D192_ED03);
    for count in 0..20_000 {
        let length = 1 + dice.roll(100);
        let bytes: Vec<u8> = (0..length).map(|_| dice.roll(256) as u8).collect();
        client.send(&bytes);
        if count % 64 == 63 {
            assert!(client.fence().is_empty());
        }
    }
    survives(&server);
}

#[test]
fn h_02_mutated_streams() {
    let server = server(&[]);
    let mut dice = Dice::new(0xA076_1D64_78BD_642F);
    let seeds = seeds();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(server.ipv4("tcp")).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..8 {
            let mut message = match dice.roll(4) {
                0 => padded_channel_data(0x4000, b"channel data"),
                _ => seeds[dice.roll(seeds.len())].0.clone(),
            };
            if dice.roll(3) > 0 {
                dice.mutate(&mut message);
            }
            bytes.extend(message);
        }
        // The server may close at any point.
        for segment in bytes.chunks(1 + dice.roll(bytes.len())) {
            if stream.write_all(segment).is_err() {
                break;
            }
        }
    }
    survives(&server);
}

#[test]
fn h_02_garbage_streams() {
    let server = server(&[]);
    let mut dice = Dice::new(0xE703_7ED1_A0B4_28DB);
    for first in 0..=255u8 {
        let mut stream = TcpStream::connect(server.ipv4("tcp")).unwrap();
        let mut bytes: Vec<u8> = (0..2000).map(|_| dice.roll(256) as u8).collect();
        bytes[0] = first;
        let _ = stream.write_all(&bytes);
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 100];
        if let Ok(length) = stream.read(&mut answer) {
            assert_eq!(length, 0, "garbage draws {:02x?}", &answer[..length]);
        }
    }
    survives(&server);
}

/// An attribute at the end whose padding is missing; the header's length counts what is there, or what should be.
fn without_padding(message: Msg, kind: u16, value: &[u8]) -> [Vec<u8>; 2] {
    let mut counted = message.0;
    counted.extend(kind.to_be_bytes());
    counted.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    counted.extend(value);
    let length = counted.len() - 20;
    let mut claimed = counted.clone();
    counted[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    claimed[2..4].copy_from_slice(&u16::try_from(length.next_multiple_of(4)).unwrap().to_be_bytes());
    [counted, claimed]
}

#[test]
fn an_attribute_without_its_padding_at_the_end_of_the_datagram() {
    let server = server(&[]);
    let (mut session, _, _) = connected(Session::udp(&server));
    for method in [BINDING, AUTHENTICATED[0], AUTHENTICATED[1], AUTHENTICATED[2], AUTHENTICATED[3]] {
        for (kind, value) in
            [(USERNAME, &b"alice"[..]), (0xFFF0, b"x"), (0x7FF0, b"xyz"), (DATA, b"ab"), (REALM, b"example.org")]
        {
            for bytes in without_padding(Msg::new(method), kind, value) {
                session.silent(&bytes);
            }
            for bytes in without_padding(session.sign(Msg::new(method)), kind, value) {
                session.silent(&bytes);
            }
        }
    }
    let [counted, claimed] = without_padding(send(([127, 0, 0, 1], 9).into(), b"data"), 0xFFF0, b"x");
    session.silent(&counted);
    session.silent(&claimed);
    session.succeed(Msg::new(REFRESH));
}

#[test]
fn an_attribute_without_its_padding_on_a_stream() {
    let server = server(&[]);
    for signed in [false, true] {
        let mut session = Session::tcp(&server);
        session.allocate();
        let message = if signed { session.sign(Msg::new(REFRESH)) } else { Msg::new(BINDING) };
        let [counted, _] = without_padding(message, 0xFFF0, b"x");
        // The length is no multiple of 4: framing is lost.
        session.send(&counted);
        session.expect_close(Duration::from_secs(10));
    }
    survives(&server);
}

#[test]
fn channel_number_of_length_0() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let request = || Msg::new(CHANNEL_BIND).attr(CHANNEL_NUMBER, &[]).peer(([127, 0, 0, 1], 9));
        assert_eq!(session.client.request(&request()).error(), Some(401));
        session.fail(request(), 437);
        session.allocate();
        assert_eq!(session.client.request(&request()).error(), Some(401));
        session.fail(request(), 400);
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn password_algorithm_with_a_length_beyond_its_value() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for allocated in [false, true] {
            if allocated {
                session.allocate();
            }
            for length in [1u16, 4, 5, 0x7FFF, 0xFFF0, 0xFFFF] {
                let algorithm = [&[0, 2][..], &length.to_be_bytes()].concat();
                let list = [&algorithm[..], &[0, 1, 0, 0]].concat();
                // Without integrity: a challenge, whatever it holds.
                let bare = allocate().attr(PASSWORD_ALGORITHM, &algorithm);
                assert_eq!(session.client.request(&bare).error(), Some(401));
                let identified = session.identify(Msg::new(REFRESH));
                for request in [
                    identified
                        .clone()
                        .attr(PASSWORD_ALGORITHMS, &session.algorithms)
                        .attr(PASSWORD_ALGORITHM, &algorithm),
                    identified.clone().attr(PASSWORD_ALGORITHMS, &list).attr(PASSWORD_ALGORITHM, &algorithm),
                    identified.clone().attr(PASSWORD_ALGORITHMS, &list).attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
                    identified.clone().attr(PASSWORD_ALGORITHMS, &[0]).attr(PASSWORD_ALGORITHM, &[0, 2]),
                    identified.attr(PASSWORD_ALGORITHMS, &[]).attr(PASSWORD_ALGORITHM, &[]),
                ] {
                    assert_eq!(session.client.request(&request.mi256(&session.key())).error(), Some(400));
                }
            }
        }
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn h_11_huge_lengths_inside_messages() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    for kind in [USERNAME, REALM, DATA, CHANNEL_NUMBER, PASSWORD_ALGORITHMS, 0x7FF0, 0xFFF0, 8, 0x1C, 0x8028] {
        let mut message = Msg::new(REFRESH).attr(kind, &[0; 8]).0;
        message[22..24].copy_from_slice(&0xFFFCu16.to_be_bytes());
        session.silent(&message);
    }
    session.round_trip(&peer, relayed);
    // A message of the greatest size that a datagram can have.
    let large = Msg::new(BINDING).attr(0xFFF0, &vec![0; 65_480]);
    assert!(matches!(session.client.request(&large).error(), None | Some(420)));
    assert!(session.fence().iter().all(|event| !matches!(event, Event::Channel(..))));
}
