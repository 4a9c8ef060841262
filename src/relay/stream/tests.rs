//! Turns of a connection, one by one: the client is the other end of a pipe.

use std::{sync::Arc, task::Waker};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{advance, sleep_until, timeout},
};

use super::*;
use crate::{
    auth::directory::Directory,
    config::{self, Host},
    relay::{
        clock::Clock,
        peers::{Own, PeerBook},
        rules::{self, WorkerPolicy},
        shared::Shared,
        system::{DatagramPath, Poller},
    },
    stun::{AttributeType, Class, MessageWriter, Method, TransactionId},
    turn::{ConnectionIds, IcmpError, RealmId, Server, Transport},
};

/// An empty message on a channel that is not bound.
const EMPTY: [u8; 4] = [0x40, 0, 0, 0];

/// What connections use, on a worker without listeners.
fn streams() -> Rc<Streams> {
    let text = "[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n[peers]\nallowed-peer-ip = [\"127.0.0.0/8\"]\n\
         [limits]\nbinding-rate = 0\n[process]\nworkers = 1\n";
    let settings = config::parse(text, "t.toml", &Host::detect().unwrap()).unwrap().settings;
    let directory = Arc::new(Directory::new(&settings, false).unwrap());
    let own = Own { sockets: Vec::new(), relay: settings.relay.addresses.clone(), host: Vec::new() };
    let peers = Arc::new(PeerBook::new(&settings, own));
    let io = DatagramPath::probe(settings.process.udp_io).unwrap().io();
    let shared = Shared::new(&settings, &peers.rules()[0], 1);
    let policy = WorkerPolicy::new(peers, Arc::clone(&shared), &settings.limits, 1, [1, 2]);
    let rules = rules::rules(&settings, &directory, io, ConnectionIds { worker: 0, workers: 1 });
    let server = Server::new(rules, Box::new(policy), &[3; 32], [4; 32], 1);
    let poller = Rc::new(Poller::new(io).unwrap());
    let rng = StdRng::from_seed([5; 32]);
    let core = Core::new(
        0,
        server,
        directory,
        crate::relay::inquiries::Inquiries::default(),
        shared,
        settings.lifetimes.connect,
        Clock::new(),
        poller,
        rng,
        io,
    );
    Rc::new(Streams::new(Rc::new(RefCell::new(core)), settings.tcp, false, Rc::default()))
}

/// A connection whose client has the other end.
fn connect(shared: &Rc<Streams>) -> (Connection<DuplexStream>, DuplexStream) {
    let (stream, other) = duplex(1 << 20);
    let queue = Queue::new(shared.limits().queue_bytes, shared.limits().queue_age);
    let (client, server) = ("127.0.0.1:1000".parse().unwrap(), "127.0.0.1:3478".parse().unwrap());
    let tuple = FiveTuple { client, server, transport: Transport::Tcp };
    let at = shared.core.borrow_mut().outlets.add(queue, tuple);
    let client = Client { tuple, route: Way::Stream(at).route(), realm: RealmId::DEFAULT };
    (Connection::new(Rc::clone(shared), stream, client, at), other)
}

/// One turn; whether the connection is over.
fn turn(connection: &mut Connection<DuplexStream>, timer: Pin<&mut Sleep>) -> bool {
    connection.turn(&mut Context::from_waker(Waker::noop()), timer).is_ready()
}

fn request(method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 8192];
    let mut writer = MessageWriter::new(&mut buffer, method, Class::Request, TransactionId([7; 12]));
    attributes(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

fn binding() -> Vec<u8> {
    request(Method::Binding, |_| {})
}

fn allocate() -> Vec<u8> {
    request(Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    })
}

fn has_allocation(connection: &Connection<DuplexStream>) -> bool {
    connection.core(|core, _| core.server.has_allocation(&connection.client))
}

