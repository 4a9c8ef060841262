//! TCP connections that are relayed (RFC 6062): asked for by clients and by peers, bound, or left.

use std::{net::TcpStream, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::{
    caller::{Account, Caller},
    client::{Event, PATIENCE},
    common::ports::peer_listener,
    setup::V4,
    wire::{
        CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND, CONNECTION_ID, INDICATION, Msg, XOR_RELAYED_ADDRESS, allocate_tcp,
    },
    world::{Way, World},
};

/// Bytes of each connection and direction.
const BYTES: usize = 40_000;

/// An allocation with some connections.
pub(crate) fn connections(world: &World, rng: &mut StdRng) {
    world.attempt("allocations of TCP", || {
        let account = Account::of("alice");
        let way = if rng.random() { Way::Tcp4 } else { Way::Tls4 };
        let mut caller = Caller::open(world, way, &account);
        let relayed = caller.succeed(&allocate_tcp).xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS");

        let listener = peer_listener(V4);
        let peer = listener.local_addr().expect("an address");
        let reply = caller.succeed(&|| Msg::new(CONNECT).peer(peer));
        let id = reply.u32(CONNECTION_ID).expect("CONNECTION-ID");
        let (at_peer, _) = listener.accept().expect("a connection");
        pass_bytes(world, &account, Some(id), at_peer);
        world.count("connections to peers");

        caller.permit(peer);
        let at_peer = TcpStream::connect_timeout(&relayed, PATIENCE).expect("to connect");
        let Event::Stun(attempt) = caller.0.client.event() else { panic!("channel data of nobody") };
        assert_eq!(attempt.kind, CONNECTION_ATTEMPT | INDICATION);
        let id = attempt.u32(CONNECTION_ID).expect("CONNECTION-ID");
        if rng.random() {
            pass_bytes(world, &account, Some(id), at_peer);
            world.count("connections of peers");
        } else {
            // The server closes it.
            pass_bytes(world, &account, None, at_peer);
            world.count("connections of peers left");
        }
        let nobody = peer_listener(V4).local_addr().expect("an address");
        caller.fail(&|| Msg::new(CONNECT).peer(nobody), 447);
        if rng.random() {
            caller.delete();
        }
    });
    world.idle(Duration::from_millis(rng.random_range(500..1500)));
}

/// Passes bytes both ways, or waits for the end of a connection that nobody binds.
fn pass_bytes(world: &World, account: &Account, id: Option<u32>, mut at_peer: TcpStream) {
    use std::io::{Read, Write};
    at_peer.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let Some(id) = id else {
        // An orderly end or a reset, but no bytes and no silence.
        match at_peer.read(&mut [0; 16]) {
            Ok(0) => return,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            other => panic!("not closed: {other:?}"),
        }
    };
    let mut data = Caller::open(world, Way::Tcp4, account);
    data.succeed(&|| Msg::new(CONNECTION_BIND).u32(CONNECTION_ID, id));
    let (mut at_client, early) = data.0.client.into_stream();
    assert!(early.is_empty(), "bytes that the peer has not sent");
    at_client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let sent: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
    let mut received = vec![0; BYTES];
    at_client.write_all(&sent).expect("writing to the server");
    at_peer.read_exact(&mut received).expect("reading at the peer");
    assert!(received == sent, "bytes altered on the way to the peer");
    at_peer.write_all(&sent).expect("writing at the peer");
    at_client.read_exact(&mut received).expect("reading from the server");
    assert!(received == sent, "bytes altered on the way to the client");
}
