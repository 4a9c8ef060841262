//! A server with clients and peers of both families, and how they carry out a plan.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use turnserver::{
    stun::{AttributeType, ChannelNumber, Class, Message, Method},
    turn::Family,
};

use crate::{
    common::{
        LOOPBACK, PATIENCE, Server,
        client::{TurnClient, channel_data},
        datagram::{receive, receive_merged, receive_tos, send},
        ports::peer_socket,
    },
    plan::{CLIENTS as COUNT, End, Marked, PEERS, Plan, Way, relayed_family},
};

/// On a link: the addresses of the clients and peers, and of the server.
pub(crate) const CLIENTS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 20), Ipv6Addr::new(0x2001, 0xDB8, 1, 0, 0, 0, 0, 0x20));
pub(crate) const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 10), Ipv6Addr::new(0x2001, 0xDB8, 1, 0, 0, 0, 0, 0x10));

/// Runs what starts the server where that belongs.
pub(crate) type Start = Box<dyn FnOnce(Box<dyn FnOnce() -> Server + Send>) -> Server>;

/// Where a scene takes place.
pub(crate) enum Network {
    /// Everything on the loopback interface of this thread's network.
    Loopback,
    /// The server at the other end of a link.
    Link(Start),
}

/// The longest runs of datagrams that arrived as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) to_peer: usize,
    pub(crate) to_client: usize,
}

struct Client {
    turn: TurnClient,
    relayed: SocketAddr,
}

pub(crate) struct Scene {
    clients: Vec<Client>,
    peers: BTreeMap<(Family, usize), UdpSocket>,
    pub(crate) merged: Merged,
    _server: Server,
}

/// How a client reaches an end: by a channel, unless it has a permission only.
fn channel(client: usize, to: End) -> Option<ChannelNumber> {
    match to {
        End::Peer(_, 0) => Some(ChannelNumber(0x4000)),
        End::Peer(..) => None,
        End::Client(to) if to == client || client < to => Some(ChannelNumber(0x4100 + to as u16)),
        End::Client(_) => None,
    }
}

/// Whom a client talks with.
fn partners(client: usize) -> impl Iterator<Item = End> {
    let peers = (0..PEERS).map(move |peer| End::Peer(relayed_family(client), peer));
    peers.chain([End::Client(client), End::Client((client + 2) % COUNT)])
}

impl Scene {
    pub(crate) fn new(
        network: Network,
        udp_io: &str,
        workers: usize,
        prepare: impl FnOnce(&mut Command) + Send + 'static,
    ) -> Self {
        let configuration = LOOPBACK.replace("workers = 2", &format!("workers = {workers}\nudp-io = \"{udp_io}\""));
        let (server, near) = match network {
            Network::Loopback => {
                let near: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                (Server::start_as(None, &configuration, prepare), near)
            }
            Network::Link(start) => {
                let configuration = configuration
                    .replace("\"127.0.0.0/8\", \"::1\"", "\"203.0.113.0/24\", \"2001:db8::/32\"")
                    .replace("127.0.0.1", &SERVER.0.to_string())
                    .replace("::1\"", &format!("{}\"", SERVER.1));
                let server = start(Box::new(move || Server::start_as(None, &configuration, prepare)));
                (server, [CLIENTS.0.into(), CLIENTS.1.into()])
            }
        };
        let socket = |family: Family| {
            let socket = peer_socket(near[family as usize]);
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
            socket
        };
        let mut clients: Vec<Client> = (0..COUNT)
            .map(|at| {
                let listener = if at < 2 { server.ipv4("udp") } else { server.ipv6("udp") };
                let own = if at < 2 { Family::V4 } else { Family::V6 };
                let mut turn = TurnClient::new(socket(own), listener);
                let relayed = turn.allocate_of(relayed_family(at));
                Client { turn, relayed }
            })
            .collect();
        let peers: BTreeMap<_, _> = Family::ALL
            .into_iter()
            .flat_map(|family| (0..PEERS).map(move |at| (family, at)))
            .map(|end| (end, socket(end.0)))
            .collect();
        for at in 0..COUNT {
            for partner in partners(at) {
                let address = match partner {
                    End::Peer(family, peer) => peers[&(family, peer)].local_addr().expect("an address"),
                    End::Client(other) => clients[other].relayed,
                };
                match channel(at, partner) {
                    Some(number) => clients[at].turn.bind(number, address),
                    None => clients[at].turn.permit(address),
                }
            }
        }
        // Some take merged what comes merged, others as everybody did before that existed.
        clients.iter().step_by(2).for_each(|client| receive_merged(&client.turn.socket));
        peers.iter().filter(|((_, at), _)| *at == 0).for_each(|(_, socket)| receive_merged(socket));
        for socket in clients.iter().map(|client| &client.turn.socket).chain(peers.values()) {
            receive_tos(socket);
            socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        }
        Self { clients, peers, merged: Merged { to_peer: 0, to_client: 0 }, _server: server }
    }

