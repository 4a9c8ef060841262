//! Peers that clients name: in CreatePermission, ChannelBind, Connect and Send, before and after an allocation moves, and where
//! clients are redirected.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    setup::{Server, Session},
    support::{Client, Clients, on_a_host, refused, relayed, start, with_default_rules},
    table::{Expected, ORDINARY, Spelling, addresses, expected, rows},
    wire::{
        ALLOCATE, ALTERNATE_SERVER, CHANNEL_BIND, CONNECT, CREATE_PERMISSION, MOBILITY_TICKET, Msg, REFRESH,
        REQUESTED_ADDRESS_FAMILY, XOR_RELAYED_ADDRESS, allocate, send,
    },
};

/// A port that no server listens on.
fn peer(ip: IpAddr) -> SocketAddr {
    (ip, 4000).into()
}

/// Rows may be many for one allocation's permissions.
fn each_row(server: &Server, mut check: impl FnMut(&mut Clients, IpAddr, &str)) {
    for row in rows() {
        let mut clients = Clients::new(server);
        for ip in BTreeSet::from(addresses(row)) {
            check(&mut clients, ip, &format!("{} {}", row.0, row.3));
        }
    }
}

#[test]
fn every_special_range_is_as_the_table_says_when_nothing_is_opened() {
    on_a_host(|| {
        let server = with_default_rules();
        each_row(&server, |clients, ip, why| match expected(ip) {
            Expected::Open => clients.of(ip).is_served(peer(ip), why),
            _ => clients.of(ip).is_refused(peer(ip), why),
        });
        let mut clients = Clients::new(&server);
        for ip in ORDINARY.iter().map(|ip| ip.parse().unwrap()) {
            clients.of(ip).is_served(peer(ip), "an ordinary address");
        }
    });
}

/// All that an operator can open, each range by its own prefix.
fn everything_opened() -> String {
    let closed = rows().filter(|row| row.2 == Expected::Closed).map(|row| format!("{:?}", row.0));
    format!("[\"0.0.0.0/0\", \"::/0\", {}]", closed.collect::<Vec<_>>().join(", "))
}

#[test]
fn what_is_never_a_peer_is_none_when_everything_is_opened() {
    on_a_host(|| {
        let server = start(&[("peers.allowed-peer-ip", &everything_opened())]);
        let local_nat64: ipnet::IpNet = "64:ff9b:1::/48".parse().unwrap();
        each_row(&server, |clients, ip, why| match expected(ip) {
            Expected::Never => clients.of(ip).is_refused(peer(ip), why),
            // The first address of it embeds none that is a peer, the others none at all.
            _ if local_nat64.contains(&ip) => clients.of(ip).is_refused(peer(ip), why),
            _ => clients.of(ip).is_served(peer(ip), why),
        });
    });
}

/// The addresses of each row of IPv4, and two ordinary ones.
fn inner() -> impl Iterator<Item = Ipv4Addr> {
    let special = rows().flat_map(addresses).filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let all: BTreeSet<_> = special.chain([Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(192, 0, 3, 0)]).collect();
    all.into_iter()
}

#[test]
fn no_spelling_of_an_ipv4_address_gets_around_what_is_said_of_it() {
    on_a_host(|| {
        let server = with_default_rules();
        for spelling in Spelling::ALL {
            let mut client = Client::new(&server, false);
            for inner in inner() {
                let ip = peer(spelling.of(inner).into());
                let (expected, why) = spelling.expected(inner);
                match expected {
                    Expected::Open => client.is_served(ip, why),
                    _ => client.is_refused(ip, why),
                }
            }
        }
        // As themselves, but for an allocation of the other family.
        for (ipv4, ip) in [(false, "10.0.0.1"), (false, "8.8.8.8"), (true, "2002:a00:1::1"), (true, "::ffff:10.0.0.1")]
        {
            let mut client = Client::new(&server, ipv4);
            for error in client.requests(peer(ip.parse().unwrap())) {
                assert!(matches!(error, Some(403 | 443)), "{ip}: {error:?}");
            }
        }
    });
}

#[test]
fn no_spelling_gets_around_what_is_never_a_peer_when_everything_is_opened() {
    on_a_host(|| {
        let server = start(&[("peers.allowed-peer-ip", &everything_opened())]);
        for spelling in Spelling::ALL {
            let mut client = Client::new(&server, false);
            for inner in inner() {
                let ip = peer(spelling.of(inner).into());
                let (outer, why) = spelling.expected(inner);
                // Loopback behind a translator or a tunnel is another host's, or this one's by a detour.
                let inner_is_peer = expected(inner.into()) != Expected::Never && !inner.is_loopback();
                let served = match (spelling, outer) {
                    (_, Expected::Never) => false,
                    (Spelling::Nat64 | Spelling::Isatap(_) | Spelling::IsatapLinkLocal, _) => inner_is_peer,
                    // Taken for what a prefix of 48 bits embeds, which is mostly nothing.
                    (Spelling::Nat64Local(_), _) => match spelling.of(inner).octets() {
                        [_, _, _, _, _, _, a, b, 0, c, d, 0, 0, 0, 0, 0] => {
                            a != 127 && expected([a, b, c, d].into()) != Expected::Never
                        }
                        _ => false,
                    },
                    _ => true,
                };
                if served { client.is_served(ip, why) } else { client.is_refused(ip, why) }
            }
        }
    });
}

