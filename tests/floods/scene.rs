//! One flood: a server in a network of its own, a call, the attack, what was measured, and what is demanded.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    call::{Call, Talk},
    client::Client,
    common::{
        PASSWORD, PATIENCE, Server, USER,
        namespace::{in_new_network, ip},
    },
    measure::{Vitals, resident_kib, vitals},
    scarcity::remove_control_group,
};

/// On a machine that does other things besides, somebody new may wait so long.
const LATE: Duration = Duration::from_secs(5);
/// Where the server is; calls come from there, too, and floods from 10.0.0.0/8.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The user who attacks; the call is another's.
pub(crate) const ATTACKER: &str = "mallory";

const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = "192.0.2.1"
listening-port = 3478
transports = ["udp", "tcp"]
[[listener]]
listening-ip = "192.0.2.1"
listening-port = 5349
transports = ["tls", "dtls"]
[tls]
cert = "cert.pem"
pkey = "cert.key"
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[[auth.user]]
name = "mallory"
password = "secret"
[peers]
allowed-peer-ip = ["192.0.2.1", "10.0.0.0/8"]
[process]
workers = 2
"#;

/// Someone attacks.
#[derive(Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    /// More tables of the configuration.
    pub(crate) configuration: &'static str,
    /// What starts the server, if not it alone.
    pub(crate) command: fn() -> Command,
    /// Until [`Pace::goes_on`] says no more.
    pub(crate) attack: fn(&Scene, &mut Pace),
    /// So many things a second in the short test.
    pub(crate) gentle: u32,
    /// What the server may grow by.
    pub(crate) growth_kib: usize,
    /// Lines of the log besides those of sessions.
    pub(crate) lines: usize,
}

impl Flood {
    pub(crate) const fn new(name: &'static str, gentle: u32, attack: fn(&Scene, &mut Pace)) -> Self {
        Self { name, configuration: "", command: alone, attack, gentle, growth_kib: 16 << 10, lines: 12 }
    }
}

/// The server and nothing else.
pub(crate) fn alone() -> Command {
    Command::new(env!("CARGO_BIN_EXE_turnserver"))
}

/// How long, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    duration: Duration,
    /// `None`: as fast as it can.
    per_second: Option<u32>,
}

impl Plan {
    /// For the report.
    pub(crate) const LONG: Self = Self { duration: Duration::from_secs(5), per_second: None };

    /// For each run of the tests.
    pub(crate) const fn short(flood: &Flood) -> Self {
        Self { duration: Duration::from_millis(1500), per_second: Some(flood.gentle) }
    }
}

/// Counts what an attack does, and holds it back.
pub(crate) struct Pace {
    begun: Instant,
    plan: Plan,
    done: u64,
}

impl Pace {
    pub(crate) fn goes_on(&self) -> bool {
        self.begun.elapsed() < self.plan.duration
    }

