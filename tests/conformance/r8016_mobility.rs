//! RFC 8016: mobility. Every server here has four workers, and every test runs with many clients, so that the 5-tuple that an
//! allocation moves to is another worker's more often than not.

use std::net::SocketAddr;

use crate::client::Client;
use crate::setup::{ALICE, BOB, Peer, Server, Session, V4, server};
use crate::wire::{
    ALLOCATE, CONNECT, CONNECTION_BIND, CONNECTION_ID, CREATE_PERMISSION, LIFETIME, MOBILITY_TICKET, Msg, REFRESH,
    Reply, XOR_RELAYED_ADDRESS, allocate, allocate_tcp, padded_channel_data,
};

/// Moves in each test: three of four go to another worker.
const ROUNDS: usize = 8;

fn mobile_server() -> Server {
    server(&[("process.workers", "4")])
}

fn asking() -> Msg {
    allocate().attr(MOBILITY_TICKET, &[])
}

fn showing(ticket: &[u8]) -> Msg {
    Msg::new(REFRESH).attr(MOBILITY_TICKET, ticket)
}

fn ticket(reply: &Reply) -> Vec<u8> {
    reply.get(MOBILITY_TICKET).expect("a ticket").to_vec()
}

/// An allocation with a channel to a peer.
struct Call {
    session: Session,
    ticket: Vec<u8>,
    relayed: SocketAddr,
    peer: Peer,
}

impl Call {
    fn new(mut session: Session) -> Self {
        let reply = session.succeed(asking());
        let relayed = reply.xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS");
        let peer = Peer::new(V4);
        session.bind(0x4000, peer.address);
        Self { session, ticket: ticket(&reply), relayed, peer }
    }

    /// Shows the ticket from another 5-tuple, which is not used for data yet; returns the session before.
    fn show(&mut self, mut to: Session) -> Session {
        let reply = to.succeed(showing(&self.ticket));
        assert_ne!(ticket(&reply), self.ticket);
        self.ticket = ticket(&reply);
        std::mem::replace(&mut self.session, to)
    }

    /// The session's data reach the peer, by the channel.
    fn sends(&self, from: &mut Session, data: &[u8]) {
        from.send(&padded_channel_data(0x4000, data));
        assert_eq!(self.peer.receive(), (data.to_vec(), self.relayed));
    }

    /// The peer's data reach this session, by the channel.
    fn receives(&self, to: &mut Session, data: &[u8]) {
        self.peer.send(data, self.relayed);
        assert_eq!(to.client.channel(), (0x4000, data.to_vec()));
    }

    fn both_ways(mut self) -> Self {
        for _ in 0..3 {
            self.session.send(&padded_channel_data(0x4000, b"there"));
            assert_eq!(self.peer.receive(), (b"there".to_vec(), self.relayed));
            self.peer.send(b"and back", self.relayed);
            assert_eq!(self.session.client.channel(), (0x4000, b"and back".to_vec()));
        }
        self
    }
}

#[test]
fn r8016_3_1_2_01_3_2_2_01_forbidden_where_the_operator_says_so() {
    let server = server(&[("relay.mobility", "false")]);
    for mut session in Session::each(&server) {
        session.fail(asking(), 405);
        session.fail(showing(&[7; 42]), 405);
        session.allocate();
    }
}

/// Its connections end with the client's (RFC 6062 §5.5).
#[test]
fn a_tcp_allocation_has_no_ticket() {
    let server = server(&[("process.workers", "4"), ("relay.tcp-relaying", "true")]);
    for mut session in [Session::tcp(&server), Session::tls(&server)] {
        session.fail(allocate_tcp().attr(MOBILITY_TICKET, &[]), 405);
        session.allocate_with(allocate_tcp());
    }
}

/// Nor does a connection become one while an allocation, of whichever worker, may move to it, or has moved.
#[test]
fn a_client_data_connection_is_nobodys_to_move() {
    let server = server(&[("process.workers", "4"), ("relay.tcp-relaying", "true")]);
    let mut call = Call::new(Session::udp(&server));
    for _ in 0..ROUNDS {
        call.show(Session::tcp(&server));
        call.session.fail(Msg::new(CONNECTION_BIND).u32(CONNECTION_ID, 7), 400);
        call = call.both_ways();
        call.session.fail(Msg::new(CONNECTION_BIND).u32(CONNECTION_ID, 7), 400);
        // The allocation is one of UDP.
        call.session.fail(Msg::new(CONNECT).peer(call.peer.address), 437);
    }
}

#[test]
fn r8016_3_1_2_02_an_allocate_with_a_ticket_is_a_bad_request() {
    let server = mobile_server();
    for mut session in Session::each(&server) {
        session.fail(allocate().attr(MOBILITY_TICKET, &[1]), 400);
    }
}

