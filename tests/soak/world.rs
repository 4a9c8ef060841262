//! What all actors share: where the server is, when it is over, what has happened, and what has gone wrong.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::{
    client::{Client, PATIENCE},
    common::{Server, dtls, tls},
    plan,
};

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp4,
    Udp6,
    Tcp4,
    Tcp6,
    Tls4,
    Tls6,
    Dtls4,
    Dtls6,
}

impl Way {
    pub(crate) const ALL: [Self; 8] =
        [Self::Udp4, Self::Udp6, Self::Tcp4, Self::Tcp6, Self::Tls4, Self::Tls6, Self::Dtls4, Self::Dtls6];

    pub(crate) fn any(rng: &mut StdRng) -> Self {
        Self::ALL[rng.random_range(0..Self::ALL.len())]
    }

    fn is_ipv6(self) -> bool {
        matches!(self, Self::Udp6 | Self::Tcp6 | Self::Tls6 | Self::Dtls6)
    }

    fn transport(self) -> &'static str {
        match self {
            Self::Udp4 | Self::Udp6 => "udp",
            Self::Tcp4 | Self::Tcp6 => "tcp",
            Self::Tls4 | Self::Tls6 => "tls",
            Self::Dtls4 | Self::Dtls6 => "dtls",
        }
    }
}

/// One call's datagrams, by direction: to the far end, and back.
#[derive(Debug)]
pub(crate) struct CallRecord {
    pub(crate) kind: &'static str,
    pub(crate) sent: [AtomicU64; 2],
    pub(crate) received: [AtomicU64; 2],
    pub(crate) began: Instant,
    /// Not to be counted: the machine stood still meanwhile.
    pub(crate) pardoned: AtomicBool,
}

impl CallRecord {
    /// What has been sent, and what of it has not come.
    pub(crate) fn sent_and_missing(&self) -> (u64, u64) {
        // Received first: what comes in between is then no less than nothing missing.
        let sum = |numbers: &[AtomicU64; 2]| numbers.iter().map(|number| number.load(Ordering::Relaxed)).sum::<u64>();
        let received = sum(&self.received);
        let sent = sum(&self.sent);
        (sent, sent - received.min(sent))
    }
}

pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) pid: u32,
    /// By transport and family.
    listeners: Vec<(&'static str, SocketAddr)>,
    tls: ClientConfig,
    clock: Mutex<Clock>,
    sources: AtomicU32,
    users: AtomicU32,
    /// Of UDP and DTLS, whose allocation may still be there: nobody may get their port.
    kept: Mutex<Vec<(Instant, Client)>>,
    calls: Mutex<Vec<Arc<CallRecord>>>,
    /// How often what was done.
    done: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
}

/// Until when all goes on; time in which nobody ran is not counted.
struct Clock {
    until: Instant,
    /// When whoever notices pauses has last looked; `None` while nobody does.
    beat: Option<Instant>,
    pauses: u32,
    /// The end of the last pause.
    last: Option<Instant>,
    stood_still: Duration,
}

/// What is longer is a pause: calls that the kernel has interrupted fail, and lifetimes pass.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses of clients.
const SOURCES: u32 = 100;
/// How often it is looked whether there was one.
const TICK: Duration = Duration::from_millis(200);

