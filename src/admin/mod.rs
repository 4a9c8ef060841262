//! Management: what an operator and their tools see of the running server and ask of it, over HTTP on a TCP port of this host
//! and on a Unix socket. It has a thread of its own, and nothing to do with the data path: it reads what [`crate::relay`]
//! publishes.
//!
//! * `sockets`: where it listens. `http`: connections, within limits. `routes`: who may ask for what.
//! * `health`, `metrics` (with `exposition`), `sessions`, `users`, `credentials`, `events`, `explain`, `control`, `reload`,
//!   `standing`: the answers. `reply`: their shape.
//! * `web`: the page. `browser`: what browsers may not ask. `uris`: where the server is reached.
//! * `lifecycle`: serving, draining, stopping. `census`: what all workers have counted, asked for not too often.
//!
//! Nothing here trusts who connects: what they may send, and how slowly, is bounded, and so is how many they are. What
//! changes anything or names users needs the token, or the right to open the Unix socket.

mod browser;
mod census;
mod control;
mod credentials;
mod events;
mod explain;
mod exposition;
mod health;
mod http;
mod lifecycle;
mod metrics;
mod patient;
mod query;
mod reload;
mod reply;
mod routes;
mod sessions;
mod sockets;
mod standing;
mod uris;
mod users;
mod web;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::SystemTime,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use self::{
    census::Surveyor,
    routes::{Entrance, Token},
};
pub use self::{
    lifecycle::{Lifecycle, Next},
    query::encode,
    reload::{Outcome, Refused, ReloadRequest, Reloads},
    sockets::{OpenError, Sockets},
    standing::Standing,
};
use crate::{
    config::{Effective, Settings},
    relay::Monitor,
};

/// The log level of the running server.
pub struct LogLevel {
    current: Mutex<String>,
    set: SetLevel,
}

/// Sets a log filter; an error says why it cannot be.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

impl LogLevel {
    /// `set` changes it.
    #[must_use]
    pub fn new(current: String, set: SetLevel) -> Self {
        Self { current: Mutex::new(current), set }
    }

    fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets another one.
    ///
    /// # Errors
    /// Why it cannot be set.
    pub fn set(&self, level: &str) -> Result<(), String> {
        (self.set)(level)?;
        level.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// When a certificate ends.
#[derive(Debug, Clone)]
struct Expiry {
    file: String,
    /// Seconds since 1970.
    at: i64,
}

/// What the answers are made from.
struct House {
    monitor: Monitor,
    lifecycle: Arc<Lifecycle>,
    surveyor: Surveyor,
    /// What a store has let in, if there is one.
    standing: Option<Standing>,
    log: Arc<LogLevel>,
    reloads: Arc<Reloads>,
    started: SystemTime,
    /// It listens on loopback only, if at all.
    is_local: bool,
    /// Replaced as a whole by a reload.
    known: RwLock<Arc<Known>>,
}

impl House {
    /// The configuration as it is now.
    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The configuration in force, and what the answers need of it.
struct Known {
    settings: Settings,
    /// As TOML, secrets masked.
    configuration: String,
    certificates: Vec<Expiry>,
    token: Option<Token>,
    /// `/metrics` and `/status` are for everybody who reaches the listener.
    open_metrics: bool,
    coturn_metrics: bool,
}

impl Known {
    fn new(settings: &Settings, is_local: bool) -> Arc<Self> {
        let management = &settings.management;
        Arc::new(Self {
            configuration: Effective(settings).to_string(),
            certificates: expiries(settings),
            settings: settings.clone(),
            token: management.token.as_ref().map(|token| Token::new(&token.0)),
            open_metrics: is_local || management.public_metrics,
            coturn_metrics: management.coturn_metrics,
        })
    }
}

/// Running management.
pub struct Admin {
    house: Arc<House>,
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Admin {
    /// Begins to serve on `sockets`.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(
        sockets: Sockets,
        settings: &Settings,
        monitor: Monitor,
        lifecycle: Arc<Lifecycle>,
        standing: Option<Standing>,
        log: Arc<LogLevel>,
        reloads: Arc<Reloads>,
    ) -> io::Result<Self> {
        let is_local = sockets.addresses().iter().all(|address| address.ip().is_loopback());
        let house = Arc::new(House {
            surveyor: Surveyor::new(monitor.clone()),
            monitor,
            lifecycle,
            standing,
            log,
            reloads,
            started: SystemTime::now(),
            is_local,
            known: RwLock::new(Known::new(settings, is_local)),
        });
        let served = Arc::clone(&house);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("management".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = http::serve(sockets, served) => {}
                    // Either way it is the end.
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { house, thread, stop })
    }

    /// Serves one more connection, wherever it has come from: as over the network, or as over the Unix socket.
    #[doc(hidden)]
    pub async fn converse<S>(&self, stream: S, over_network: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let entrance = if over_network { Entrance::Network } else { Entrance::Socket };
        http::converse(stream, Arc::clone(&self.house), entrance).await;
    }

    /// Goes on with other settings.
    pub fn renew(&self, settings: &Settings) {
        let known = Known::new(settings, self.house.is_local);
        *self.house.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Ends it, with all connections.
    pub fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("a bug: management has panicked");
        }
    }
}

/// When the certificates end.
fn expiries(settings: &Settings) -> Vec<Expiry> {
    let certificates = settings.tls.iter().flat_map(|tls| &tls.certificates);
    let expiry = |certificate: &crate::config::settings::Certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.chain.first()?).ok()?;
        Some(Expiry { file: certificate.cert.display().to_string(), at: parsed.validity().not_after.timestamp() })
    };
    certificates.filter_map(expiry).collect()
}