#[test]
fn r8016_3_1_2_04_05_06_5_02_a_ticket_for_who_asks() {
    let server = mobile_server();
    let mut tickets = Vec::new();
    for mut session in Session::each(&server) {
        let request = session.sign(asking());
        session.client.send(&request.0);
        let reply = session.call_signed(&request);
        assert!(reply.get(MOBILITY_TICKET).is_some_and(|ticket| !ticket.is_empty() && ticket.len() < 400));
        tickets.push(ticket(&reply));
        assert!(!session.succeed(Msg::new(REFRESH)).has(MOBILITY_TICKET));
    }
    let same = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    assert!(same(&tickets[0], &tickets[1]) < 10 && same(&tickets[1], &tickets[2]) < 10);
    assert!(!Session::udp(&server).succeed(allocate()).has(MOBILITY_TICKET));
}

#[test]
fn r8016_3_2_2_02_07_08_09_10_11_15_an_allocation_moves_between_workers_transports_and_families() {
    let server = mobile_server();
    let open = [
        |server: &Server| Session::udp(server),
        |server: &Server| Session::tcp(server),
        |server: &Server| Session::tls(server),
        |server: &Server| Session::dtls(server),
        |server: &Server| Session::over(Client::udp(server.ipv6("udp")), ALICE),
        |server: &Server| Session::over(Client::tcp(server.ipv6("tcp")), ALICE),
    ];
    for from in open {
        let mut call = Call::new(from(&server)).both_ways();
        for to in open.iter().cycle().take(2 * open.len()) {
            let mut old = call.show(to(&server));
            // Requests are served on both, data go to the old one.
            let mut new = std::mem::replace(&mut call.session, Session::udp(&server));
            new.succeed(Msg::new(CREATE_PERMISSION).peer(call.peer.address));
            call.receives(&mut old, b"still here");
            call.sends(&mut old, b"from here");
            new.fail(Msg::new(ALLOCATE).attr(crate::wire::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), 437);
            call.receives(&mut old, b"still here");
            call.sends(&mut new, b"arrived");
            call.receives(&mut new, b"moved");
            old.send(&padded_channel_data(0x4000, b"late"));
            assert!(old.fence().is_empty());
            old.fail(Msg::new(REFRESH), 437);
            call.session = new;
            call = call.both_ways();
        }
        call.session.delete();
    }
    let log = server.stop();
    assert_eq!(log.matches("session moves").count(), 2 * open.len() * open.len(), "each move once");
    assert_eq!(log.matches("session ends").count(), open.len());
}

#[test]
fn r8016_3_2_2_03_the_allocation_is_gone() {
    let server = mobile_server();
    for mut session in Session::each(&server) {
        let ticket = ticket(&session.succeed(asking()));
        session.delete();
        for _ in 0..ROUNDS {
            Session::udp(&server).fail(showing(&ticket), 437);
            Session::tcp(&server).fail(showing(&ticket), 437);
        }
    }
}

#[test]
fn r8016_3_2_2_04_5_01_h13_forged_tickets_move_nothing() {
    let server = mobile_server();
    let call = Call::new(Session::udp(&server));
    let mut session = Session::udp(&server);
    for at in 0..call.ticket.len() {
        let mut forged = call.ticket.clone();
        forged[at] ^= 0x04;
        session.fail(showing(&forged), 400);
    }
    for len in [0, 1, 16, call.ticket.len() - 1, call.ticket.len() + 1, 300] {
        session.fail(showing(&vec![0xA5; len]), 400);
    }
    call.both_ways();
}

#[test]
fn r8016_3_2_2_05_06_12_5_03_who_may_not_use_a_ticket() {
    let server = mobile_server();
    let mut call = Call::new(Session::udp(&server));
    call.session.fail(showing(&call.ticket), 400);
    for _ in 0..ROUNDS {
        Session::bob(&server).fail(showing(&call.ticket), 441);
        let mut other = Session::over(Client::tcp(server.ipv4("tcp")), BOB);
        other.fail(showing(&call.ticket), 441);
        // Its connection is its own again.
        other.allocate();
        assert_eq!(Client::udp(server.ipv4("udp")).request(&showing(&call.ticket)).error(), Some(401));
        let mut owner = Session::udp(&server);
        owner.allocate();
        owner.fail(showing(&call.ticket), 437);
    }
    let first = call.ticket.clone();
    call.show(Session::udp(&server));
    // It is used up before data come, too.
    for _ in 0..ROUNDS {
        Session::udp(&server).fail(showing(&first), 400);
    }
    call = call.both_ways();
    for _ in 0..ROUNDS {
        Session::udp(&server).fail(showing(&first), 400);
    }
    call.both_ways();
}

#[test]
fn r8016_3_2_2_13_a_retransmission_is_answered_again() {
    let server = mobile_server();
    let mut call = Call::new(Session::udp(&server));
    for round in 0..ROUNDS {
        let mut new = if round % 2 == 0 { Session::udp(&server) } else { Session::tcp(&server) };
        let request = new.sign(showing(&call.ticket));
        for _ in 0..3 {
            let reply = new.call_signed(&request);
            assert_eq!(reply.error(), None);
            call.ticket = ticket(&reply);
        }
        call.session = new;
        call = call.both_ways();
        let reply = call.session.call_signed(&request);
        assert_eq!(reply.error(), None, "after the first data, too");
        call.ticket = ticket(&reply);
    }
}

