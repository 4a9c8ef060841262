//! What may happen to a server, one thing at a time.

use proptest::{
    collection::vec,
    option::weighted,
    prelude::*,
    sample::{Index, select},
};

/// Channel numbers, some of which cannot be bound.
const NUMBERS: [u16; 7] = [0x4000, 0x4001, 0x4002, 0x4003, 0x4FFF, 0x5000, 0x3FFF];

/// Whose credentials a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Own,
    OtherUser,
    Stranger,
    WrongPassword,
    /// No integrity attribute.
    Nobody,
    /// No realm.
    Incomplete,
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Allocate { lifetime: Option<u32>, family: Option<u8>, additional: bool, even: Option<bool>, token: Option<Index> },
    Refresh { lifetime: Option<u32>, family: Option<u8> },
    Permit { peers: Vec<usize>, malformed: bool },
    Bind { number: u16, peer: usize },
}

/// How far time goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Jump {
    By(u64),
    /// To the millisecond at which the next thing expires.
    ToDeadline,
    /// To the millisecond before.
    BeforeDeadline,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Request {
        client: usize,
        who: Who,
        style: usize,
        stale: bool,
        unknown: bool,
        action: Action,
    },
    /// The bytes of the client's last Allocate once more.
    Retransmit {
        client: usize,
    },
    Send {
        client: usize,
        peer: usize,
        len: usize,
        whole: bool,
        dont_fragment: bool,
    },
    ChannelData {
        client: usize,
        number: u16,
        len: usize,
        whole: bool,
    },
    FromPeer {
        relay: Index,
        peer: usize,
        len: usize,
    },
    FromIcmp {
        relay: Index,
        peer: usize,
        kind: u8,
    },
    Binding {
        client: usize,
    },
    Garbage {
        client: usize,
        bytes: Vec<u8>,
    },
    Close {
        client: usize,
    },
    Pass {
        jump: Jump,
        sweep: bool,
    },
}

/// Most things happen to the first two clients, so that much happens to each.
fn one_client(clients: usize) -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..2usize, 2 => 0..clients]
}

/// Most things are about the first five peers.
fn one_peer(peers: usize) -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..5usize, 1 => 0..peers]
}

pub(super) fn operation(clients: usize, peers: usize) -> impl Strategy<Value = Operation> {
    let len = || prop_oneof![4 => 0usize..40, 1 => 1190usize..1210];
    let often = prop::bool::weighted(0.95);
    prop_oneof![
        24 => request(clients, peers),
        2 => one_client(clients).prop_map(|client| Operation::Retransmit { client }),
        8 => (one_client(clients), one_peer(peers), len(), often, any::<bool>()).prop_map(
            |(client, peer, len, whole, dont_fragment)| Operation::Send { client, peer, len, whole, dont_fragment }
        ),
        8 => (one_client(clients), select(&NUMBERS), len(), often)
            .prop_map(|(client, number, len, whole)| Operation::ChannelData { client, number, len, whole }),
        10 => (any::<Index>(), one_peer(peers), len())
            .prop_map(|(relay, peer, len)| Operation::FromPeer { relay, peer, len }),
        2 => (any::<Index>(), one_peer(peers), 0u8..13)
            .prop_map(|(relay, peer, kind)| Operation::FromIcmp { relay, peer, kind }),
        1 => one_client(clients).prop_map(|client| Operation::Binding { client }),
        1 => (one_client(clients), vec(any::<u8>(), 0..30)).prop_map(|(client, bytes)| Operation::Garbage { client, bytes }),
        1 => one_client(clients).prop_map(|client| Operation::Close { client }),
        8 => (jump(), any::<bool>()).prop_map(|(jump, sweep)| Operation::Pass { jump, sweep }),
    ]
}

fn request(clients: usize, peers: usize) -> impl Strategy<Value = Operation> {
    let who = prop_oneof![
        40 => Just(Who::Own),
        1 => Just(Who::OtherUser),
        1 => Just(Who::Stranger),
        1 => Just(Who::WrongPassword),
        1 => Just(Who::Nobody),
        1 => Just(Who::Incomplete),
    ];
    let rarely = || prop::bool::weighted(0.03);
    (one_client(clients), who, 0usize..4, rarely(), rarely(), action(peers)).prop_map(
        |(client, who, style, stale, unknown, action)| Operation::Request {
            client,
            who,
            style,
            stale,
            unknown,
            action,
        },
    )
}

fn action(peers: usize) -> impl Strategy<Value = Action> {
    let lifetime = || weighted(0.6, select(&[0u32, 1, 600, 601, 900, 3600, u32::MAX]));
    let refreshed = weighted(0.8, select(&[0u32, 1, 601, 700, 900, 3600]));
    let family = || weighted(0.4, select(&[1u8, 1, 2, 2, 2, 3]));
    let allocate =
        (lifetime(), family(), prop::bool::weighted(0.4), weighted(0.2, any::<bool>()), weighted(0.15, any::<Index>()))
            .prop_map(|(lifetime, family, additional, even, token)| Action::Allocate {
                lifetime,
                // Most dual requests are good ones.
                family: family.filter(|_| !additional || token.is_some()),
                additional,
                even,
                token,
            });
    prop_oneof![
        8 => allocate,
        5 => (refreshed, family()).prop_map(|(lifetime, family)| Action::Refresh { lifetime, family }),
        6 => (vec(one_peer(peers), 0..4), prop::bool::weighted(0.05))
            .prop_map(|(peers, malformed)| Action::Permit { peers, malformed }),
        6 => (select(&NUMBERS), one_peer(peers)).prop_map(|(number, peer)| Action::Bind { number, peer }),
    ]
}

fn jump() -> impl Strategy<Value = Jump> {
    prop_oneof![
        3 => (0u64..2_000).prop_map(Jump::By),
        2 => (0u64..300_000).prop_map(Jump::By),
        1 => (0u64..4_000_000).prop_map(Jump::By),
        3 => Just(Jump::ToDeadline),
        2 => Just(Jump::BeforeDeadline),
    ]
}
