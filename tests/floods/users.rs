//! What somebody with a password can do.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use turnserver::stun::{AttributeType, ChannelNumber, MessageWriter, Method};

use crate::{
    common::client::{TurnClient, channel_data},
    scene::{ATTACKER, Flood, Pace, Scene},
    sources::address,
};

pub(crate) fn floods() -> Vec<Flood> {
    vec![
        Flood::new("ChannelData to unknown channels, by a user", 2_000, unknown_channels),
        Flood::new("permissions and channels without end, by a user", 1_000, peers),
        Flood {
            configuration: "[limits]\nuser-quota = 10\n",
            lines: 20,
            ..Flood::new("allocations beyond the quota, by a user", 200, allocations)
        },
    ]
}

/// The attacker at one of the many addresses.
fn attacker(scene: &Scene, number: u32) -> TurnClient {
    let socket = UdpSocket::bind((address(number), 0)).expect("any address of 10.0.0.0/8");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    TurnClient::of(ATTACKER, socket, scene.plain)
}

fn unknown_channels(scene: &Scene, pace: &mut Pace) {
    let mut client = attacker(scene, 0);
    client.allocate();
    let mut number = 0;
    while pace.goes_on() {
        for _ in 0..50 {
            number = (number + 1) % 0x1000;
            let message = channel_data(ChannelNumber(0x4000 + number), &[7; 160]);
            client.socket.send_to(&message, client.server).expect("sending");
        }
        pace.count(50);
    }
}

/// A new peer with each request. Answers are thrown away.
fn peers(scene: &Scene, pace: &mut Pace) {
    let mut client = attacker(scene, 0);
    client.allocate();
    let mut number = 0_u32;
    while pace.goes_on() {
        for _ in 0..50 {
            number += 1;
            let peer = SocketAddr::from((Ipv4Addr::from_bits(0x0A01_0000 + number % 0x0010_0000), 9));
            let of_peer = |writer: &mut MessageWriter<'_>| {
                writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            };
            let request = if number.is_multiple_of(2) {
                client.sign(Method::CreatePermission, of_peer)
            } else {
                let channel = 0x4000 + number / 2 % 0x1000;
                client.sign(Method::ChannelBind, |writer| {
                    writer.u32(AttributeType::CHANNEL_NUMBER, channel << 16);
                    of_peer(writer);
                })
            };
            client.socket.send_to(&request, client.server).expect("sending");
        }
        pace.count(50);
    }
}

/// Allocates from one address after the other, and keeps what it gets.
fn allocations(scene: &Scene, pace: &mut Pace) {
    let mut number = 0;
    let mut held = Vec::new();
    while pace.goes_on() {
        number += 1;
        let mut client = attacker(scene, number);
        client.learn_nonce();
        let answer = client.request(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        pace.count(1);
        // 0x0103 is a success.
        if answer[..2] == [1, 3] {
            held.push(client);
        }
    }
    assert!(held.len() <= 10, "{} allocations of a quota of 10", held.len());
    held.iter_mut().for_each(TurnClient::delete);
}