#[test]
fn r8016_3_2_2_14_data_before_the_refresh_are_not_relayed() {
    let server = mobile_server();
    let call = Call::new(Session::udp(&server));
    for mut session in Session::each(&server) {
        session.send(&padded_channel_data(0x4000, b"early"));
        session.send_to(call.peer.address, b"early");
        assert!(session.fence().is_empty());
    }
    call.both_ways();
}

#[test]
fn r8016_3_2_2_09_a_closed_connection_is_left_at_once() {
    let server = mobile_server();
    for _ in 0..ROUNDS {
        // Make before break.
        let mut call = Call::new(Session::tcp(&server));
        let old = call.show(Session::tls(&server));
        drop(old);
        server_has_logged_moves(&server, &call);
        let mut new = std::mem::replace(&mut call.session, Session::udp(&server));
        call.receives(&mut new, b"here");
        // Break before make.
        drop(new);
        call.show(Session::udp(&server));
        call = call.both_ways();
        call.session.delete();
    }
}

/// Waits until the call's last move is logged.
fn server_has_logged_moves(server: &Server, call: &Call) {
    let to = format!("\"to\":\"{}\"", call.session.local);
    server.await_log(|log| log.contains(&to).then_some(()));
}

#[test]
fn a_move_that_the_client_gives_up_changes_nothing() {
    let server = mobile_server();
    let mut call = Call::new(Session::udp(&server));
    for _ in 0..ROUNDS {
        let old = call.show(Session::tcp(&server));
        let new = std::mem::replace(&mut call.session, old);
        drop(new);
        call = call.both_ways();
    }
    // A guest's 5-tuple is free again when the allocation moves on.
    for _ in 0..ROUNDS {
        call.show(Session::udp(&server));
        call = call.both_ways();
        let mut old = call.show(Session::tcp(&server));
        call = call.both_ways();
        let relayed = old.allocate();
        old.permit(call.peer.address);
        old.round_trip(&call.peer, relayed);
        old.delete();
    }
    call.session.succeed(Msg::new(REFRESH).u32(LIFETIME, 0));
}

#[test]
fn both_ends_of_a_call_on_this_server_move() {
    let server = mobile_server();
    let [mut one, mut other] = [(); 2].map(|()| {
        let mut session = Session::udp(&server);
        let reply = session.succeed(asking());
        let relayed = reply.xor(XOR_RELAYED_ADDRESS).unwrap();
        (session, ticket(&reply), relayed)
    });
    one.0.bind(0x4000, other.2);
    other.0.bind(0x4001, one.2);
    for round in 0..2 * ROUNDS {
        let mover = if round % 2 == 0 { &mut one } else { &mut other };
        let mut new = if round % 3 == 0 { Session::tcp(&server) } else { Session::udp(&server) };
        mover.1 = ticket(&new.succeed(showing(&mover.1)));
        mover.0 = new;
        let number = if round % 2 == 0 { 0x4000 } else { 0x4001 };
        mover.0.send(&padded_channel_data(number, b"I have moved"));
        let still = if round % 2 == 0 { &mut other } else { &mut one };
        assert_eq!(still.0.client.channel(), (number ^ 1, b"I have moved".to_vec()));
        for _ in 0..3 {
            one.0.send(&padded_channel_data(0x4000, b"one"));
            assert_eq!(other.0.client.channel(), (0x4001, b"one".to_vec()));
            other.0.send(&padded_channel_data(0x4001, b"other"));
            assert_eq!(one.0.client.channel(), (0x4000, b"other".to_vec()));
        }
    }
}

/// The peer sends all the time; nothing that it sends after the first data from the new 5-tuple is lost, and all before went
/// to the old one.
#[test]
fn nothing_is_lost_in_a_move() {
    let server = mobile_server();
    let mut call = Call::new(Session::udp(&server));
    for round in 0..ROUNDS {
        let to = [Session::tls, Session::tcp, Session::dtls][round % 3];
        let mut old = call.show(to(&server));
        for number in 0..50_u8 {
            call.peer.send(&[number; 100], call.relayed);
            assert_eq!(old.client.channel().1, [number; 100]);
        }
        call.session.send(&padded_channel_data(0x4000, b"arrived"));
        assert_eq!(call.peer.receive().0, b"arrived");
        for number in 0..50_u8 {
            call.peer.send(&[number; 100], call.relayed);
        }
        for number in 0..50_u8 {
            assert_eq!(call.session.client.channel().1, [number; 100]);
        }
        for number in 0..50_u8 {
            call.session.send(&padded_channel_data(0x4000, &[number; 100]));
        }
        for number in 0..50_u8 {
            assert_eq!(call.peer.receive().0, [number; 100]);
        }
    }
}
