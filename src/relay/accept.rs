//! New connections: who they are from, whether there is room for them, and which protocol they begin with. Only then does a
//! client's stream begin (`stream.rs`).

use std::{cell::RefCell, collections::BTreeMap, fmt::Display, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

use super::{
    complaint,
    core::Core,
    data_connection::ClientStream,
    fault::outlive,
    proxy,
    proxy::{Origin, Parsed},
    shared::ConnectionLease,
    stream::{self, Streams},
    tls::{self, NOT_FINISHED, Tls},
};
use crate::turn::{FiveTuple, RealmId, Time, Transport};

/// A listening TCP socket and what is served there.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: std::net::TcpListener,
    /// TCP as it is.
    pub(super) plain: bool,
    /// TLS; with `plain`, told apart by the first byte.
    pub(super) tls: bool,
    /// Load balancers: connections from there begin with a PROXY protocol header, all others never do.
    pub(super) proxies: Arc<[IpNet]>,
    /// The realm that clients are told there.
    pub(super) realm: RealmId,
}

/// What all doors of a worker use.
pub(super) struct Reception {
    streams: Rc<Streams>,
    /// There if any door serves TLS.
    tls: RefCell<Option<Arc<Tls>>>,
    handshakes: RefCell<Handshakes>,
}

impl Reception {
    /// `workers` share the handshakes that may be unfinished, as the kernel spreads connections over them.
    pub(super) fn new(streams: Rc<Streams>, tls: Option<Arc<Tls>>, workers: usize) -> Self {
        let handshakes = RefCell::new(Handshakes { limit: 0, next: 0, begun: BTreeMap::new() });
        let reception = Self { streams, tls: RefCell::default(), handshakes };
        reception.renew(tls, workers);
        reception
    }

    /// New handshakes are held with this; those that have begun go on as they have.
    pub(super) fn renew(&self, tls: Option<Arc<Tls>>, workers: usize) {
        self.handshakes.borrow_mut().limit = tls.as_ref().map_or(0, |tls| tls.max_handshakes.div_ceil(workers.max(1)));
        self.tls.replace(tls);
    }
}

impl Reception {
    /// Has the core note something.
    fn note(&self, note: impl FnOnce(&mut Core, Time)) {
        let mut core = self.streams.core.borrow_mut();
        let now = core.clock.now();
        note(&mut core, now);
    }
}

/// Opens a door; what is returned accepts connections as long as the worker runs.
pub(super) fn open(door: Door, reception: Rc<Reception>) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::from_std(door.listener)?;
    let Door { plain, tls, proxies, realm, .. } = door;
    Ok(async move {
        while outlive(accept(&listener, (plain, tls), realm, &proxies, &reception)).await.is_none() {
            complaint::about_fault();
        }
    })
}

