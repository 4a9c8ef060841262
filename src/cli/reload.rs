//! Going on with a configuration that has changed: read again because somebody asks for it, or because a file that belongs to it
//! is another one. It is checked as a whole first; whatever is wrong, everything stays as it is.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{
    outward::{self, Outlook},
    signals::Signal,
    stored_realms::StoredRealms,
    systemd,
    watch::{Look, Watch},
};
use crate::{
    admin::{Admin, Lifecycle, LogLevel, Outcome, Refused, ReloadRequest, Reloads},
    auth::store::{logins::Logins, realms::KnownRealms},
    config::{
        self, ConfigErrors, Loaded, Settings,
        change::{differences, keep_until_restart, with_realms_in_place},
        settings::{LogFormat, RelayAddress},
    },
    relay::{Endpoint, Relay},
};

/// Where the configuration comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// The text that is in force.
    pub(super) text: Zeroizing<String>,
    pub(super) overrides: Overrides,
}

/// What the command line says in place of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub(super) level: Option<String>,
    pub(super) format: Option<LogFormat>,
}

impl Overrides {
    pub(super) fn apply(&self, settings: &mut Settings) {
        if let Some(level) = &self.level {
            settings.log.level.clone_from(level);
        }
        if let Some(format) = self.format {
            settings.log.format = format;
        }
    }
}

impl Source {
    /// Reads and checks a text as if it stood in the file.
    fn parse(&self, text: &str) -> Result<Loaded, Refused> {
        let mut loaded = config::parse_file(&self.path, text).map_err(|errors| reasons(&errors))?;
        self.overrides.apply(&mut loaded.settings);
        Ok(loaded)
    }
}

/// A line for each error.
fn reasons(errors: &ConfigErrors) -> Refused {
    errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Signal,
    Management,
    /// A file that belongs to it has changed.
    File,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Management => "management",
            Self::File => "a file has changed",
        }
    }
}

/// What reloads are about.
pub(super) struct Parts {
    pub(super) relay: Relay,
    pub(super) admin: Option<Admin>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) log: Arc<LogLevel>,
    pub(super) realms: StoredRealms,
    pub(super) logins: Option<Arc<Logins>>,
    pub(super) reloads: Arc<Reloads>,
    /// Where this process serves others than clients.
    pub(super) reserved: Vec<SocketAddr>,
}

/// The running server as reloads change it.
pub(super) struct Running {
    pub(super) parts: Parts,
    /// `None` for the built-in configuration.
    source: Option<Source>,
    in_force: Settings,
    watch: Watch,
    outlook: Outlook,
    requests: mpsc::Receiver<ReloadRequest>,
    /// What was said last about files that cannot be used.
    complaint: Option<Refused>,
}

/// What a running server heeds.
pub(super) enum Event {
    Signal(Signal),
    Wish(Wish),
    /// The store has other peer rules.
    Peers,
}

/// What it is asked for.
pub(super) enum Wish {
    Reload(ReloadRequest),
    Files(Look),
    /// The world sees other addresses.
    Addresses(Vec<RelayAddress>),
}

impl Running {
    /// With what is in force, and the files that were read for it.
    pub(super) fn new(
        parts: Parts,
        source: Option<Source>,
        (in_force, files): (Settings, Vec<PathBuf>),
        requests: mpsc::Receiver<ReloadRequest>,
    ) -> Self {
        let (watch, outlook) = (Watch::new(files), Outlook::new(&in_force.relay));
        Self { parts, source, in_force, watch, outlook, requests, complaint: None }
    }

    /// Waits until there is something to do, other than because of a signal.
    pub(super) async fn event(&mut self) -> Event {
        let Self { watch, outlook, requests, parts, in_force, .. } = self;
        tokio::select! {
            Some(request) = requests.recv() => Event::Wish(Wish::Reload(request)),
            look = watch.change() => Event::Wish(Wish::Files(look)),
            found = outlook.change(&in_force.relay) => Event::Wish(Wish::Addresses(found)),
            () = parts.realms.change() => Event::Peers,
        }
    }

    /// Does what was wished for.
    pub(super) async fn fulfil(&mut self, wish: Wish) {
        match wish {
            Wish::Reload(request) => request.answer(self.reload(Cause::Management).await),
            Wish::Files(look) => self.reload_files(&look).await,
            Wish::Addresses(found) => self.go_on_at(&found).await,
        }
    }

    /// Tells new clients of other external addresses; older sessions keep what their clients were told.
    async fn go_on_at(&mut self, found: &[RelayAddress]) {
        let mut settings = self.in_force.clone();
        outward::put(&mut settings.relay.addresses, found);
        let Parts { relay, admin, reserved, reloads, realms, .. } = &mut self.parts;
        if let Err(error) = relay.reload(settings.clone(), reserved, &realms.peers()).await {
            return tracing::error!(%error, "the external address has changed, and the server cannot go on with the new one");
        }
        for RelayAddress { local, external } in found {
            reloads.count_address();
            tracing::warn!(
                %local, %external,
                "the external address has changed: new allocations are told the new one, older ones keep theirs"
            );
        }
        if let Some(admin) = admin {
            admin.renew(&settings);
        }
        self.in_force = settings;
    }

