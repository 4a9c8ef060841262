//! Limits at work: an allocation's place in the quotas, its meter for the protocol, and the file that outlives the process.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::clock::Clock;
use crate::{
    auth::subject::Subject,
    policy::{
        account::Direction,
        limit::{Kind, Limit},
        limiter::{Allowance, Limiter, Stretch},
        month::Month,
        quota::Apart,
        usage::{self, UsageError},
    },
    turn::{Drop, Flow, Meter, Time},
};

/// One allocation's place in the quotas; given back when this is dropped.
#[derive(Debug)]
pub(super) struct QuotaLease {
    limiter: Arc<Limiter>,
    subject: Subject,
    /// Who counts it as unused.
    apart: AtomicU8,
}

impl QuotaLease {
    pub(super) fn new(limiter: &Arc<Limiter>, subject: &Subject) -> Result<Self, Limit> {
        let apart = AtomicU8::new(limiter.take(subject)?.bits());
        Ok(Self { limiter: Arc::clone(limiter), subject: subject.clone(), apart })
    }

    /// Who holds it.
    pub(super) const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether this is a place of this subject.
    pub(super) fn is_of(&self, subject: &Subject) -> bool {
        self.subject == *subject
    }

    /// Counts the allocation as used from now on.
    fn begin_use(&self) -> Result<(), Limit> {
        let apart = self.apart();
        if apart != Apart::default() {
            self.limiter.begin_use(&self.subject, apart)?;
            self.apart.store(Apart::default().bits(), Relaxed);
        }
        Ok(())
    }

    fn apart(&self) -> Apart {
        Apart::from_bits(self.apart.load(Relaxed))
    }
}

impl std::ops::Drop for QuotaLease {
    fn drop(&mut self) {
        self.limiter.give_back(&self.subject, self.apart());
    }
}

/// Holds one allocation to its limits, on the worker that has it.
pub(super) struct AllocationMeter {
    pub(super) limiter: Arc<Limiter>,
    pub(super) quota: Arc<QuotaLease>,
    /// There if rates, or bytes of the month, are limited.
    pub(super) allowance: Option<Arc<Allowance>>,
    pub(super) worker: usize,
}

impl AllocationMeter {
    fn pass(&self, direction: Direction, bytes: usize, now: Time) -> Result<(), Drop> {
        let Some(allowance) = &self.allowance else { return Ok(()) };
        allowance.pass(self.worker, direction, bytes, now.0).map_err(|Limit(kind, _)| match kind {
            Kind::Packets => Drop::PacketRate,
            Kind::Month => Drop::MonthUsedUp,
            Kind::Bandwidth | Kind::Allocations | Kind::Unused | Kind::NewPeers => Drop::Bandwidth,
        })
    }
}

impl Meter for AllocationMeter {
    fn to_peer(&mut self, bytes: usize, now: Time) -> Result<(), Drop> {
        self.pass(Direction::ToPeer, bytes, now)
    }

    fn to_client(&mut self, bytes: usize, now: Time) -> Result<(), Drop> {
        self.pass(Direction::ToClient, bytes, now)
    }

    fn wait(&mut self, bytes: usize, now: Time) -> Option<Time> {
        let allowance = self.allowance.as_ref()?;
        allowance.wait_ms(self.worker, Direction::ToPeer, bytes, now.0).map(Time)
    }

    fn add_peers(&mut self, peers: usize, now: Time) -> Result<(), &'static str> {
        let begun = self.quota.begin_use().inspect_err(|limit| self.limiter.refused(self.worker, *limit));
        let added = begun.and_then(|()| match &self.allowance {
            Some(allowance) => allowance.add_peers(self.worker, peers, now.0),
            None => Ok(()),
        });
        added.map_err(Limit::words)
    }
}

/// What counts and limits the bytes of a connection between a client and a peer (RFC 6062), on the worker that passes them.
pub(super) struct Tap<'f> {
    pub(super) flow: &'f Flow,
    pub(super) limits: Option<(&'f Allowance, Clock)>,
    pub(super) worker: usize,
}

impl Tap<'_> {
    /// How much may be read, of `most`, by who has been told to wait until `resume`, in milliseconds.
    pub(super) fn stretch(&self, direction: Direction, most: usize, resume: Option<u64>) -> Stretch {
        let Some((allowance, clock)) = &self.limits else { return Stretch::Bytes(most) };
        let now = clock.now().0;
        match resume {
            Some(time) if time > now => Stretch::NotBefore(time),
            _ => allowance.stretch(self.worker, direction, most, now),
        }
    }

    /// Counts what was read.
    pub(super) fn count(&self, direction: Direction, bytes: usize) {
        match direction {
            Direction::ToPeer => self.flow.count_to_peer(bytes),
            Direction::ToClient => self.flow.count_to_client(bytes),
        }
        if let Some((allowance, clock)) = &self.limits {
            allowance.pass_stream(self.worker, direction, bytes, clock.now().0);
        }
    }
}