impl World {
    pub(crate) fn new(server: &Server) -> Self {
        let transports = ["udp", "tcp", "tls", "dtls"];
        let listeners = transports
            .into_iter()
            .flat_map(|transport| [(transport, server.ipv4(transport)), (transport, server.ipv6(transport))])
            .collect();
        Self {
            folder: server.folder().to_owned(),
            pid: server.pid(),
            listeners,
            tls: tls::client(server.folder()),
            clock: Mutex::new(Clock {
                until: Instant::now(),
                beat: None,
                pauses: 0,
                last: None,
                stood_still: Duration::ZERO,
            }),
            sources: AtomicU32::new(0),
            users: AtomicU32::new(0),
            kept: Mutex::default(),
            calls: Mutex::default(),
            done: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    pub(crate) fn go_on_until(&self, until: Instant) {
        self.clock.lock().unwrap().until = until;
    }

    pub(crate) fn is_over(&self) -> bool {
        let (clock, now) = (self.clock.lock().unwrap(), Instant::now());
        // After a pause that has not been noticed yet it is later than it seems.
        now >= clock.until && clock.beat.is_none_or(|beat| now - beat <= PAUSE)
    }

    /// Idles, but not beyond the end.
    pub(crate) fn idle(&self, time: Duration) {
        let left = self.clock.lock().unwrap().until.saturating_duration_since(Instant::now());
        thread::sleep(time.min(left));
    }

    pub(crate) fn address(&self, way: Way) -> SocketAddr {
        let fits = |(transport, address): &&(&str, SocketAddr)| {
            *transport == way.transport() && address.is_ipv6() == way.is_ipv6()
        };
        self.listeners.iter().find(fits).expect("a listener").1
    }

    /// From many addresses of IPv4: more than one browser's worth of answers per second is nobody's due.
    fn source(&self, server: SocketAddr) -> SocketAddr {
        if server.is_ipv6() {
            return "[::1]:0".parse().expect("an address");
        }
        let number = self.sources.fetch_add(1, Ordering::Relaxed);
        (Ipv4Addr::new(127, 100, 0, (number % SOURCES + 1) as u8), 0).into()
    }

    pub(crate) fn udp_socket(&self, server: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind(self.source(server)).expect("a UDP socket");
        socket.connect(server).expect("connecting a UDP socket");
        socket
    }

    pub(crate) fn tcp_stream(&self, server: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a TCP socket");
        socket.bind(&self.source(server).into()).expect("binding a TCP socket");
        socket.connect_timeout(&server.into(), PATIENCE).expect("connecting to the server");
        socket.into()
    }

    /// A client, after its handshake.
    pub(crate) fn connect(&self, way: Way) -> Client {
        self.connect_to(way, self.address(way))
    }

    pub(crate) fn connect_to(&self, way: Way, server: SocketAddr) -> Client {
        match way.transport() {
            "udp" => Client::of_udp(self.udp_socket(server)),
            "tcp" => Client::of_stream(self.tcp_stream(server)),
            "tls" => Client::of_tls(tls::handshake(self.tls.clone(), self.tcp_stream(server))),
            _ => {
                let mut stream = dtls::prepare(&self.folder, self.udp_socket(server));
                assert!(dtls::handshake(&mut stream, PATIENCE), "no handshake with the server");
                Client::of_dtls(stream)
            }
        }
    }

    /// Goes away without a word.
    pub(crate) fn abandon(&self, client: Client) {
        let mut kept = self.kept.lock().unwrap();
        let now = Instant::now();
        kept.retain(|(until, _)| *until > now);
        if !client.is_stream() {
            kept.push((now + 2 * plan::ALLOCATION, client));
        }
    }

    /// A number for a user that nobody else has.
    pub(crate) fn user(&self) -> u32 {
        self.users.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes down what a call does.
    pub(crate) fn call(&self, kind: &'static str) -> Arc<CallRecord> {
        let (sent, received) = (Default::default(), Default::default());
        let (began, pardoned) = (Instant::now(), AtomicBool::new(false));
        let record = Arc::new(CallRecord { kind, sent, received, began, pardoned });
        self.calls.lock().unwrap().push(Arc::clone(&record));
        record
    }

    pub(crate) fn calls(&self) -> Vec<Arc<CallRecord>> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.done.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done.lock().unwrap().clone()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub(crate) fn pauses(&self) -> u32 {
        self.clock.lock().unwrap().pauses
    }

    /// Does something; what goes wrong is held against the server, unless nobody ran for a while: lifetimes have passed then.
    pub(crate) fn attempt(&self, what: &'static str, act: impl FnOnce()) {
        let began = Instant::now();
        let Err(panic) = catch_unwind(AssertUnwindSafe(act)) else { return self.count(what) };
        // Whoever notices pauses may come later than this.
        thread::sleep(2 * TICK);
        if self.paused_since(began) {
            return self.count("given up after a pause of this machine");
        }
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        self.failures.lock().unwrap().push(format!("{what}: {text}"));
    }

    pub(crate) fn paused_since(&self, began: Instant) -> bool {
        self.clock.lock().unwrap().last.is_some_and(|last| last >= began)
    }

    /// For how long nobody ran.
    pub(crate) fn stood_still(&self) -> Duration {
        self.clock.lock().unwrap().stood_still
    }

    /// Notices when this process, and who runs with it, has been stopped for a while; all goes on for as much longer.
    pub(crate) fn notice_pauses(&self) {
        let mut before = Instant::now();
        while !self.is_over() {
            thread::sleep(TICK);
            let now = Instant::now();
            let mut clock = self.clock.lock().unwrap();
            if now - before > PAUSE {
                clock.until += now - before;
                clock.stood_still += now - before;
                clock.last = Some(now);
                clock.pauses += 1;
            }
            clock.beat = Some(now);
            before = now;
        }
        self.clock.lock().unwrap().beat = None;
    }

    /// Asks management over its Unix socket: status and body.
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.folder.join("control.sock")).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("to ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
    }
}
