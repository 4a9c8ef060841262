//! Clients log in to the server with what a database has: users, secrets and token keys that coturn's `turnadmin` and example
//! data put there. And what becomes of clients, and of data that flow, while the database fails.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Refused},
    common::{
        self, PATIENCE,
        ports::{free_port_pair, peer_socket},
        process::Process,
        uclient::Run,
    },
    coturn::turnadmin,
    servers::{Mariadb, Postgresql, Redis, Server},
};

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server with a user of its own and a store. The realms are those of coturn's example data.
pub(crate) fn server(store: &str) -> common::Server {
    common::Server::start(&format!(
        r#"
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 0
transports = ["udp", "tcp"]
[relay]
relay-ip = "127.0.0.1"
[auth]
realm = "north.gov"
server-name = "blackdow.carleon.gov"
[[auth.user]]
name = "own"
password = "of the configuration"
[[realm]]
name = "crinna.org"
[peers]
allowed-peer-ip = "127.0.0.0/8"
[compatibility]
rfc5766-channel-numbers = true
[limits]
unauthorized-rate = 0
[process]
workers = 2
[store]
{store}"#
    ))
}

/// Logs in over UDP or TCP, and out again.
pub(crate) fn log_in(server: &common::Server, transport: &str, user: &str, password: &str) -> Result<(), Refused> {
    let mut client = Client::new(transport, server.ipv4(transport), Some((user, password)));
    client.allocate()?;
    client.delete()
}

/// coturn's echo peer.
fn echo() -> (Process, SocketAddr) {
    let port = free_port_pair(&[IPV4]);
    let mut command = std::process::Command::new("turnutils_peer");
    command.args(["-L", "127.0.0.1", "-p", &port.to_string()]);
    (Process::start(command), SocketAddr::new(IPV4, port))
}

/// Everybody whom the database knows comes in, by coturn's client; nobody else does.
pub(crate) fn lets_clients_in(database: &[String; 2], store: &str) {
    // Some coturn has put spaces into its Redis commands as they are, so this has none.
    turnadmin(database, &["-a", "-u", "by-turnadmin", "-r", "north.gov", "-p", "tape"]);
    turnadmin(database, &["-s", "a-secret-of-the-database", "-r", "north.gov"]);
    let (server, (_echo, peer)) = (server(store), echo());
    let run = |transport: &str, options: &[&str], sessions, credentials: &[&str]| {
        let run = Run { namespace: None, server: server.ipv4(transport), peer: Some(peer), options, sessions };
        run.check_as(credentials);
    };
    run("udp", &["-X"], 2, &["-u", "gorst", "-w", "hero"]);
    run("tcp", &["-X", "-t"], 2, &["-u", "by-turnadmin", "-w", "tape"]);
    run("udp", &["-X"], 2, &["-u", "zoe", "-W", "a-secret-of-the-database"]);
    // One of several that coturn's example has.
    run("tcp", &["-X", "-t"], 2, &["-u", "zoe", "-W", "logen"]);
    run("udp", &["-X", "-c", "-m", "8"], 8, &["-J"]);
    for (user, password) in [("gorst", "villain"), ("whirrun", "sword"), ("nobody", "hero"), ("' OR ''='", "hero")] {
        assert_eq!(log_in(&server, "udp", user, password), Err(Refused(401)), "{user}");
    }
    assert_eq!(log_in(&server, "udp", "own", "of the configuration"), Ok(()));
    let log = server.stop();
    for logged in ["\"user\":\"gorst\"", "\"user\":\"by-turnadmin\"", "\"user\":\"zoe\""] {
        assert!(log.contains(logged), "{logged}\n{log}");
    }
    let kids = ["north", "union", "oldempire"];
    assert!(kids.iter().any(|kid| log.contains(&format!("\"tenant\":\"{kid}\""))), "{log}");
    for secret in ["a-secret-of-the-database", "logen", "hunter2"] {
        assert!(!log.contains(secret), "{log}");
    }
}

fn lets_clients_of_in<S: Server>() {
    let server = S::install();
    server.fill();
    // One client shows tokens of several keys in turn, so they are all of one realm.
    server.execute(if server.turnadmin()[0] == "-N" {
        "hset turn/oauth/kid/north realm north.gov"
    } else {
        "UPDATE oauth_key SET realm = 'north.gov' WHERE kid = 'north'"
    });
    lets_clients_in(&server.turnadmin(), &server.store());
}

#[test]
fn users_of_postgresql_log_in() {
    lets_clients_of_in::<Postgresql>();
}

#[test]
fn users_of_mariadb_log_in() {
    lets_clients_of_in::<Mariadb>();
}

#[test]
fn users_of_redis_log_in() {
    lets_clients_of_in::<Redis>();
}