/// Why counts of an earlier process cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is not what was written.
    #[error("{path} {error}; restore it, or move it away to begin the month's count anew", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: UsageError,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {error}; let the server's user read it", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file cannot be written.
    #[error(
        "cannot write {path}: {error}; make state-directory a folder that the server's user may write to",
        path = .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The name of the file in the state directory.
const FILE: &str = "usage";
/// The longest time between two writings: so much is forgotten at most if the process is killed.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps the bytes of the month in a file.
#[derive(Debug)]
pub(super) struct Bookkeeper {
    thread: JoinHandle<()>,
    stop: SyncSender<()>,
}

impl Bookkeeper {
    /// Takes over what an earlier process has counted, makes sure that this one can write, and begins to do so.
    pub(super) fn start(limiter: &Arc<Limiter>, directory: &Path, clock: Clock) -> Result<Self, StateError> {
        let path = directory.join(FILE);
        let now = clock.now();
        limiter.restore(read(&path, now)?, now.0);
        let write_error = |error| StateError::Write { path: path.clone(), error };
        let mut written = contents(limiter, now);
        write(&path, &written).map_err(write_error)?;
        let (stop, stopped) = mpsc::sync_channel(1);
        let limiter = Arc::clone(limiter);
        let file = path.clone();
        let keep = move || {
            let mut complained = false;
            loop {
                let told = stopped.recv_timeout(PERIOD);
                let text = contents(&limiter, clock.now());
                if text != written {
                    match write(&file, &text) {
                        Ok(()) => (written, complained) = (text, false),
                        Err(error) if !complained => {
                            complained = true;
                            tracing::error!(
                                path = %file.display(), %error,
                                "the bytes of the month cannot be written; those since the last time would be forgotten with \
                                 the process: make room, and let the server's user write there"
                            );
                        }
                        Err(_) => {}
                    }
                }
                if told != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("usage".into()).spawn(keep).map_err(write_error)?;
        Ok(Self { thread, stop })
    }

    /// Writes a last time, when nothing more is relayed.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps the bytes of the month panicked");
        }
    }
}

fn contents(limiter: &Limiter, now: Time) -> String {
    let (month, counts) = limiter.month(now.0);
    usage::encode(month, counts.iter().map(|(holder, bytes)| (holder, *bytes)))
}

fn read(path: &Path, now: Time) -> Result<Vec<(crate::policy::quota::Holder, u64)>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            usage::decode(&text, Month::of(now.0)).map_err(|error| StateError::Damaged { path: path.to_owned(), error })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StateError::Read { path: path.to_owned(), error }),
    }
}

/// Replaces a file as a whole: whenever the process or the system ends, there is the old one or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // Names of users are nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{HolderLimits, RealmLimits};

    fn limiter(directory: &Path) -> Arc<Limiter> {
        let text = format!(
            "[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n[limits]\ntotal-bytes-per-month = \"1MB\"\n\
             state-directory = {:?}\n",
            directory.display().to_string()
        );
        let host = crate::config::Host::detect().unwrap();
        let settings = crate::config::parse(&text, "t.toml", &host).unwrap().settings;
        let user = HolderLimits { bytes_per_month: Some(1_000), ..HolderLimits::default() };
        Arc::new(Limiter::new(&settings.limits, [("r".into(), RealmLimits { user, ..RealmLimits::default() })], 1))
    }

    fn subject() -> Subject {
        Subject { user: "alice".into(), realm: "r".into(), tenant: None }
    }

    #[test]
    fn counts_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new();
        for (before, more) in [(0, 400), (400, 500), (900, 100)] {
            let limiter = limiter(folder.path());
            let keeper = Bookkeeper::start(&limiter, folder.path(), clock).unwrap();
            let now = clock.now();
            let total: Vec<u64> = limiter.month(now.0).1.into_iter().map(|(_, bytes)| bytes).collect();
            assert_eq!(total, if before == 0 { vec![] } else { vec![before; 2] });
            let allowance = limiter.allowance(&subject(), false, now.0).unwrap().expect("limits");
            assert_eq!(allowance.pass(0, Direction::ToPeer, more, now.0), Ok(()));
            keeper.stop();
        }
        let limiter = limiter(folder.path());
        let keeper = Bookkeeper::start(&limiter, folder.path(), clock).unwrap();
        let refused = limiter.allowance(&subject(), false, clock.now().0);
        assert!(matches!(refused, Err(Limit(Kind::Month, crate::policy::limit::Scope::User))), "{refused:?}");
        keeper.stop();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(text.contains("\tuser\tr\talice\t1000\n") && text.contains("\ttotal\t\t\t1000\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_or_written_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, clock) = (limiter(folder.path()), Clock::new());
        fs::write(folder.path().join(FILE), "turnserver usage 1\n").unwrap();
        let damaged = Bookkeeper::start(&limiter, folder.path(), clock).unwrap_err().to_string();
        assert!(damaged.contains("is cut off; restore it, or move it away"), "{damaged}");
        let missing = Bookkeeper::start(&limiter, &folder.path().join("none"), clock).unwrap_err().to_string();
        assert!(missing.contains("cannot write") && missing.contains("make state-directory a folder"), "{missing}");
    }
}