/// Messages that the client has been sent by now.
async fn received(other: &mut DuplexStream) -> usize {
    let mut bytes = vec![0; 1 << 20];
    let read = timeout(std::time::Duration::ZERO, other.read(&mut bytes)).await;
    let mut rest = &bytes[..read.map_or(0, Result::unwrap)];
    let mut count = 0;
    while let Frame::Stun(len) = frame::front(rest, false) {
        (rest, count) = (&rest[len..], count + 1);
    }
    assert!(rest.is_empty());
    count
}

#[tokio::test]
async fn a_turn_is_so_many_messages_and_the_next_goes_on_with_them() {
    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    // The last one is yet to end.
    let bytes = binding().repeat(3 * MESSAGES - 4);
    other.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    for count in [MESSAGES, MESSAGES, MESSAGES - 5, 0] {
        assert!(!turn(&mut connection, timer.as_mut()));
        assert_eq!(received(&mut other).await, count);
    }
    assert_eq!(connection.kept.len(), binding().len() - 1);
    assert!(connection.begun.is_some());
    assert!(connection.kept.capacity() <= LONGEST_WITHOUT_ALLOCATION);
    other.write_all(&bytes[..1]).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(received(&mut other).await, 1);
    assert_eq!((connection.kept.capacity(), connection.begun), (0, None));
}

#[tokio::test]
async fn a_turn_leaves_most_of_a_flood_for_later_turns() {
    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    other.write_all(&EMPTY.repeat(100_000)).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!((connection.handled, connection.kept.len()), (0, READ - MESSAGES * EMPTY.len()));
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(connection.handled, MESSAGES * EMPTY.len());
}

#[tokio::test]
async fn a_busy_connection_with_an_allocation_reads_more_at_once() {
    let long = [&[0x40, 0, 0x04, 0xB0][..], &[0; 1200]].concat();
    for (first, room) in [(binding(), READ), (allocate(), LONG_READ)] {
        let (mut connection, mut other) = connect(&streams());
        let mut timer = pin!(sleep_until(connection.deadline()));
        other.write_all(&first).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        assert_eq!((received(&mut other).await, connection.room), (1, READ));
        other.write_all(&long.repeat(200)).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        assert_eq!(connection.room, room);
        for _ in 0..10 {
            assert!(!turn(&mut connection, timer.as_mut()));
        }
        // No longer busy.
        other.write_all(&long).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        assert_eq!((connection.room, connection.kept.capacity()), (READ, 0));
        // Not for short ones, of which a turn takes few.
        other.write_all(&EMPTY.repeat(20_000)).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        assert_eq!(connection.room, READ);
    }
}

#[tokio::test]
async fn requests_with_more_responses_than_may_wait_are_all_answered() {
    let shared = streams();
    shared.renew(Tcp { queue_bytes: 1000, ..(*shared.limits()).clone() }, false);
    let (stream, mut other) = duplex(1 << 20);
    let lease = shared.core.borrow().shared.take_connection(None).unwrap();
    let (client, server) = ("127.0.0.1:1000".parse().unwrap(), "127.0.0.1:3478".parse().unwrap());
    let tuple = FiveTuple { client, server, transport: Transport::Tcp };
    let serving = serve(shared, stream, tuple, RealmId::DEFAULT, lease);
    let asking = async {
        const COUNT: usize = 10_000;
        other.write_all(&binding().repeat(COUNT)).await.unwrap();
        let mut first = [0; 20];
        other.read_exact(&mut first).await.unwrap();
        let len = 20 + usize::from(first[3]);
        let mut others = vec![0; len * COUNT - first.len()];
        other.read_exact(&mut others).await.unwrap();
    };
    let both = async {
        tokio::select! {
            () = serving => panic!("the connection has ended"),
            () = asking => {}
        }
    };
    timeout(std::time::Duration::from_secs(20), both).await.expect("the connection stalls");
}

