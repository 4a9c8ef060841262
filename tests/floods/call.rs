//! A legitimate call: one packet every 20 ms to a peer that sends each back.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use turnserver::stun::ChannelNumber;

use crate::{
    common::{
        client::{TurnClient, channel_data},
        ports::peer_socket,
    },
    scene::SERVER,
};

const CHANNEL: ChannelNumber = ChannelNumber(0x4000);
const INTERVAL: Duration = Duration::from_millis(20);
const VOICE: usize = 160;
/// Nothing has come for so long after the end: nothing will.
const SILENCE: Duration = Duration::from_secs(2);

/// A client with a channel to a peer.
pub(crate) struct Call {
    client: TurnClient,
    relayed: SocketAddr,
    peer: UdpSocket,
}

/// What has become of its packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) sent: u32,
    /// Those that did not come to the peer.
    pub(crate) lost_up: u32,
    /// Those that came to the peer, and not back.
    pub(crate) lost_down: u32,
    /// Whether the last ones came back: the call goes on.
    pub(crate) goes_on: bool,
}

impl Call {
    pub(crate) fn new(listener: SocketAddr) -> Self {
        let ip = IpAddr::from(SERVER);
        let socket = UdpSocket::bind((ip, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
        let mut client = TurnClient::new(socket, listener);
        let (relayed, peer) = (client.allocate(), peer_socket(ip));
        client.bind(CHANNEL, peer.local_addr().expect("an address"));
        for socket in [&peer, &client.socket] {
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        }
        Self { client, relayed, peer }
    }

    /// Talks until it is `over`.
    pub(crate) fn talk(&self, over: &AtomicBool) -> Talk {
        const TALKING: u32 = u32::MAX;
        let all = AtomicU32::new(TALKING);
        thread::scope(|scope| {
            let peer = scope.spawn(|| {
                arrivals(&self.peer, &all, |bytes| {
                    self.peer.send_to(bytes, self.relayed).expect("to send back");
                    bytes.to_vec()
                })
            });
            let client = scope.spawn(|| {
                arrivals(&self.client.socket, &all, |bytes| {
                    assert_eq!(bytes[..4], channel_data(CHANNEL, &[0; VOICE])[..4]);
                    bytes[4..].to_vec()
                })
            });
            let (start, mut sent) = (Instant::now(), 0);
            while !over.load(Ordering::Relaxed) {
                thread::sleep((start + INTERVAL * sent).saturating_duration_since(Instant::now()));
                let message = channel_data(CHANNEL, &sent.to_be_bytes().repeat(VOICE / 4));
                self.client.socket.send_to(&message, self.client.server).expect("to send");
                sent += 1;
            }
            all.store(sent, Ordering::Relaxed);
            let up = peer.join().expect("what came to the peer");
            let down = client.join().expect("what came back");
            for numbers in [&up, &down] {
                assert!(numbers.is_sorted_by(|one, next| one < next), "out of order or twice: {numbers:?}");
            }
            let (up_len, down_len) = (up.len() as u32, down.len() as u32);
            let goes_on = down.last().is_some_and(|last| last + 5 >= sent);
            Talk { sent, lost_up: sent - up_len, lost_down: up_len - down_len, goes_on }
        })
    }
}

/// The numbers of the packets that come, until the last of `all` has come or none comes any more.
fn arrivals(socket: &UdpSocket, all: &AtomicU32, mut open: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<u32> {
    let (mut numbers, mut buffer, mut silent) = (Vec::new(), [0; 2048], Instant::now());
    loop {
        let sent = all.load(Ordering::Relaxed);
        if sent.checked_sub(1) == numbers.last().copied() || sent != u32::MAX && silent.elapsed() > SILENCE {
            return numbers;
        }
        match socket.recv_from(&mut buffer) {
            Ok((len, _)) => {
                let data = open(&buffer[..len]);
                numbers.push(u32::from_be_bytes(*data.first_chunk().expect("a number")));
                silent = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}
