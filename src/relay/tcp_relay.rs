//! TCP relayed addresses (RFC 6062): their listeners, the connections that clients ask for, and handing both to whoever binds
//! them. What happens on a connection once it is bound is in `data_connection.rs`.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    ops,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use slab::Slab;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::timeout,
};

use super::{
    complaint,
    core::Core,
    limits::QuotaLease,
    open,
    ports::{Owner, PortLease},
    rendezvous::{Event, Link, Rendezvous, Waiting},
    route::Way,
    shared::Shared,
    system,
};
use crate::{
    auth::subject::Subject,
    turn::{
        AddressRequest, BindRefusal, Client, ConnectRequest, ConnectionId, Drop, Grant, Handle, PeerConnection,
        PendingAllocate, PendingBind, Refusal, RelayId,
    },
};

/// Tells the numbers of TCP relayed addresses from those of relay sockets.
const TCP_RELAY: u32 = 1 << 31;

/// A TCP relayed address.
#[derive(Debug)]
struct TcpRelay {
    /// The address that its connections come from.
    local: SocketAddr,
    /// The allocation; `None` only between opening and granting.
    handle: Option<Handle>,
    /// The task that has the listener.
    accepting: AbortHandle,
    /// Keeps the port from being leased again as long as the address is in use.
    _lease: PortLease,
}

impl ops::Drop for TcpRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A peer connection of an allocation of this worker.
#[derive(Debug)]
enum Peer {
    /// A task makes it.
    Connecting(AbortHandle),
    /// It waits for its client, or is bound.
    Connected(Arc<Link>),
}

/// What a worker has for TCP allocations.
#[derive(Debug)]
pub(super) struct TcpRelays {
    relays: Slab<TcpRelay>,
    peers: HashMap<ConnectionId, Peer>,
    pub(super) connect_timeout: Duration,
    /// The worker's state, for the tasks.
    core: Weak<RefCell<Core>>,
    /// Tells the worker that deadlines may have changed.
    changed: Rc<Notify>,
}

impl TcpRelays {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let (core, changed) = (Weak::new(), Rc::default());
        Self { relays: Slab::new(), peers: HashMap::new(), connect_timeout, core, changed }
    }

    /// Closes a TCP relayed address; false if this number is a relay socket's.
    pub(super) fn close_relay(&mut self, relay: RelayId) -> bool {
        let is_tcp = relay.0 & TCP_RELAY != 0;
        if is_tcp {
            self.relays.try_remove(place(relay));
            if self.relays.is_empty() {
                self.relays = Slab::new();
            }
        }
        is_tcp
    }

    /// Closes a peer connection, wherever it is.
    pub(super) fn close_peer(&mut self, id: ConnectionId, rendezvous: &Rendezvous) {
        match self.peers.remove(&id) {
            Some(Peer::Connecting(task)) => task.abort(),
            Some(Peer::Connected(link)) => {
                rendezvous.withdraw(id);
                link.close.notify_one();
            }
            None => {}
        }
        self.shrink();
    }

    /// Gives a peak's memory back.
    fn shrink(&mut self) {
        if self.peers.is_empty() {
            self.peers = HashMap::new();
        }
    }

    /// Notes whose a relayed address is; false if this number is a relay socket's.
    pub(super) fn belongs_to(&mut self, relay: RelayId, handle: Handle) -> bool {
        if let Some(entry) = self.relays.get_mut(place(relay)).filter(|_| relay.0 & TCP_RELAY != 0) {
            entry.handle = Some(handle);
        }
        relay.0 & TCP_RELAY != 0
    }
}

const fn place(relay: RelayId) -> usize {
    (relay.0 & !TCP_RELAY) as usize
}

/// Begins to serve TCP allocations on this worker.
pub(super) fn start(core: &Rc<RefCell<Core>>, changed: &Rc<Notify>) {
    let mut borrowed = core.borrow_mut();
    borrowed.tcp.core = Rc::downgrade(core);
    borrowed.tcp.changed = Rc::clone(changed);
    spawn_local(attend(Rc::clone(core)));
}

