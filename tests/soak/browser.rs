//! What browsers do: gather over several servers, use one of the allocations, and let go of the others, or forget them.

use std::{net::SocketAddr, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::{
    caller::{Account, Caller},
    plan::SECRET,
    setup::{Peer, V4, V6},
    wire::{
        ADDITIONAL_ADDRESS_FAMILY, BINDING, EVEN_PORT, MOBILITY_TICKET, Msg, REFRESH, REQUESTED_ADDRESS_FAMILY,
        RESERVATION_TOKEN, SUCCESS, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, allocate, padded_channel_data,
    },
    world::{Way, World},
};

/// The credentials of a page last for long.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Candidates over some of the transports, of which one is used.
pub(crate) fn gather(world: &World, rng: &mut StdRng) {
    let ways: Vec<Way> = (0..rng.random_range(2..5)).map(|_| Way::any(rng)).collect();
    world.attempt("browsers gathered", || gather_over(world, rng, &ways));
    world.idle(Duration::from_millis(rng.random_range(200..1200)));
}

/// The same over all of them.
pub(crate) fn gather_over_everything(world: &World, rng: &mut StdRng) {
    world.attempt("browsers gathered", || gather_over(world, rng, &Way::ALL));
}

fn gather_over(world: &World, rng: &mut StdRng, ways: &[Way]) {
    let account = Account::lasting(SECRET, A_DAY, &format!("page-{}", world.user()));
    let mut candidates = Vec::new();
    for &way in ways {
        let mut caller = Caller::open(world, way, &account);
        let seen = caller.0.client.request(&Msg::new(BINDING));
        assert_eq!((seen.kind, seen.xor(XOR_MAPPED_ADDRESS)), (BINDING | SUCCESS, Some(caller.0.client.local)));
        let relayed = allocate_somehow(world, rng, &mut caller, &account);
        candidates.push((caller, relayed));
    }
    let (mut used, relayed) = candidates.swap_remove(rng.random_range(0..candidates.len()));
    short_call(world, rng, &mut used, relayed);
    candidates.push((used, relayed));
    for (mut caller, _) in candidates {
        if rng.random_bool(0.6) {
            caller.delete();
            world.count("allocations deleted");
        } else {
            world.abandon(caller.0.client);
            world.count("allocations abandoned");
        }
    }
}

/// As browsers ask, and now and then as others do.
fn allocate_somehow(world: &World, rng: &mut StdRng, caller: &mut Caller, account: &Account) -> SocketAddr {
    let family = |code: u8| move || allocate().attr(REQUESTED_ADDRESS_FAMILY, &[code, 0, 0, 0]);
    let reply = match rng.random_range(0..8) {
        0 => caller.succeed(&family(2)),
        1 => caller.succeed(&|| allocate().attr(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])),
        // One that may come back, and does not.
        2 => caller.succeed(&|| allocate().attr(MOBILITY_TICKET, &[])),
        3 => {
            let reply = caller.succeed(&|| allocate().attr(EVEN_PORT, &[0x80]));
            let token = reply.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
            if rng.random() {
                let mut second = Caller::open(world, Way::any(rng), account);
                second.succeed(&|| allocate().attr(RESERVATION_TOKEN, &token));
                world.abandon(second.0.client);
                world.count("reserved ports taken");
            } else {
                world.count("reserved ports left");
            }
            reply
        }
        _ => caller.succeed(&allocate),
    };
    world.count("allocations made");
    reply.xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS")
}

/// Some seconds at most, of a few numbered datagrams.
fn short_call(world: &World, rng: &mut StdRng, caller: &mut Caller, relayed: SocketAddr) {
    let peer = Peer::new(if relayed.is_ipv6() { V6 } else { V4 });
    caller.permit(peer.address);
    caller.bind(0x4000, peer.address);
    for number in 0..rng.random_range(2..8u8) {
        let data = [number; 500];
        caller.0.client.send(&padded_channel_data(0x4000, &data));
        assert_eq!(peer.receive(), (data.to_vec(), relayed));
        peer.send(&data, relayed);
        assert_eq!(caller.0.client.channel(), (0x4000, data.to_vec()));
        world.idle(Duration::from_millis(rng.random_range(100..600)));
    }
    caller.refresh();
}

/// A credential that ends while it is used: with it ends the allocation, whoever would refresh it.
pub(crate) fn credential_ends(world: &World, rng: &mut StdRng) {
    let way = Way::any(rng);
    world.attempt("credentials ended", || {
        let account = Account::lasting(SECRET, Duration::from_secs(6), &format!("guest-{}", world.user()));
        let mut caller = Caller::open(world, way, &account);
        let relayed = caller.allocate();
        let peer = Peer::new(V4);
        caller.permit(peer.address);
        caller.bind(0x4001, peer.address);
        peer.send(b"in time", relayed);
        assert_eq!(caller.0.client.channel().1, b"in time");
        // The server says by itself when it is over, at the latest to whoever asks.
        let mut refused = None;
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(100));
            refused = caller.call(&|| Msg::new(REFRESH)).error();
            if refused.is_some() {
                break;
            }
        }
        assert_eq!(refused, Some(401));
        world.abandon(caller.0.client);
    });
}