    fn address(&self, end: End) -> SocketAddr {
        match end {
            End::Peer(family, at) => self.peers[&(family, at)].local_addr().expect("an address"),
            End::Client(at) => self.clients[at].relayed,
        }
    }

    /// Sends all that the plan says.
    pub(crate) fn carry_out(&mut self, plan: &Plan) {
        for burst in &plan.0 {
            let (from, to) = burst.way;
            let address = self.address(to);
            match from {
                End::Peer(family, at) => send(&self.peers[&(family, at)], &burst.payloads, address, burst.tos),
                End::Client(at) => {
                    let turn = &mut self.clients[at].turn;
                    let messages: Vec<_> = burst
                        .payloads
                        .iter()
                        .map(|data| match channel(at, to) {
                            Some(number) => channel_data(number, data),
                            None => turn.send_indication(address, data),
                        })
                        .collect();
                    send(&turn.socket, &messages, turn.server, burst.tos);
                }
            }
        }
    }

    /// Receives as much as is expected by everybody; returns what has come, by way, in order.
    pub(crate) fn collect(&mut self, expected: &BTreeMap<Way, Vec<Marked>>) -> BTreeMap<Way, Vec<Marked>> {
        let mut counts: BTreeMap<End, usize> = BTreeMap::new();
        for ((_, to), deliveries) in expected {
            *counts.entry(*to).or_default() += deliveries.len();
        }
        let mut all: BTreeMap<Way, Vec<Marked>> = BTreeMap::new();
        for (to, mut left) in counts {
            while left > 0 {
                let socket = match to {
                    End::Peer(family, at) => &self.peers[&(family, at)],
                    End::Client(at) => &self.clients[at].turn.socket,
                };
                let received =
                    receive(socket).unwrap_or_else(|error| panic!("{left} still to come for {to:?}: {error}"));
                let longest = match to {
                    End::Peer(..) => &mut self.merged.to_peer,
                    End::Client(_) => &mut self.merged.to_client,
                };
                *longest = (*longest).max(received.datagrams.len());
                left = left.checked_sub(received.datagrams.len()).expect("no more than was sent");
                for bytes in received.datagrams {
                    let (from, data) = self.open(to, received.source, bytes);
                    all.entry((from, to)).or_default().push(Marked { tos: received.tos, data });
                }
            }
        }
        all
    }

    /// From whom a received datagram is, and what it carries.
    fn open(&self, to: End, source: SocketAddr, bytes: Vec<u8>) -> (End, Vec<u8>) {
        let End::Client(client) = to else {
            let from = (0..COUNT).find(|at| self.clients[*at].relayed == source);
            return (End::Client(from.expect("a relayed address")), bytes);
        };
        assert_eq!(source, self.clients[client].turn.server);
        if bytes[0] >= 64 {
            let number = ChannelNumber(u16::from_be_bytes([bytes[0], bytes[1]]));
            let data = bytes[4..].to_vec();
            assert!(bytes == channel_data(number, &data), "the length is right");
            let from = partners(client).find(|end| channel(client, *end) == Some(number));
            return (from.expect("a channel that is bound"), data);
        }
        let message = Message::parse(&bytes).expect("a STUN message");
        assert_eq!((Method::from_code(message.method()), message.class()), (Some(Method::Data), Class::Indication));
        let peer = message.get_xor_address(AttributeType::XOR_PEER_ADDRESS).and_then(Result::ok).expect("a peer");
        let from = partners(client).find(|end| channel(client, *end).is_none() && self.address(*end) == peer);
        (from.expect("a peer without a channel"), message.get(AttributeType::DATA).expect("data").to_vec())
    }

    /// Nothing has come twice.
    pub(crate) fn expect_nothing_more(&self) {
        for socket in self.clients.iter().map(|client| &client.turn.socket).chain(self.peers.values()) {
            socket.set_nonblocking(true).expect("a mode");
            let more = receive(socket).map(|received| received.datagrams.len());
            assert!(more.is_err(), "{more:?} more");
        }
    }
}
