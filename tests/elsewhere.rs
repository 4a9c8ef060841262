//! Users who are kept elsewhere: requests that wait while a store is asked, and what a store that fails, hangs or panics does not do.
//! And sessions that are ended from outside, on whichever worker they are. The server runs in this process.

mod common;

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    PASSWORD, PATIENCE, REALM, USER,
    client::{TurnClient, loopback_peer, loopback_socket},
};
use tokio::sync::watch;
use turnserver::{
    auth::{
        credential::{Credential, RealmId},
        directory::{Finding, Name, Question, Slow, Unavailable},
        key::md5_key,
        subject::Subject,
    },
    config::{self, Host},
    relay::{Endpoint, Relay},
    stun::{AttributeType, Class, Message, Method},
    turn::{Mechanism, Revocation, Transport, Verdict},
};

/// What the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Hangs,
    Fails,
    Panics,
}

/// A store that knows alice.
struct Store {
    mood: watch::Sender<Mood>,
    asked: AtomicUsize,
    questions: Mutex<Vec<Question>>,
}

impl Store {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { mood: watch::Sender::new(mood), asked: AtomicUsize::new(0), questions: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Slow for Store {
    fn find(&self, question: Question) -> Finding<'_> {
        let known = question.name == Name::Plain(USER.into());
        self.questions.lock().unwrap().push(question);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut mood = self.mood.subscribe();
        Box::pin(async move {
            let mood = *mood.wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
            match mood {
                Mood::Fails => return Err(Unavailable),
                Mood::Panics => panic!("the store of a test"),
                Mood::Answers | Mood::Hangs => {}
            }
            let credential = || Credential {
                subject: Arc::new(Subject::new(USER, REALM)),
                realm: RealmId::DEFAULT,
                key: md5_key(USER, REALM, PASSWORD).unwrap(),
                term: None,
                secret: None,
                bearer: false,
                mark: 0,
            };
            Ok(known.then(credential).into_iter().collect())
        })
    }
}

/// A server on loopback, whose only own user is another one.
fn start(store: Option<Arc<Store>>, workers: usize) -> Relay {
    let text = format!(
        r#"
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 0
[relay]
relay-ip = "127.0.0.1"
[auth]
realm = "{REALM}"
[[auth.user]]
name = "{}"
password = "{PASSWORD}"
[peers]
allowed-peer-ip = ["127.0.0.0/8"]
[limits]
unauthorized-rate = 0
binding-rate = 0
[process]
workers = {workers}
"#,
        if store.is_some() { "somebody else" } else { USER }
    );
    let settings = config::parse(&text, "t.toml", &Host::detect().unwrap()).unwrap().settings;
    Relay::start(settings, store.map(|store| -> Arc<dyn Slow> { store }), &[]).unwrap()
}

fn address(relay: &Relay, transport: Transport) -> SocketAddr {
    let found = relay.endpoints().into_iter().find(|Endpoint { transport: of, .. }| *of == transport);
    found.unwrap().address
}

fn over_udp(relay: &Relay) -> TurnClient {
    TurnClient::new(loopback_socket(), address(relay, Transport::Udp))
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn allocate(client: &mut TurnClient) -> Vec<u8> {
    client.sign(Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    })
}

/// The code of the next message; 0 for success.
fn next_code(socket: &UdpSocket) -> u16 {
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("a response");
    let message = Message::parse(&buffer[..len]).expect("a STUN message");
    match message.get(AttributeType::ERROR_CODE) {
        Some(&[_, _, class, number, ..]) => u16::from(class) * 100 + u16::from(number),
        _ => {
            assert_eq!(message.class(), Class::Success);
            0
        }
    }
}

/// Data to a peer and back.
fn round_trip(client: &mut TurnClient, peer: &UdpSocket, relayed: SocketAddr) {
    let to = peer.local_addr().unwrap();
    let (message, mut buffer) = (client.send_indication(to, b"there"), [0; 512]);
    client.socket.send_to(&message, client.server).unwrap();
    let (len, from) = peer.recv_from(&mut buffer).expect("data for the peer");
    assert_eq!((&buffer[..len], from), (&b"there"[..], relayed));
    peer.send_to(b"and back", relayed).unwrap();
    let len = client.socket.recv(&mut buffer).expect("data for the client");
    let message = Message::parse(&buffer[..len]).unwrap();
    assert_eq!(message.get(AttributeType::DATA), Some(&b"and back"[..]));
}

#[test]
fn a_user_of_the_store_is_served_over_udp_and_tcp() {
    let store = Store::new(Mood::Answers);
    let relay = start(Some(Arc::clone(&store)), 2);
    let mut client = over_udp(&relay);
    let relayed = client.allocate();
    let peer = loopback_peer();
    client.permit(peer.local_addr().unwrap());
    round_trip(&mut client, &peer, relayed);
    client.delete();
    assert_eq!(store.asked(), 1, "the key is kept with the allocation");
    let server = address(&relay, Transport::Tcp);
    let mut client = TurnClient::new(TcpStream::connect(server).unwrap(), server);
    client.allocate();
    client.delete();
    assert_eq!(store.asked(), 2);
    let question = store.questions.lock().unwrap().pop().unwrap();
    assert_eq!((question.realm, question.name), (RealmId::DEFAULT, Name::Plain(USER.into())));
    drop(relay.stop());
}

/// One question, one allocation, one answer or more.
#[test]
fn a_request_that_is_sent_again_joins_the_one_that_waits() {
    let store = Store::new(Mood::Hangs);
    let relay = start(Some(Arc::clone(&store)), 1);
    let mut client = over_udp(&relay);
    client.learn_nonce();
    let request = allocate(&mut client);
    for _ in 0..10 {
        client.socket.send_to(&request, client.server).unwrap();
    }
    until("the store is asked", || store.asked() > 0);
    // Served after all of them: the worker is not held up.
    let binding = client.request(Method::Binding, |_| {});
    assert_eq!(Message::parse(&binding).unwrap().class(), Class::Success);
    assert_eq!(store.asked(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waiting = || {
        let (reports, complete) = runtime.block_on(relay.monitor().reports());
        assert!(complete);
        reports.iter().map(|report| report.inquiries).sum::<usize>()
    };
    assert_eq!(waiting(), 1, "as management sees it");
    store.turn(Mood::Answers);
    assert_eq!(next_code(&client.socket), 0);
    assert_eq!(waiting(), 0);
    // And so is it when it comes late.
    client.socket.send_to(&request, client.server).unwrap();
    assert_eq!(next_code(&client.socket), 0);
    let totals = relay.stop().totals;
    assert_eq!(totals.allocations(), 1);
    assert!(totals.credentials(Mechanism::Store, Verdict::Passed) >= 1);
    assert_eq!(totals.credentials(Mechanism::Password, Verdict::Passed), 0);
}

/// A store that is out of reach: new clients are told so at once, everybody else does not notice.
#[test]
fn a_dead_store_stops_new_clients_only() {
    let store = Store::new(Mood::Answers);
    let relay = start(Some(Arc::clone(&store)), 2);
    let mut running = over_udp(&relay);
    let relayed = running.allocate();
    let peer = loopback_peer();
    running.permit(peer.local_addr().unwrap());
    for mood in [Mood::Fails, Mood::Panics] {
        store.turn(mood);
        let mut new = over_udp(&relay);
        new.learn_nonce();
        let (request, began) = (allocate(&mut new), Instant::now());
        new.socket.send_to(&request, new.server).unwrap();
        assert_eq!(next_code(&new.socket), 500, "{mood:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{mood:?}");
        round_trip(&mut running, &peer, relayed);
        running.permit(peer.local_addr().unwrap());
    }
    // It comes back by itself.
    store.turn(Mood::Answers);
    over_udp(&relay).allocate();
    running.delete();
    drop(relay.stop());
}

/// Who waits is told after seconds that it is of no use; what waits is bounded, and the server's own users come first.
#[test]
fn a_store_that_hangs_holds_up_a_bounded_number_for_a_bounded_time() {
    const MOST: usize = 1024;
    let store = Store::new(Mood::Hangs);
    let relay = start(Some(Arc::clone(&store)), 1);
    let mut client = over_udp(&relay);
    client.learn_nonce();
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut refused = 0;
    let began = Instant::now();
    for _ in 0..MOST + 100 {
        let request = allocate(&mut client);
        client.socket.send_to(&request, client.server).unwrap();
        let binding = client.sign(Method::Binding, |_| {});
        client.socket.send_to(&binding, client.server).unwrap();
        // Each Binding is answered, the Allocates beyond the bound are before it.
        while next_code(&client.socket) != 0 {
            refused += 1;
        }
    }
    if began.elapsed() < Duration::from_secs(5) {
        assert_eq!((refused, store.asked()), (100, MOST));
    }
    while refused < MOST + 100 {
        assert_eq!(next_code(&client.socket), 500);
        refused += 1;
    }
    assert!(began.elapsed() >= Duration::from_secs(5));
    store.turn(Mood::Answers);
    client.allocate();
    drop(relay.stop());
}

/// Whoever has not shown that it receives at its address is not looked up.
#[test]
fn a_store_is_not_asked_for_strangers() {
    let store = Store::new(Mood::Answers);
    let relay = start(Some(Arc::clone(&store)), 1);
    let mut client = over_udp(&relay);
    client.learn_nonce();
    let request = allocate(&mut client);
    // The same from elsewhere, as somebody else would replay it.
    let other = loopback_socket();
    other.send_to(&request, client.server).unwrap();
    assert_eq!(next_code(&other), 438);
    assert_eq!(store.asked(), 0);
    drop(relay.stop());
}

/// A connection that is closed while its request waits leaves nothing.
#[test]
fn a_client_that_has_gone_meanwhile_gets_no_allocation() {
    let store = Store::new(Mood::Hangs);
    let relay = start(Some(Arc::clone(&store)), 1);
    let server = address(&relay, Transport::Tcp);
    let mut client = TurnClient::new(TcpStream::connect(server).unwrap(), server);
    client.learn_nonce();
    let request = client.sign(Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    std::io::Write::write_all(&mut client.socket, &request).unwrap();
    until("the store is asked", || store.asked() == 1);
    drop(client);
    // Another one on the same place in the worker's tables.
    let mut next = TurnClient::new(TcpStream::connect(server).unwrap(), server);
    next.learn_nonce();
    store.turn(Mood::Answers);
    next.allocate();
    next.delete();
    assert_eq!(relay.stop().totals.allocations(), 1);
}

/// Sessions on all workers, with data flowing, end when their user is revoked, and for no other revocation.
#[test]
fn a_revocation_reaches_every_worker_at_once() {
    const CLIENTS: usize = 32;
    let relay = start(None, 4);
    let peer = loopback_peer();
    let mut clients: Vec<(TurnClient, SocketAddr)> = (0..CLIENTS)
        .map(|_| {
            let mut client = over_udp(&relay);
            let relayed = client.allocate();
            client.permit(peer.local_addr().unwrap());
            (client, relayed)
        })
        .collect();
    for (client, relayed) in &mut clients {
        round_trip(client, &peer, *relayed);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let revoke = |revocation| runtime.block_on(relay.revoke(revocation));
    assert_eq!(revoke(Revocation::User { realm: REALM.into(), user: "bob".into() }), 0);
    assert_eq!(revoke(Revocation::Secret { realm: REALM.into(), name: "none".into() }), 0);
    for (client, relayed) in &mut clients {
        round_trip(client, &peer, *relayed);
    }
    assert_eq!(revoke(Revocation::User { realm: REALM.into(), user: USER.into() }), CLIENTS);
    for (client, _) in &mut clients {
        let response = client.request(Method::Refresh, |_| {});
        let message = Message::parse(&response).unwrap();
        assert_eq!(message.get(AttributeType::ERROR_CODE).map(|code| &code[2..4]), Some(&[4, 37][..]));
    }
    let (mut again, _) = clients.remove(0);
    again.allocate();
    assert_eq!(relay.stop().totals.allocations(), CLIENTS as u64 + 1);
}