/// Takes in what other connections' workers tell about this worker's connections.
async fn attend(core: Rc<RefCell<Core>>) {
    let (shared, worker) = {
        let core = core.borrow();
        (Arc::clone(&core.shared), core.worker)
    };
    loop {
        for event in shared.rendezvous.told(worker).await {
            let mut core = core.borrow_mut();
            match event {
                Event::Bound(id) => core.server.bound(id),
                Event::Closed(id) => {
                    core.server.peer_closed(id);
                    core.tcp.peers.remove(&id);
                    core.tcp.shrink();
                }
            }
        }
    }
}

/// Accepts peers as long as the relayed address lives.
async fn accept(core: Weak<RefCell<Core>>, listener: TcpListener, relay: RelayId) {
    loop {
        let accepted = listener.accept().await;
        let Some(core) = core.upgrade() else { return };
        match accepted {
            Ok((stream, peer)) => core.borrow_mut().take_peer(relay, stream, peer),
            Err(error) => {
                complaint::about_accept(&error);
                // Most likely descriptors have run out: pausing lets others finish instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Makes a connection to a peer, and tells how it went.
async fn connect(core: Weak<RefCell<Core>>, id: ConnectionId, socket: TcpSocket, peer: SocketAddr, limit: Duration) {
    let connected = timeout(limit, socket.connect(peer)).await;
    let stream = connected.ok().and_then(Result::ok);
    if let Some(core) = core.upgrade() {
        core.borrow_mut().complete_connect(id, stream);
    }
}

impl Core {
    /// Opens the TCP relayed address of an allocation.
    pub(super) fn open_tcp_relay(
        &mut self,
        pending: &PendingAllocate,
        subject: &Subject,
    ) -> Result<(Grant, QuotaLease), Refusal> {
        // The protocol asks for no other addresses together with TCP.
        let AddressRequest::One { family, .. } = pending.addresses else { return Err(Refusal::Capacity) };
        let quota = self.shared.take_quota(subject, self.worker)?;
        let near = pending.client.tuple.server.ip();
        let opened = open::open_tcp(&self.shared, family, near, &mut self.rng)?;
        let listener = TcpListener::from_std(opened.listener).map_err(|error| {
            complaint::about_relay_socket(opened.local, &error);
            Refusal::Capacity
        })?;
        #[allow(clippy::cast_possible_truncation)] // far fewer sockets than 2^31
        let relay = RelayId(self.tcp.relays.vacant_key() as u32 | TCP_RELAY);
        opened.lease.set_owner(Owner { worker: self.worker, relay });
        let accepting = spawn_local(accept(Weak::clone(&self.tcp.core), listener, relay)).abort_handle();
        self.tcp.relays.insert(TcpRelay { local: opened.local, handle: None, accepting, _lease: opened.lease });
        let mut grant = Grant::default();
        grant.relays[family as usize] = Some((relay, opened.external));
        Ok((grant, quota))
    }

    /// Begins to connect to a peer. Returns the length of the response if that has failed already.
    pub(super) fn connect(&mut self, request: &ConnectRequest) -> Option<usize> {
        let ConnectRequest { id, relay, peer } = *request;
        let local = self.tcp.relays.get(place(relay)).map(|relay| relay.local);
        let socket = local.and_then(|local| {
            let socket = system::bind_tcp_source(local).map(TcpSocket::from_std_stream);
            socket.inspect_err(|error| complaint::about_connecting(local, error)).ok()
        });
        let Some(socket) = socket else {
            return self.server.connect_failed(id, &mut self.reply).map(|(_, len)| len);
        };
        let (core, limit) = (Weak::clone(&self.tcp.core), self.tcp.connect_timeout);
        let task = spawn_local(connect(core, id, socket, self.spaces.inward(peer), limit));
        self.tcp.peers.insert(id, Peer::Connecting(task.abort_handle()));
        None
    }

    /// Answers a Connect.
    fn complete_connect(&mut self, id: ConnectionId, stream: Option<TcpStream>) {
        let now = self.clock.now();
        self.tcp.peers.remove(&id);
        match stream.and_then(|stream| Waiter::new(stream).ok()) {
            Some(waiter) => {
                if let Some(connection) = self.server.connected(id, &mut self.reply, now) {
                    self.present(connection, waiter);
                }
            }
            None => {
                if let Some((client, len)) = self.server.connect_failed(id, &mut self.reply) {
                    self.note_refusal(&client, len, now);
                    self.send_reply(&client, len);
                }
            }
        }
    }

    /// Takes a connection that a peer has opened, or closes it.
    fn take_peer(&mut self, relay: RelayId, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = self.admit_peer(relay, peer) else {
            // Otherwise the system would remember each of them for a minute.
            system::reset_on_close(&stream);
            return;
        };
        // What it replaces is closed before it is there itself.
        self.apply_effects();
        match Waiter::new(stream) {
            Ok(waiter) => self.present(connection, waiter),
            Err(_) => self.server.peer_closed(connection.id),
        }
    }

    fn admit_peer(&mut self, relay: RelayId, peer: SocketAddr) -> Option<PeerConnection> {
        let now = self.clock.now();
        let handle = self.tcp.relays.get(place(relay))?.handle?;
        let client = self.server.client(handle)?;
        if self.is_stuffed(&client) {
            self.server.count_drop(Drop::TooManyConnections);
            return None;
        }
        let peer = self.spaces.outward(peer);
        self.server.peer_connects(handle, peer, &mut self.reply, now)
    }

    /// Offers a connection to the client that binds it, and tells the client of the allocation.
    fn present(&mut self, connection: PeerConnection, Waiter(socket): Waiter) {
        let PeerConnection { id, subject, handle, flow, client, len } = connection;
        let allowance = self.allowance(handle);
        let link = Arc::new(Link { id, owner: self.worker, flow, allowance, close: Notify::new() });
        if let Some(Peer::Connecting(task)) = self.tcp.peers.insert(id, Peer::Connected(Arc::clone(&link))) {
            // The peer was faster.
            task.abort();
        }
        self.shared.rendezvous.offer(Waiting { subject, link, socket });
        self.send_reply(&client, len);
        self.tcp.changed.notify_one();
    }

    /// Binds a client data connection to a peer connection. Returns the length of the response.
    pub(super) fn bind(&mut self, client: &Client, pending: &PendingBind) -> usize {
        let outcome = self.shared.rendezvous.claim(pending.id, &pending.subject).and_then(|waiting| {
            let Waiting { link, socket, .. } = waiting;
            // From here on its end is reported, whatever becomes of it.
            let bond = Bond { link, shared: Arc::clone(&self.shared) };
            let peer = TcpStream::from_std(socket).map_err(|_| BindRefusal::Fault)?;
            let Way::Stream(at) = Way::of(client.route) else { return Err(BindRefusal::Fault) };
            let (owner, id) = (bond.link.owner, pending.id);
            if !self.outlets.bind(at, Bound { peer, bond }) {
                return Err(BindRefusal::Fault);
            }
            self.shared.rendezvous.tell(owner, Event::Bound(id));
            Ok(())
        });
        self.server.complete_bind(pending, outcome, &mut self.reply)
    }

    /// Whether a client on a stream has to read before it is told more.
    fn is_stuffed(&self, client: &Client) -> bool {
        match Way::of(client.route) {
            Way::Stream(at) => self.outlets.is_stuffed(at),
            Way::Listener(_) | Way::Dtls(_) | Way::Abroad => false,
        }
    }
}

/// The socket of a peer connection that waits for its client, taken from this worker's runtime.
struct Waiter(std::net::TcpStream);

impl Waiter {
    fn new(stream: TcpStream) -> io::Result<Self> {
        // Data are passed on as they come; where it cannot be set, service is slower, not wrong.
        let _ = stream.set_nodelay(true);
        stream.into_std().map(Self)
    }
}

/// What ties a bound connection to its allocation; reports the end when it is dropped.
#[derive(Debug)]
pub(super) struct Bond {
    pub(super) link: Arc<Link>,
    shared: Arc<Shared>,
}

impl ops::Drop for Bond {
    fn drop(&mut self) {
        self.shared.rendezvous.tell(self.link.owner, Event::Closed(self.link.id));
    }
}

/// A peer connection that a client data connection has been bound to.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) peer: TcpStream,
    pub(super) bond: Bond,
}
