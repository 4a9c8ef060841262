//! Connections of management, within limits: how many there are, how long they may take to ask and to take the answer, how long a
//! question may be.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    House, Sockets,
    patient::Patient,
    routes::{self, Entrance},
};

/// Connections at a time over TCP, and over the Unix socket: a flood on the one does not close the other.
const CONNECTIONS: [usize; 2] = [64, 16];
/// How long the head of a request may take; a connection that is silent for as long is closed.
const HEAD: Duration = Duration::from_secs(10);
/// How long the client may take nothing of an answer.
const WRITE: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// Fields of a request's head.
const FIELDS: usize = 64;

/// Serves for ever.
pub(super) async fn serve(sockets: Sockets, house: Arc<House>) {
    let mut tasks = JoinSet::new();
    let watched = Arc::clone(&house);
    tasks.spawn(async move { watched.surveyor.watch_load().await });
    let [over_tcp, over_unix] = CONNECTIONS.map(|connections| Arc::new(Semaphore::new(connections)));
    #[cfg(not(unix))]
    drop(over_unix);
    if let Some(listener) = sockets.tcp {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let house = Arc::clone(&house);
                tasks.spawn(async move {
                    loop {
                        let accepted = listener.accept().await.map(|(stream, _)| stream);
                        admit(accepted, &over_tcp, &house, Entrance::Network).await;
                    }
                });
            }
            Err(error) => tracing::error!(why = %error, "no management over HTTP"),
        }
    }
    // Removed at the end.
    #[cfg(unix)]
    let unix = sockets.unix;
    #[cfg(unix)]
    if let Some(socket) = &unix {
        match socket.listener.try_clone().and_then(tokio::net::UnixListener::from_std) {
            Ok(listener) => {
                let house = Arc::clone(&house);
                tasks.spawn(async move {
                    loop {
                        let accepted = listener.accept().await.map(|(stream, _)| stream);
                        admit(accepted, &over_unix, &house, Entrance::Socket).await;
                    }
                });
            }
            Err(error) => tracing::error!(why = %error, "no management socket"),
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Serves a connection in a task of its own, if there is room for it.
async fn admit<S>(accepted: io::Result<S>, room: &Arc<Semaphore>, house: &Arc<House>, entrance: Entrance)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(stream) = accepted else {
        // Most likely descriptors have run out, which is complained of where clients are served.
        return tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let Ok(place) = Arc::clone(room).try_acquire_owned() else { return };
    let house = Arc::clone(house);
    tokio::spawn(async move {
        converse(stream, house, entrance).await;
        drop(place);
    });
}

/// Serves one connection until it ends.
pub(super) async fn converse<S>(stream: S, house: Arc<House>, entrance: Entrance)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let house = Arc::clone(&house);
        async move { Ok::<_, Infallible>(routes::answer(request, &house, entrance).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE)), service);
    // How a connection ends is its client's affair.
    let _ = connection.await;
}
