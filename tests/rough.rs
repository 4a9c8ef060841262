//! TURN over UDP and DTLS on a path that loses datagrams and changes their order. The path is a forwarder of the test's own, so that
//! no kernel module is needed.

mod client;
mod common;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use client::{Client, Refused};
use common::{
    PASSWORD, Server, USER,
    dtls::{handshake, prepare},
    loopback_with_dtls,
    ports::peer_socket,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How long a datagram is held back at most, so that a later one can overtake it.
const DELAY: Duration = Duration::from_millis(20);
/// Datagrams sent at a time in each direction.
const BURST: u8 = 100;

/// What has happened on the path, in both directions.
#[derive(Debug, Default)]
struct Fate {
    lost: AtomicUsize,
    overtaken: AtomicUsize,
}

/// A path to a server for one client.
struct Path {
    address: SocketAddr,
    fate: Arc<Fate>,
    over: Arc<AtomicBool>,
    ways: Vec<JoinHandle<()>>,
}

impl Path {
    /// Loses so many of 100 datagrams; of the others one in four is held back. Which of them, depends on `seed`.
    fn to(server: SocketAddr, loss: u32, seed: u64) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let (front, back) = (Arc::new(bind()), Arc::new(bind()));
        back.connect(server).expect("connecting a socket");
        let address = front.local_addr().expect("its address");
        let (fate, over, client) = (Arc::<Fate>::default(), Arc::<AtomicBool>::default(), Arc::new(OnceLock::new()));
        let way = |from: &Arc<UdpSocket>, to: &Arc<UdpSocket>, up: bool| {
            from.set_read_timeout(Some(DELAY)).expect("a time limit");
            let (from, to, fate) = (Arc::clone(from), Arc::clone(to), Arc::clone(&fate));
            let (over, client) = (Arc::clone(&over), Arc::clone(&client));
            let forward = move |datagram: &[u8]| {
                // What the system will not take is lost, too.
                let _ = match client.get() {
                    Some(client) if !up => to.send_to(datagram, client),
                    _ => to.send(datagram),
                };
            };
            (from, forward, fate, over)
        };
        let mut ways = Vec::new();
        for (number, (from, to, up)) in [(&front, &back, true), (&back, &front, false)].into_iter().enumerate() {
            let (from, forward, fate, over) = way(from, to, up);
            let client = Arc::clone(&client);
            let mut rng = StdRng::seed_from_u64(seed * 2 + number as u64);
            ways.push(thread::spawn(move || {
                let (mut buffer, mut held) = ([0; 2048], None::<Vec<u8>>);
                while !over.load(Relaxed) {
                    let Ok((len, source)) = from.recv_from(&mut buffer) else {
                        held.take().into_iter().for_each(|late| forward(&late));
                        continue;
                    };
                    if up {
                        client.get_or_init(|| source);
                    }
                    if rng.random_ratio(loss, 100) {
                        fate.lost.fetch_add(1, Relaxed);
                    } else if held.is_none() && rng.random_ratio(1, 4) {
                        held = Some(buffer[..len].to_vec());
                    } else {
                        forward(&buffer[..len]);
                        if let Some(late) = held.take() {
                            fate.overtaken.fetch_add(1, Relaxed);
                            forward(&late);
                        }
                    }
                }
            }));
        }
        Self { address, fate, over, ways }
    }

    /// Ends it; returns how many datagrams were lost and overtaken.
    fn end(self) -> (usize, usize) {
        self.over.store(true, Relaxed);
        self.ways.into_iter().for_each(|way| way.join().expect("the path held"));
        (self.fate.lost.load(Relaxed), self.fate.overtaken.load(Relaxed))
    }
}

/// Sets up, relays numbered data both ways, and takes down.
fn session(client: &mut Client, loss: u32) {
    let relayed = client.allocate().expect("an allocation");
    let peer = peer_socket(Ipv4Addr::LOCALHOST.into());
    let address = peer.local_addr().expect("its address");
    client.permit(address).expect("a permission");
    for number in 0..BURST {
        client.send(address, &[number]);
    }
    peer.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
    let (mut up, mut buffer) = (Vec::new(), [0; 10]);
    while let Ok((len, from)) = peer.recv_from(&mut buffer) {
        assert_eq!((len, from), (1, relayed));
        up.push(buffer[0]);
    }
    for number in 0..BURST {
        peer.send_to(&[number], relayed).expect("sending");
    }
    let down: Vec<u8> = (0..BURST / 2).map(|_| client.receive()[0]).collect();
    for (way, mut numbers) in [("up", up), ("down", down)] {
        eprintln!("{loss} % lost, {way}: {} datagrams arrive", numbers.len());
        assert!(numbers.len() >= usize::from(BURST) / 2, "{way}: {numbers:?}");
        assert!(!numbers.is_sorted(), "nothing was overtaken {way}: {numbers:?}");
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "twice {way}: {numbers:?}");
    }
    // The answer to the first attempt may have been lost.
    assert!(matches!(client.delete(), Ok(()) | Err(Refused(437))));
}

fn on_a_rough_path(transport: &str, loss: u32) {
    let server = Server::start(&loopback_with_dtls());
    let credentials = Some((USER, PASSWORD));
    let path = |seed| Path::to(server.ipv4(transport), loss, seed);
    let (mut client, path) = if transport == "udp" {
        let path = path(0);
        (Client::new("udp", path.address, credentials), path)
    } else {
        // The server gives a handshake up after ten seconds, and the client begins anew from another port.
        let attempt = |seed| {
            let path = path(seed);
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            socket.connect(path.address).expect("connecting a socket");
            let mut stream = prepare(server.folder(), socket);
            handshake(&mut stream, Duration::from_secs(10)).then_some((stream, path))
        };
        let (stream, path) = (0..5).find_map(attempt).expect("a handshake");
        (Client::over_dtls(stream, credentials), path)
    };
    session(&mut client, loss);
    let (lost, overtaken) = path.end();
    assert!(lost > 0 && overtaken > 0, "the path was smooth: {lost} lost, {overtaken} overtaken");
    server.stop();
}

#[test]
fn turn_over_udp_at_5_percent() {
    on_a_rough_path("udp", 5);
}

#[test]
fn turn_over_udp_at_20_percent() {
    on_a_rough_path("udp", 20);
}

#[test]
fn turn_over_dtls_at_5_percent() {
    on_a_rough_path("dtls", 5);
}

#[test]
fn turn_over_dtls_at_20_percent() {
    on_a_rough_path("dtls", 20);
}
