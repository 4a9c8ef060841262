//! Log lines about trouble that can come with every packet: at most one of a kind in ten seconds.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::system::is_out_of_descriptors;

/// What helps when descriptors have run out.
pub(super) const RAISE_DESCRIPTORS: &str = "raise the limit of file descriptors (LimitNOFILE= in the unit, ulimit -n)";

/// Shortest time between two complaints of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Remembers when a kind of complaint was last made: in seconds of a clock that nobody sets, from 1 on; 0 is never.
struct Throttle(AtomicU64);

impl Throttle {
    /// Whether to complain now.
    fn permits(&self) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.permits_at(START.elapsed().as_secs() + 1)
    }

    fn permits_at(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        (last == 0 || now >= last.saturating_add(PAUSE.as_secs()))
            && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A relay socket could not be opened.
pub(super) fn about_relay_socket(address: SocketAddr, error: &io::Error) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!(%address, %error, remedy = remedy(error), "cannot open a relay socket; clients get 508");
    }
}

/// All ports of the range are taken.
pub(super) fn about_ports() {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::warn!("no relay port is left; clients get 508; widen min-port..max-port or add a relay-ip");
    }
}

/// A connection could not be accepted.
pub(super) fn about_accept(error: &io::Error) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!(%error, remedy = remedy(error), "cannot accept a connection");
    }
}

/// A connection from a balancer did not say whose it is.
pub(super) fn about_proxy(balancer: SocketAddr) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        let remedy = "make the balancer send the PROXY protocol, or take it out of proxy-protocol";
        tracing::warn!(%balancer, remedy, "closed a connection without a PROXY protocol header");
    }
}

/// Handshakes were given up for newer ones.
pub(super) fn about_handshakes() {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::warn!("too many unfinished handshakes (max-handshakes); the oldest give way to new ones");
    }
}

/// A socket that connects to a peer could not be opened.
pub(super) fn about_connecting(address: SocketAddr, error: &io::Error) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!(%address, %error, remedy = remedy(error), "cannot connect to peers; clients get 447");
    }
}

/// A socket gave an error that is not about one datagram.
pub(super) fn about_receiving(error: &io::Error) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!(%error, "cannot receive");
    }
}

/// A panic was caught while handling one client.
pub(super) fn about_panic(client: SocketAddr) {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!(%client, "a bug: handling this client panicked; its allocation was given up, all others go on");
    }
}

thread_local! {
    /// What the newest panic of this thread said, and where.
    static NEWEST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Logs panics from now on, in place of a line on standard error for each.
pub fn log_panics() {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or_default();
        if THROTTLE.permits() {
            tracing::error!(place, what, "a bug: a panic");
        }
        let told = format!("{what}, at {}", place.as_deref().unwrap_or("an unknown place"));
        // A thread that is about to end remembers nothing.
        let _ = NEWEST_PANIC.try_with(|newest| newest.replace(Some(told)));
    }));
}

/// What the newest panic of this thread was, if panics are logged and it has not been asked for.
pub(super) fn newest_panic() -> Option<String> {
    NEWEST_PANIC.take()
}

/// A panic was caught that is nobody's in particular.
pub(super) fn about_fault() {
    static THROTTLE: Throttle = Throttle(AtomicU64::new(0));
    if THROTTLE.permits() {
        tracing::error!("a bug: a step of a worker panicked and was given up; the worker goes on");
    }
}

/// What an operator can do about it.
fn remedy(error: &io::Error) -> &'static str {
    if is_out_of_descriptors(error) {
        return RAISE_DESCRIPTORS;
    }
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "the address has left this host; check relay-ip",
        io::ErrorKind::OutOfMemory => "the host is out of memory",
        _ => "see the error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_in_ten_seconds() {
        let throttle = Throttle(AtomicU64::new(0));
        let complaints: Vec<u64> = (1..=31).filter(|now| throttle.permits_at(*now)).collect();
        assert_eq!(complaints, [1, 11, 21, 31]);
    }
}
