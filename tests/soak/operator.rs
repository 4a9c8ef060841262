//! Who runs the server: reloads by signal and by command, of limits, users, secrets, certificates and listeners; sessions ended
//! by hand; mistakes that are refused.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, thread, time::Duration};

use crate::{
    caller::{Account, Caller},
    common::{
        PATIENCE, Server,
        ports::free_port_pair,
        tls::{Authority, HOST},
    },
    plan::{Choice, PASSING_SECRET, Plan, configuration},
    setup::{Peer, V4},
    wire::{Msg, REFRESH, allocate},
    world::{Way, World},
};

/// Between two things that the operator does.
const PAUSE: Duration = Duration::from_secs(4);

/// Something to do, and how it is counted.
type Deed<Who> = (&'static str, fn(&Who));

pub(crate) struct Operator<'s> {
    server: &'s Server,
    world: &'s World,
    program: &'s Path,
    authority: Authority,
    /// How often something was done.
    turn: usize,
    /// Where a further listener is, from time to time.
    port: u16,
}

impl<'s> Operator<'s> {
    const DEEDS: [Deed<Self>; 7] = [
        ("limits changed", Self::change_limits),
        ("users came and went", Self::user_comes_and_goes),
        ("certificates changed", Self::change_certificates),
        ("listeners came and went", Self::listener_comes_and_goes),
        ("mistakes refused", Self::make_a_mistake),
        ("secrets came and went", Self::secret_comes_and_goes),
        ("sessions ended by hand", Self::end_sessions),
    ];

    pub(crate) fn new(server: &'s Server, world: &'s World, plan: &'s Plan, authority: Authority) -> Self {
        Self {
            server,
            world,
            program: &plan.program,
            authority,
            turn: 0,
            port: free_port_pair(&[Ipv4Addr::LOCALHOST.into()]),
        }
    }

    pub(crate) fn do_everything(&mut self) {
        for _ in Self::DEEDS {
            self.do_something();
        }
    }

    pub(crate) fn work(&mut self) {
        while !self.world.is_over() {
            self.do_something();
            self.world.idle(PAUSE);
        }
    }

    fn do_something(&mut self) {
        let (name, deed) = Self::DEEDS[self.turn % Self::DEEDS.len()];
        self.world.attempt(name, || deed(self));
        self.turn += 1;
    }

    fn write(&self, choice: &Choice) {
        fs::write(self.world.folder.join("turnserver.toml"), configuration(choice)).expect("writing the configuration");
    }

    fn reloaded(&self) -> usize {
        self.server.log().matches(r#""message":"reloaded""#).count()
    }

    /// Goes on with another configuration: by `turnserver ctl`, or by a signal, in turn.
    fn reload(&self, choice: &Choice) {
        self.write(choice);
        let before = self.reloaded();
        if self.turn.is_multiple_of(2) {
            let mut command = Command::new(self.program);
            let socket = self.world.folder.join("control.sock");
            command.args(["ctl", "reload", "--socket"]).arg(socket).env_remove("TURNSERVER_CONFIG");
            let output = command.output().expect("to run");
            assert!(output.status.success(), "{output:?}");
        } else {
            let status = Command::new("kill").args(["-HUP", &self.world.pid.to_string()]).status().expect("to run");
            assert!(status.success(), "kill: {status}");
        }
        self.server.await_log(|log| (log.matches(r#""message":"reloaded""#).count() > before).then_some(()));
    }

    fn change_limits(&self) {
        let rate = self.turn % 5 + 20;
        self.reload(&Choice {
            limits: format!(
                "user-quota = 4000\nmax-bps = \"{rate}Mbit/s\"\nuser-max-bps = \"1Gbit/s\"\nmax-pps = 50000\n\
                 total-new-peer-rate = 5000\npermissions-per-allocation = 5{rate}\nunauthorized-rate = 2{rate}\n"
            ),
            ..Choice::default()
        });
        thread::sleep(PAUSE);
        self.reload(&Choice::default());
    }

    /// Allocations over two transports, in use; each with its peer.
    fn sessions(&self, account: &Account) -> Vec<(Caller, Peer)> {
        let open = |way| {
            let (mut caller, peer) = (Caller::open(self.world, way, account), Peer::new(V4));
            let relayed = caller.allocate();
            caller.permit(peer.address);
            caller.0.round_trip(&peer, relayed);
            (caller, peer)
        };
        [Way::Udp4, Way::Tls4, Way::Dtls6].map(open).into()
    }

    fn user_comes_and_goes(&self) {
        self.reload(&Choice { guest: true, ..Choice::default() });
        let guests = self.sessions(&Account::of("guest"));
        self.reload(&Choice::default());
        self.are_refused(guests, 401);
    }

    fn secret_comes_and_goes(&self) {
        self.reload(&Choice { secret: true, ..Choice::default() });
        let day = Duration::from_secs(86_400);
        let guests = self.sessions(&Account::lasting(PASSING_SECRET, day, "passing"));
        self.reload(&Choice::default());
        self.are_refused(guests, 401);
    }

    fn are_refused(&self, guests: Vec<(Caller, Peer)>, error: u16) {
        for (mut guest, _) in guests {
            guest.fail(&|| Msg::new(REFRESH), error);
            self.world.abandon(guest.0.client);
        }
    }

    /// Without a word to the server, which takes them up by itself.
    fn change_certificates(&self) {
        let before = self.reloaded();
        let (certificate, key) = self.authority.issue(&[HOST, "127.0.0.1"]);
        for (name, content) in [("cert.pem", certificate), ("cert.key", key)] {
            let new = self.world.folder.join("new");
            fs::write(&new, content).expect("a file");
            fs::rename(new, self.world.folder.join(name)).expect("to rename it");
        }
        self.server.await_log(|log| (log.matches(r#""message":"reloaded""#).count() > before).then_some(()));
        for way in [Way::Tls4, Way::Dtls4] {
            let mut caller = Caller::open(self.world, way, &Account::of("alice"));
            caller.allocate();
            caller.delete();
        }
    }

    /// It goes while it has sessions, and those go on until they end.
    fn listener_comes_and_goes(&self) {
        self.reload(&Choice { port: Some(self.port), ..Choice::default() });
        let at = (Ipv4Addr::LOCALHOST, self.port).into();
        let mut callers = [Way::Udp4, Way::Tcp4].map(|way| {
            let mut caller = Caller::over(self.world.connect_to(way, at), &Account::of("alice"));
            let relayed = caller.allocate();
            (caller, relayed)
        });
        self.reload(&Choice::default());
        let peer = Peer::new(V4);
        for (caller, relayed) in &mut callers {
            caller.permit(peer.address);
            caller.0.round_trip(&peer, *relayed);
            caller.delete();
        }
    }

    fn make_a_mistake(&self) {
        self.write(&Choice { limits: "user-quota = \"many\"\n".to_owned(), ..Choice::default() });
        let (status, body) = self.world.ask("POST", "/v1/reload", "");
        assert_eq!(status, 422, "{body}");
        self.write(&Choice::default());
    }

    fn end_sessions(&self) {
        let name = format!("ended-{}", self.world.user());
        let account = Account::lasting(crate::plan::SECRET, PATIENCE * 10, &name);
        let sessions = self.sessions(&account);
        let (status, body) = self.world.ask("DELETE", &format!("/v1/sessions?user={name}"), "");
        let told: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &told["disconnected"]), (200, &3.into()));
        for (mut caller, _) in sessions {
            caller.fail(&|| Msg::new(REFRESH), 437);
            caller.succeed(&allocate);
            caller.delete();
        }
    }
}