    /// So many more have been sent, made, or asked.
    pub(crate) fn count(&mut self, more: u32) {
        self.done += u64::from(more);
        if let Some(per_second) = self.plan.per_second {
            let due = self.begun + Duration::from_secs_f64(self.done as f64 / f64::from(per_second));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// How many there have been.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }
}

/// What an attack is aimed at.
pub(crate) struct Scene {
    pub(crate) server: Server,
    /// UDP and TCP.
    pub(crate) plain: SocketAddr,
    /// TLS and DTLS.
    pub(crate) secure: SocketAddr,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    name: &'static str,
    done: u64,
    lasted: Duration,
    talk: Talk,
    before: Vitals,
    peak_kib: usize,
    after: Vitals,
    /// From the end of the flood until somebody new had an allocation.
    recovery: Duration,
    /// Lines of the log that are not about sessions.
    lines: usize,
}

/// Runs one in a network of its own.
pub(crate) fn run(flood: Flood, plan: Plan) -> Outcome {
    in_new_network(move || {
        ip("link set lo up");
        ip(&format!("address add {SERVER}/32 dev lo"));
        ip("route add local 10.0.0.0/8 dev lo");
        play(flood, plan)
    })
}

fn play(flood: Flood, plan: Plan) -> Outcome {
    let server = Server::launch((flood.command)(), &format!("{CONFIGURATION}{}", flood.configuration));
    let scene = Scene { server, plain: (SERVER, 3478).into(), secure: (SERVER, 5349).into() };
    let call = Call::new(scene.plain);
    // What is touched first and kept: somebody comes and goes, on each transport.
    newcomer(&scene);
    let before = vitals(&scene.server);
    let (over, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let pid = scene.server.pid();
    let (talk, (done, lasted, recovery), peak_kib) = thread::scope(|scope| {
        let talk = scope.spawn(|| call.talk(&over));
        let peak = scope.spawn(|| {
            let mut peak = before.resident_kib;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(resident_kib(pid));
                thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        // Whatever fails here, those threads end.
        let _end = End([&over, &ended]);
        let mut pace = Pace { begun: Instant::now(), plan, done: 0 };
        (flood.attack)(&scene, &mut pace);
        let lasted = pace.begun.elapsed();
        let begun = Instant::now();
        newcomer(&scene);
        let recovery = begun.elapsed();
        ended.store(true, Ordering::Relaxed);
        // The call outlives the flood.
        thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        let peak = peak.join().expect("a peak");
        (talk.join().expect("a call"), (pace.done(), lasted, recovery), peak)
    });
    let after = vitals(&scene.server);
    let log = scene.server.log();
    let lines = log.lines().skip(before.log_lines).filter(|line| !line.contains("session ")).count();
    let Scene { server, .. } = scene;
    server.stop();
    remove_control_group();
    Outcome { name: flood.name, done, lasted, talk, before, peak_kib, after, recovery, lines }
}

/// Raises flags when it goes.
struct End<'f>([&'f AtomicBool; 2]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
    }
}

/// Somebody new who is served, as soon as may be.
fn newcomer(scene: &Scene) {
    let begun = Instant::now();
    let mut client = Client::new("udp", scene.plain, Some((USER, PASSWORD)));
    while let Err(refused) = client.allocate() {
        assert!(begun.elapsed() < PATIENCE, "still {refused:?}");
        thread::sleep(Duration::from_millis(5));
    }
    client.delete().expect("deleting it");
}

/// The head of the report.
pub(crate) const HEAD: &str = "| flood | each second | call: lost up, down, of | RSS before, peak, after (MiB) | CPU of the \
     server | log lines | somebody new after |\n|---|---:|---|---|---:|---:|---:|";

impl Outcome {
    /// A row of the report.
    pub(crate) fn row(&self) -> String {
        let seconds = self.lasted.as_secs_f64();
        let mib = |kib: usize| kib as f64 / 1024.0;
        format!(
            "| {} | {:.0} | {}, {}, {} | {:.1}, {:.1}, {:.1} | {:.0} % | {} | {} ms |",
            self.name,
            self.done as f64 / seconds,
            self.talk.lost_up,
            self.talk.lost_down,
            self.talk.sent,
            mib(self.before.resident_kib),
            mib(self.peak_kib),
            mib(self.after.resident_kib),
            100.0 * (self.after.cpu - self.before.cpu).as_secs_f64() / seconds,
            self.lines,
            self.recovery.as_millis(),
        )
    }

    /// What is to hold at any rate, and does not.
    pub(crate) fn check_recovery(&self) -> Option<String> {
        let recovers = self.talk.goes_on && self.recovery < Duration::from_secs(1);
        (!recovers).then(|| format!("{self:?}"))
    }

    /// What holds on a machine that bears the flood, while it does other things.
    pub(crate) fn check(&self, flood: &Flood) {
        assert!(self.done > 0, "that was no flood: {self:?}");
        assert!(self.talk.goes_on, "the call does not go on: {self:?}");
        // Buffers of the system are as large as it grants, and a stall of the machine may fill them: what is lost then is lost
        // in both directions together for a moment.
        let lost = self.talk.lost_up + self.talk.lost_down;
        assert!(lost * 10 <= self.talk.sent, "the call has lost too much: {self:?}");
        assert!(self.peak_kib <= self.before.resident_kib + flood.growth_kib, "memory grows: {self:?}");
        assert!(self.lines <= flood.lines, "the log grows: {self:?}");
        assert!(self.recovery < LATE, "somebody new waits too long: {self:?}");
    }
}