#[test]
fn a_translator_that_is_opened_serves_ordinary_addresses_alone() {
    on_a_host(|| {
        for (prefix, len) in [
            ("64:ff9b:1::/48", 48),
            ("64:ff9b:1:ab00::/56", 56),
            ("64:ff9b:1:abcd::/64", 64),
            ("64:ff9b:1:abcd::/96", 96),
        ] {
            let server = start(&[("peers.allowed-peer-ip", &format!("{prefix:?}"))]);
            let mut client = Client::new(&server, false);
            for inner in inner() {
                let ip = peer(Spelling::Nat64Local(len).of(inner).into());
                match expected(inner.into()) {
                    Expected::Open => client.is_served(ip, prefix),
                    _ => client.is_refused(ip, prefix),
                }
            }
        }
    });
}

#[test]
fn data_to_refused_peers_go_nowhere() {
    on_a_host(|| {
        let server = with_default_rules();
        let mut clients = [1u8, 2].map(|family| {
            let mut session = Session::udp(&server);
            session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
            session
        });
        let plain = rows().flat_map(addresses);
        let spelt = Spelling::ALL.into_iter().flat_map(|spelling| inner().map(move |ip| spelling.of(ip).into()));
        let (before, mut sent) = (refused(&server), 0);
        for ip in plain.chain(spelt) {
            // Nothing was permitted, so that ordinary peers are none, either.
            let session = &mut clients[usize::from(ip.is_ipv6())];
            session.send(&send(peer(ip), b"data").0);
            sent += 1;
            if sent % 16 == 0 {
                // Not faster than they are taken.
                assert!(session.fence().is_empty());
            }
        }
        for session in &mut clients {
            assert!(session.fence().is_empty());
        }
        assert_eq!((refused(&server) - before, relayed(&server)), (sent, 0));
    });
}

#[test]
fn an_allocation_that_has_moved_is_held_to_the_same_rules() {
    on_a_host(|| {
        let server = start(&[("peers.allowed-peer-ip", ""), ("process.workers", "4")]);
        for _ in 0..6 {
            let mut first = Session::udp(&server);
            let granted = first.succeed(allocate().attr(MOBILITY_TICKET, &[]));
            let relayed_address = granted.xor(XOR_RELAYED_ADDRESS).unwrap();
            let mut second = Session::udp(&server);
            let ticket = granted.get(MOBILITY_TICKET).unwrap().to_vec();
            // A peer that comes with a ticket is none.
            second.succeed(Msg::new(REFRESH).attr(MOBILITY_TICKET, &ticket).peer(peer([10, 0, 0, 1].into())));
            for ip in [[10, 0, 0, 1], [127, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0], [224, 0, 0, 1]] {
                second.fail(Msg::new(CREATE_PERMISSION).peer(peer(ip.into())), 403);
                second.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer(ip.into())), 403);
                second.send_to(peer(ip.into()), b"data");
            }
            second.fail(Msg::new(CHANNEL_BIND).channel(0x4001).peer(server.ipv4("udp")), 403);
            second.send_to(server.ipv4("udp"), &allocate().0);
            assert!(second.fence().is_empty());
            second.bind(0x4002, relayed_address);
        }
        assert_eq!(relayed(&server), 0);
    });
}

#[test]
fn a_server_that_redirects_serves_no_peer_and_tells_of_none_but_its_own() {
    on_a_host(|| {
        let server = start(&[("peers.allowed-peer-ip", ""), ("redirect.alternate-server", "[\"192.0.2.2:3478\"]")]);
        let mut session = Session::over(crate::client::Client::udp(server.ipv4("udp")), crate::setup::ALICE);
        // What a client names as a peer or as its own is no place to be redirected to.
        let reply = session.call(
            Msg::new(ALLOCATE).attr(crate::wire::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).peer(peer([10, 0, 0, 1].into())),
        );
        assert_eq!(reply.error(), Some(300));
        assert_eq!(reply.plain(ALTERNATE_SERVER), Some("192.0.2.2:3478".parse().unwrap()));
        for kind in [CREATE_PERMISSION, CONNECT, CHANNEL_BIND] {
            session.fail(Msg::new(kind).channel(0x4000).peer(peer([8, 8, 8, 8].into())), 437);
        }
        session.send_to(peer([8, 8, 8, 8].into()), b"data");
        assert!(session.fence().is_empty());
        assert_eq!(relayed(&server), 0);
    });
}