#[tokio::test]
async fn reports_of_icmp_errors_give_way_to_later_ones() {
    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    let peer = "127.0.0.1:9".parse().unwrap();
    other.write_all(&allocate()).await.unwrap();
    let permit = request(Method::CreatePermission, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    });
    other.write_all(&permit).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert!(has_allocation(&connection));
    assert_eq!(received(&mut other).await, 2);
    connection.core(|core, at| {
        let now = core.clock.now();
        let handle = core.relays[0].handle.unwrap();
        for _ in 0..10_000 {
            core.icmp_error(handle, peer, IcmpError { kind: 3, code: 3, mtu: 0 }, now);
        }
        assert!(!core.outlets.is_stuffed(at));
    });
    assert!(!turn(&mut connection, timer.as_mut()));
    let reports = received(&mut other).await;
    assert!((10..5000).contains(&reports), "{reports}");
}

#[tokio::test(start_paused = true)]
async fn messages_of_no_use_do_not_keep_a_connection() {
    let shared = streams();
    let (mut connection, mut other) = connect(&shared);
    let mut timer = pin!(sleep_until(connection.deadline()));
    let second = std::time::Duration::from_secs(1);
    let seconds = shared.limits().idle_timeout.as_secs();
    for _ in 1..seconds {
        // With the start of another, which has its own time.
        other.write_all(&[&EMPTY[..], &EMPTY[..2]].concat()).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        other.write_all(&EMPTY[2..]).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        advance(second).await;
    }
    advance(second).await;
    other.write_all(&EMPTY).await.unwrap();
    assert!(turn(&mut connection, timer.as_mut()));
}

#[tokio::test(start_paused = true)]
async fn the_timer_is_only_set_when_it_has_to_be() {
    let shared = streams();
    let (mut connection, mut other) = connect(&shared);
    let first = connection.deadline();
    let mut timer = pin!(sleep_until(first));
    let second = std::time::Duration::from_secs(1);
    advance(second).await;
    other.write_all(&allocate()).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert!(connection.deadline() > first);
    assert_eq!(timer.deadline(), first);
    // Quiet for longer than the timeout: it has fired, and looks ahead again.
    advance(2 * shared.limits().idle_timeout).await;
    assert!(!turn(&mut connection, timer.as_mut()));
    let next = timer.deadline();
    assert_eq!(next, Instant::now() + shared.limits().idle_timeout);
    advance(second).await;
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(timer.deadline(), next);
    // An unfinished message has less time.
    other.write_all(&EMPTY[..2]).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(timer.deadline(), Instant::now() + shared.limits().message_timeout);
    advance(shared.limits().message_timeout).await;
    assert!(turn(&mut connection, timer.as_mut()));
}

#[tokio::test]
async fn without_an_allocation_messages_are_of_the_length_of_requests() {
    let long = |method| {
        request(method, |writer| {
            for text in [AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE, AttributeType::SOFTWARE] {
                writer.attribute(text, &[b'x'; 763]);
            }
        })
    };
    let too_long = [0x40, 0, 0x0F, 0xFD];
    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    other.write_all(&long(Method::Binding)).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(received(&mut other).await, 1);
    // As long as allowed, and a byte more.
    other.write_all(&[0x40, 0, 0x0F, 0xFC]).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    other.write_all(&[0; 0xFFC]).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert!(connection.kept.is_empty());
    other.write_all(&too_long).await.unwrap();
    assert!(turn(&mut connection, timer.as_mut()));

    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    other.write_all(&[allocate(), too_long.to_vec()].concat()).await.unwrap();
    assert!(!turn(&mut connection, timer.as_mut()));
    assert_eq!(received(&mut other).await, 1);
    assert_eq!(connection.kept, too_long);
}

#[tokio::test]
async fn messages_of_any_length_come_in_any_pieces() {
    let (mut connection, mut other) = connect(&streams());
    let mut timer = pin!(sleep_until(connection.deadline()));
    let longest = [&[0x40, 0, 0xFF, 0xFF][..], &[0; 0x1_0000]].concat();
    let bytes = [allocate(), longest.clone(), binding(), longest, binding()].concat();
    let mut answers = 0;
    for piece in bytes.chunks(999) {
        other.write_all(piece).await.unwrap();
        assert!(!turn(&mut connection, timer.as_mut()));
        answers += received(&mut other).await;
    }
    assert_eq!((answers, connection.kept.capacity()), (3, 0));
}