async fn accept(
    listener: &TcpListener,
    (plain, tls): (bool, bool),
    realm: RealmId,
    proxies: &[IpNet],
    reception: &Rc<Reception>,
) {
    loop {
        match listener.accept().await {
            Ok((connection, source)) => {
                // A datagram that waits for its neighbours is late. Where it cannot be set, service is slower, not wrong.
                let _ = connection.set_nodelay(true);
                // A connection that is gone already has no address.
                let Ok(server) = connection.local_addr() else { continue };
                let by_proxy = proxies.iter().any(|network| network.contains(&source.ip().to_canonical()));
                let shared = Arc::clone(&reception.streams.core.borrow().shared);
                let lease = shared.take_connection((!by_proxy).then_some(source.ip()));
                // Over the limit: closed at once.
                let Some(lease) = lease else {
                    let transport = if tls && !plain { Transport::Tls } else { Transport::Tcp };
                    let tuple = FiveTuple { client: source, server, transport };
                    reception.note(|core, now| core.server.note_too_many_connections(&tuple, now));
                    continue;
                };
                let arrival = Arrival { client: source, server, realm, by_proxy, plain, tls, lease };
                if by_proxy || tls {
                    tokio::task::spawn_local(admit(Rc::clone(reception), connection, arrival));
                } else {
                    begin(reception, connection, arrival, Transport::Tcp);
                }
            }
            Err(error) => {
                complaint::about_accept(&error);
                // Most likely descriptors have run out: pausing lets others finish instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What is known of a new connection.
struct Arrival {
    client: SocketAddr,
    server: SocketAddr,
    realm: RealmId,
    by_proxy: bool,
    plain: bool,
    tls: bool,
    lease: ConnectionLease,
}

/// Finds out what must be known before a connection is served. Whatever is wrong with it ends it.
async fn admit(reception: Rc<Reception>, mut connection: TcpStream, mut arrival: Arrival) {
    let limits = reception.streams.limits();
    if arrival.by_proxy {
        let Ok(Ok(origin)) = timeout(limits.message_timeout, origin(&mut connection)).await else {
            complaint::about_proxy(arrival.client);
            return;
        };
        if let Origin::Client { client, server } = origin {
            (arrival.client, arrival.server) = (client, server);
        }
        if !arrival.lease.charge(arrival.client.ip()) {
            let tuple = FiveTuple { client: arrival.client, server: arrival.server, transport: Transport::Tcp };
            reception.note(|core, now| core.server.note_too_many_connections(&tuple, now));
            return;
        }
    }
    if arrival.tls && arrival.plain {
        let mut first = [0];
        match timeout(limits.idle_timeout, connection.peek(&mut first)).await {
            Ok(Ok(1)) => arrival.tls = tls::is_record(first[0]),
            _ => return,
        }
    }
    if !arrival.tls {
        begin(&reception, connection, arrival, Transport::Tcp);
    } else if let Some(stream) = handshake(&reception, connection, &arrival).await {
        begin(&reception, stream, arrival, Transport::Tls);
    }
}

/// Serves a connection in a task of its own, which is no larger than this kind of stream needs.
fn begin<S>(reception: &Reception, stream: S, arrival: Arrival, transport: Transport)
where
    S: ClientStream + 'static,
{
    let tuple = FiveTuple { client: arrival.client, server: arrival.server, transport };
    tokio::task::spawn_local(stream::serve(Rc::clone(&reception.streams), stream, tuple, arrival.realm, arrival.lease));
}

/// Reads a PROXY protocol header, and nothing beyond it.
async fn origin(connection: &mut TcpStream) -> io::Result<Origin> {
    let mut header = vec![0; proxy::LONGEST];
    let mut read = 0;
    loop {
        let new = connection.peek(&mut header[read..]).await?;
        let (origin, belongs) = match proxy::parse(&header[..read + new]) {
            Parsed::Whole(origin, len) => (Some(origin), len - read),
            Parsed::Partial if new > 0 => (None, new),
            Parsed::Partial | Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        };
        connection.read_exact(&mut header[read..read + belongs]).await?;
        read += belongs;
        if let Some(origin) = origin {
            return Ok(origin);
        }
    }
}

/// Holds the handshake of one client, within its time and as long as no newer ones need its place.
async fn handshake(reception: &Reception, connection: TcpStream, arrival: &Arrival) -> Option<tls::Stream> {
    let tls = reception.tls.borrow().clone()?;
    let client = arrival.client;
    let tuple = FiveTuple { client, server: arrival.server, transport: Transport::Tls };
    let failed = |alert, error: &dyn Display| {
        reception.note(|core, now| core.server.note_handshake(&tuple, alert, error, now));
    };
    let (number, evicted) = reception.handshakes.borrow_mut().begin();
    let _ended = Ended { handshakes: &reception.handshakes, number };
    tokio::select! {
        biased;
        done = timeout(tls.handshake_timeout, tls.accept(connection)) => match done {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%client, %error, "TLS handshake failed");
                failed(tls::alert(&error), &error);
            }
            Err(_) => {
                tracing::debug!(%client, "TLS handshake not finished in time");
                failed(None, &NOT_FINISHED);
            }
        },
        _ = evicted => complaint::about_handshakes(),
    }
    None
}

/// Unfinished handshakes, the oldest first. When there are too many the oldest gives way: it is most likely one that will
/// never be finished, and a client in earnest takes but a round trip or two.
#[derive(Debug)]
struct Handshakes {
    limit: usize,
    next: u64,
    /// Ends a handshake when it is dropped.
    begun: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Handshakes {
    /// Begins one; it is to end when the receiver tells of anything.
    fn begin(&mut self) -> (u64, oneshot::Receiver<()>) {
        while self.begun.len() >= self.limit.max(1) {
            self.begun.pop_first();
        }
        let (sender, evicted) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.begun.insert(number, sender);
        (number, evicted)
    }
}

/// Takes a handshake off the list, however it ended.
struct Ended<'h> {
    handshakes: &'h RefCell<Handshakes>,
    number: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.handshakes.borrow_mut().begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_gives_way() {
        let handshakes = RefCell::new(Handshakes { limit: 2, next: 0, begun: BTreeMap::new() });
        let begin = || handshakes.borrow_mut().begin();
        let (first, mut first_evicted) = begin();
        let (second, mut second_evicted) = begin();
        drop(Ended { handshakes: &handshakes, number: second });
        assert_eq!(second_evicted.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (_, mut third_evicted) = begin();
        assert_eq!(first_evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let (_, _fourth) = begin();
        assert_eq!(first_evicted.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(third_evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(Ended { handshakes: &handshakes, number: first });
        assert_eq!(handshakes.borrow().begun.len(), 2);
    }
}
