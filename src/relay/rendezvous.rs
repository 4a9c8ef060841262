//! Where a peer connection (RFC 6062) meets the client data connection that binds it, whichever workers the two are on.
//!
//! The worker that has the allocation puts the peer's socket here; nobody reads from it, so that what the peer sends waits in
//! the system's buffer, and flow control holds it there. The worker that takes the ConnectionBind takes the socket out and
//! relays. It is the peer's socket that moves, since the client's may be the end of a TLS session. From then on each tells the other only
//! of the end: the one through [`Link::close`], the other through an [`Event`].

use std::{
    collections::HashMap,
    mem,
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    policy::limiter::Allowance,
    turn::{BindRefusal, ConnectionId, Flow, Subject},
};

/// What both sides know of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// The worker that has the allocation.
    pub(super) owner: u16,
    pub(super) flow: Arc<Flow>,
    /// What the allocation may take, if that is limited.
    pub(super) allowance: Option<Arc<Allowance>>,
    /// Told once when the connection is to be closed because its allocation ends.
    pub(super) close: Notify,
}

/// A peer connection that waits for its client.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The only one who may have it.
    pub(super) subject: Arc<Subject>,
    pub(super) link: Arc<Link>,
    pub(super) socket: TcpStream,
}

/// What the owner of a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A client has it.
    Bound(ConnectionId),
    /// It has ended.
    Closed(ConnectionId),
}

/// Events for one worker: at most two for each of its connections.
#[derive(Debug, Default)]
struct Events {
    waiting: Mutex<Vec<Event>>,
    notify: Notify,
}

/// None of the locked values can be left half-changed by a panic: each is changed by one call that does not call out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives a peak's memory back.
fn shrink(all: &mut HashMap<ConnectionId, Waiting>) {
    /// Not worth the trouble below.
    const FEW: usize = 64;
    if all.is_empty() && all.capacity() > FEW {
        *all = HashMap::new();
    }
}

/// The meeting place of all workers.
#[derive(Debug)]
pub(super) struct Rendezvous {
    waiting: Mutex<HashMap<ConnectionId, Waiting>>,
    /// By worker.
    events: Box<[Events]>,
}

impl Rendezvous {
    pub(super) fn new(workers: usize) -> Self {
        Self { waiting: Mutex::default(), events: (0..workers).map(|_| Events::default()).collect() }
    }

    /// Offers a connection to whoever binds it.
    pub(super) fn offer(&self, waiting: Waiting) {
        let replaced = lock(&self.waiting).insert(waiting.link.id, waiting);
        debug_assert!(replaced.is_none(), "ids are unique");
    }

    /// Takes a connection for a client of this one; it can be had once.
    pub(super) fn claim(&self, id: ConnectionId, subject: &Subject) -> Result<Waiting, BindRefusal> {
        let mut all = lock(&self.waiting);
        let waiting = all.get(&id).ok_or(BindRefusal::Unknown)?;
        if *waiting.subject != *subject {
            return Err(BindRefusal::WrongUser);
        }
        let claimed = all.remove(&id).ok_or(BindRefusal::Unknown);
        shrink(&mut all);
        claimed
    }

    /// Takes a connection back that nobody has bound.
    pub(super) fn withdraw(&self, id: ConnectionId) {
        let mut all = lock(&self.waiting);
        let withdrawn = all.remove(&id);
        shrink(&mut all);
        drop(all);
        // The socket is closed here, after the lock is released.
        drop(withdrawn);
    }

    /// Tells a worker what has become of one of its connections.
    pub(super) fn tell(&self, worker: u16, event: Event) {
        let Some(events) = self.events.get(usize::from(worker)) else { return };
        lock(&events.waiting).push(event);
        events.notify.notify_one();
    }

    /// What a worker has been told; waits until there is something.
    pub(super) async fn told(&self, worker: u16) -> Vec<Event> {
        let events = &self.events[usize::from(worker)];
        loop {
            let told = mem::take(&mut *lock(&events.waiting));
            if !told.is_empty() {
                return told;
            }
            events.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn subject(user: &str) -> Subject {
        Subject::new(user, "example.org")
    }

    fn waiting(id: u32, user: &str) -> Waiting {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = Link { id: ConnectionId(id), owner: 1, flow: Arc::default(), allowance: None, close: Notify::new() };
        Waiting { subject: Arc::new(subject(user)), link: Arc::new(link), socket }
    }

    /// 6062-5.4-03, 6062-5.4-06
    #[test]
    fn a_connection_is_had_once_and_by_its_user_alone() {
        let rendezvous = Rendezvous::new(2);
        rendezvous.offer(waiting(7, "alice"));
        rendezvous.offer(waiting(8, "alice"));
        assert_eq!(rendezvous.claim(ConnectionId(9), &subject("alice")).err(), Some(BindRefusal::Unknown));
        assert_eq!(rendezvous.claim(ConnectionId(7), &subject("bob")).err(), Some(BindRefusal::WrongUser));
        assert_eq!(
            rendezvous.claim(ConnectionId(7), &subject("alice")).map(|waiting| waiting.link.id),
            Ok(ConnectionId(7))
        );
        assert_eq!(rendezvous.claim(ConnectionId(7), &subject("alice")).err(), Some(BindRefusal::Unknown));
        rendezvous.withdraw(ConnectionId(8));
        assert_eq!(rendezvous.claim(ConnectionId(8), &subject("alice")).err(), Some(BindRefusal::Unknown));
    }

    #[tokio::test]
    async fn each_worker_is_told_of_its_own_connections_in_order() {
        let rendezvous = Rendezvous::new(2);
        rendezvous.tell(1, Event::Bound(ConnectionId(3)));
        rendezvous.tell(1, Event::Closed(ConnectionId(3)));
        rendezvous.tell(0, Event::Bound(ConnectionId(2)));
        rendezvous.tell(2, Event::Bound(ConnectionId(2)));
        let expected = [Event::Bound(ConnectionId(3)), Event::Closed(ConnectionId(3))];
        assert_eq!(rendezvous.told(1).await, expected);
        assert_eq!(rendezvous.told(0).await, [Event::Bound(ConnectionId(2))]);
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(1), rendezvous.told(1));
        assert!(nothing.await.is_err());
    }
}