    /// Whether there is a file to read again.
    pub(super) const fn is_configured(&self) -> bool {
        self.source.is_some()
    }

    /// Reads everything again, because of a signal.
    pub(super) async fn heed_signal(&mut self) {
        // It is logged what has come of it.
        let _ = self.reload(Cause::Signal).await;
    }

    /// Reads everything again. A reload that somebody has asked for begins and ends here, whatever comes of it.
    async fn reload(&mut self, cause: Cause) -> Result<Outcome, Refused> {
        systemd::reloading();
        let outcome = self.read_again(cause).await;
        systemd::ready();
        outcome
    }

    async fn read_again(&mut self, cause: Cause) -> Result<Outcome, Refused> {
        let look = self.watch.look().await;
        let Some(source) = &self.source else {
            let why = "the server runs with its built-in configuration: there is no file to read again".to_owned();
            return self.finish(cause, Err(why));
        };
        let text = config::read(&source.path).map_err(|errors| reasons(&errors));
        let outcome = match text {
            Ok(text) => self.go_on_with(&text, &look).await,
            Err(why) => Err(why),
        };
        self.finish(cause, outcome)
    }

    /// Reads again what stands in other files than the configuration itself, which somebody may be writing at this moment.
    async fn reload_files(&mut self, look: &Look) {
        let Some(text) = self.source.as_ref().map(|source| source.text.clone()) else { return };
        match self.go_on_with(&text, look).await {
            // As after a change that was taken back.
            Ok(Outcome { changed, .. }) if changed.is_empty() => self.complaint = None,
            // Half of a change, most likely: a certificate whose key is yet to come.
            Err(why) if self.complaint.as_ref() == Some(&why) => {}
            outcome => {
                let _ = self.finish(Cause::File, outcome);
            }
        }
    }

    /// Goes on with what this text says, or tells why not.
    async fn go_on_with(&mut self, text: &Zeroizing<String>, look: &Look) -> Result<Outcome, Refused> {
        let Some(source) = &mut self.source else { return Ok(Outcome::default()) };
        let Loaded { mut settings, warnings, files } = source.parse(text)?;
        let restart = keep_until_restart(&mut settings, &self.in_force);
        let known = Some(&self.in_force.relay).filter(|relay| relay.find_external.auto);
        outward::find(&mut settings.relay, known.map_or(&[], |relay| &relay.addresses)).await;
        let Parts { relay, admin, lifecycle, log, realms, logins, reserved, .. } = &mut self.parts;
        realms.limit(&mut settings, &self.in_force).await;
        let changed = differences(&self.in_force, &settings);
        let endpoints = relay.endpoints();
        let stored = realms.of(&with_realms_in_place(settings.clone(), &relay.settings_in_place())).await;
        let added = stored.as_ref().map(KnownRealms::peers).unwrap_or_default();
        let reloaded = relay.reload(settings.clone(), reserved, &added).await.map_err(|error| error.to_string())?;
        realms.set(stored);
        let placed = relay.settings_in_place();
        if let Some(logins) = logins {
            logins.renew(&placed);
        }
        lifecycle.set_timeout(settings.process.drain_timeout);
        if settings.log.level != self.in_force.log.level
            && let Err(why) = log.set(&settings.log.level)
        {
            tracing::warn!(why, "the log level stays as it was");
        }
        if let Some(admin) = admin {
            admin.renew(&settings);
        }
        log_endpoints(&endpoints, &relay.endpoints());
        self.watch.set(files, look);
        if settings.relay.find_external.interval != self.in_force.relay.find_external.interval {
            self.outlook = Outlook::new(&settings.relay);
        }
        source.text.clone_from(text);
        self.in_force = settings;
        Ok(Outcome {
            changed,
            restart,
            warnings: warnings.iter().map(ToString::to_string).collect(),
            ended: reloaded.ended,
            complete: reloaded.complete,
        })
    }

    /// Logs and counts what has come of a reload.
    fn finish(&mut self, cause: Cause, outcome: Result<Outcome, Refused>) -> Result<Outcome, Refused> {
        self.parts.reloads.count(outcome.is_ok());
        match &outcome {
            Ok(Outcome { changed, restart, warnings, ended, complete }) => {
                self.complaint = None;
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(cause = cause.name(), changed = changed.join(", "), sessions_ended = ended, "reloaded");
                if !restart.is_empty() {
                    tracing::warn!(keys = restart.join(", "), "not applied until a restart");
                }
                if !complete {
                    tracing::warn!("a worker is busy and follows later");
                }
            }
            Err(why) => {
                why.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!(cause = cause.name(), "not reloaded: nothing has changed");
                self.complaint = Some(why.clone());
            }
        }
        outcome
    }
}

/// Logs where clients are served from now on, and where no longer.
fn log_endpoints(before: &[Endpoint], after: &[Endpoint]) {
    let [before, after] = [before, after].map(|all| all.iter().copied().collect::<BTreeSet<_>>());
    for Endpoint { transport, address } in after.difference(&before) {
        tracing::info!(transport = transport.name(), %address, "listening");
    }
    for Endpoint { transport, address } in before.difference(&after) {
        tracing::info!(transport = transport.name(), %address, "serves no new clients");
    }
}
