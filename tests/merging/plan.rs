//! What is to be sent: by whom, to whom, of which sizes, marked how, in one piece or in several. The same for every server.

use std::{collections::BTreeMap, fmt};

use rand::{RngExt, rngs::StdRng};
use turnserver::turn::Family;

/// Clients; each family of client with each family of relayed address.
pub(crate) const CLIENTS: usize = 4;
/// Peers of each family.
pub(crate) const PEERS: usize = 2;

/// The family of a client's relayed address.
pub(crate) const fn relayed_family(client: usize) -> Family {
    if client.is_multiple_of(2) { Family::V4 } else { Family::V6 }
}

/// Somebody that data come from or go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Peer(Family, usize),
    /// A client, known to others by its relayed address.
    Client(usize),
}

/// From and to whom.
pub(crate) type Way = (End, End);

/// Data with their traffic class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) tos: u8,
    pub(crate) data: Vec<u8>,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes beginning with {:02x?}, tos {:#04x}",
            self.data.len(),
            self.data.first_chunk::<4>(),
            self.tos
        )
    }
}

/// Sent one after the other; as one where they are several.
pub(crate) struct Burst {
    pub(crate) way: Way,
    pub(crate) tos: u8,
    pub(crate) payloads: Vec<Vec<u8>>,
}

/// What is under way at once.
pub(crate) struct Plan(pub(crate) Vec<Burst>);

/// As much as the kernel's ordinary buffers hold, whatever comes first.
const MOST_DATAGRAMS: usize = 80;
const MOST_BYTES: usize = 60_000;
/// Longest payload that is sent merged: with all headers it fits every link of the tests but the narrow one.
const LONGEST_MERGED: usize = 1400;
/// EF, AF41, none; not ECN-capable, both forms of ECN-capable, congestion experienced.
const CLASSES: [u8; 6] = [0, 0xB8, 0x88 | 2, 0xB8 | 1, 2, 3];

impl Plan {
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        let mut plan = Self(Vec::new());
        let (mut datagrams, mut bytes) = (0, 0);
        for _ in 0..rng.random_range(1..5) {
            let bursts = if rng.random() { vec![run(rng)] } else { mixture(rng) };
            let payloads = || bursts.iter().flat_map(|burst| &burst.payloads);
            datagrams += payloads().count();
            bytes += payloads().map(Vec::len).sum::<usize>();
            if datagrams > MOST_DATAGRAMS || bytes > MOST_BYTES {
                break;
            }
            plan.0.extend(bursts);
        }
        plan
    }

    /// What must arrive, by way, in order.
    pub(crate) fn deliveries(&self, with_tos: bool) -> BTreeMap<Way, Vec<Marked>> {
        let mut all: BTreeMap<Way, Vec<Marked>> = BTreeMap::new();
        for burst in &self.0 {
            let tos = if with_tos { burst.tos } else { 0 };
            let marked = burst.payloads.iter().map(|data| Marked { tos, data: data.clone() });
            all.entry(burst.way).or_default().extend(marked);
        }
        all
    }
}

/// Any way on which there is data: between a client and a peer, or from client to client, itself perhaps.
fn way(rng: &mut StdRng) -> Way {
    let client = rng.random_range(0..CLIENTS);
    let peer = End::Peer(relayed_family(client), rng.random_range(0..PEERS));
    match rng.random_range(0..6) {
        0 | 1 => (End::Client(client), peer),
        2 | 3 => (peer, End::Client(client)),
        4 => (End::Client(client), End::Client(client)),
        _ => (End::Client(client), End::Client((client + 2) % CLIENTS)),
    }
}

fn payload(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::Rng::fill_bytes(rng, &mut bytes);
    bytes
}

/// Datagrams of one length, the last perhaps shorter.
fn run(rng: &mut StdRng) -> Burst {
    let len = *[1usize, 2, 3, 4, 160, 161, 999, 1200, LONGEST_MERGED].get(rng.random_range(0..9)).expect("one of them");
    let count = rng.random_range(2..30).min(MOST_BYTES / len);
    let mut payloads: Vec<Vec<u8>> = (0..count).map(|_| payload(rng, len)).collect();
    if rng.random() {
        // What comes from a peer has no header: nothing of nothing is left.
        let last = rng.random_range(1..=len);
        payloads[count - 1].truncate(last);
    }
    Burst { way: way(rng), tos: class(rng), payloads }
}

/// Single datagrams of any length, mark and way, often the same as the one before.
fn mixture(rng: &mut StdRng) -> Vec<Burst> {
    let (mut current, mut tos, mut len) = (way(rng), class(rng), 160);
    let count = rng.random_range(1..40);
    (0..count)
        .map(|_| {
            if rng.random_bool(0.4) {
                current = way(rng);
            }
            if rng.random_bool(0.2) {
                tos = class(rng);
            }
            if rng.random_bool(0.3) {
                len = match rng.random_range(0..12) {
                    0 | 1 => 0,
                    2..6 => rng.random_range(1..200),
                    6..10 => rng.random_range(200..1500),
                    // Around what a link takes in one piece, and above.
                    10 => rng.random_range(1430..1480),
                    _ => rng.random_range(1500..4500),
                };
            }
            Burst { way: current, tos, payloads: vec![payload(rng, len)] }
        })
        .collect()
}

fn class(rng: &mut StdRng) -> u8 {
    CLASSES[rng.random_range(0..CLASSES.len())]
}