/// Data that go to a peer and back, one after the other, none of which may be lost.
struct Media {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Media {
    fn start(server: &common::Server, user: &str, password: &str) -> Self {
        let mut client = Client::new("udp", server.ipv4("udp"), Some((user, password)));
        let relayed = client.allocate().expect("an allocation");
        let peer = peer_socket(IPV4);
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let to = peer.local_addr().expect("an address");
        client.permit(to).expect("a permission");
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let (mut buffer, mut trips, mut longest) = ([0; 64], 0_u32, Duration::ZERO);
                while !ends.load(Relaxed) {
                    let (data, began) = (trips.to_be_bytes(), Instant::now());
                    client.send(to, &data);
                    let len = peer.recv(&mut buffer).expect("data for the peer");
                    assert_eq!(buffer[..len], data);
                    peer.send_to(&data, relayed).expect("sent");
                    assert_eq!(client.receive(), data);
                    longest = longest.max(began.elapsed());
                    trips += 1;
                    if trips.is_multiple_of(100) {
                        client.permit(to).expect("a permission, without the store");
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                client.delete().expect("the end of the allocation");
                (trips, longest)
            }
        });
        Self { ends, thread }
    }

    fn end(self) -> (u32, Duration) {
        self.ends.store(true, Relaxed);
        self.thread.join().expect("nothing is lost")
    }
}

/// The time limit of a question.
const LIMIT: Duration = Duration::from_secs(1);

/// What a login may take beyond that on a machine that has much else to do: less than it would wait without a limit.
const SLACK: Duration = Duration::from_secs(3);

/// Lines of the log that say that the store fails, and that it answers again.
fn changes(server: &common::Server) -> [usize; 2] {
    let log = server.log();
    ["the store fails: ", "the store answers again"].map(|text| log.lines().filter(|line| line.contains(text)).count())
}

/// While the store fails: whoever needs it is refused fast, everybody else is served.
fn refuses_fast(server: &common::Server) {
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(log_in(server, "udp", "gorst", "hero"), Err(Refused(500)));
        assert!(began.elapsed() < LIMIT + SLACK, "{:?}", began.elapsed());
        Client::new("udp", server.ipv4("udp"), None).binding();
        assert_eq!(log_in(server, "tcp", "own", "of the configuration"), Ok(()));
    }
}

/// The log has one line for each of so many changes.
fn has_logged(server: &common::Server, expected: [usize; 2]) {
    server.await_log(|_| (changes(server) >= expected).then_some(()));
    assert_eq!(changes(server), expected, "{}", server.log());
}

/// The store is back: logins work again by themselves.
fn recovers(server: &common::Server) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(refused) = log_in(server, "udp", "gorst", "hero") {
        assert_eq!(refused, Refused(500));
        assert!(Instant::now() < deadline, "{}", server.log());
        thread::sleep(Duration::from_millis(50));
    }
}

fn disturbs_nobody<S: Server>() {
    let mut database = S::install();
    database.fill();
    let limits = "timeout = \"1s\"\ncache-entries = 0\nmax-failures = 1\nmax-pause = \"1s\"\n";
    let server = server(&format!("{}{limits}", database.store()));
    recovers(&server);
    let media = [Media::start(&server, "gorst", "hero"), Media::start(&server, "own", "of the configuration")];
    let before = changes(&server);

    database.stop();
    refuses_fast(&server);
    database.start();
    recovers(&server);
    has_logged(&server, before.map(|count| count + 1));

    database.hang(true);
    refuses_fast(&server);
    database.hang(false);
    recovers(&server);
    has_logged(&server, before.map(|count| count + 2));

    // Slow, but in time; and too slow.
    drop(database.slow_down(LIMIT / 4));
    recovers(&server);
    let slow = database.slow_down(LIMIT * 6);
    assert_eq!(log_in(&server, "udp", "gorst", "hero"), Err(Refused(500)));
    recovers(&server);
    drop(slow);

    for media in media {
        let (trips, longest) = media.end();
        assert!(trips > 100 && longest < SLACK, "{trips} trips, the longest of {longest:?}");
    }
    // How often the slow one answered a probe in between is not ours to say.
    server.await_log(|_| {
        let [fails, answers] = changes(&server);
        (fails == answers && fails > before[0] + 2).then_some(())
    });
    server.stop();
}

#[test]
fn a_postgresql_that_fails_disturbs_nobody_who_is_in() {
    disturbs_nobody::<Postgresql>();
}

#[test]
fn a_mariadb_that_fails_disturbs_nobody_who_is_in() {
    disturbs_nobody::<Mariadb>();
}

#[test]
fn a_redis_that_fails_disturbs_nobody_who_is_in() {
    disturbs_nobody::<Redis>();
}
