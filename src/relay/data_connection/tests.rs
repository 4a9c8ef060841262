//! Pairs on their own: the peer is a TCP connection, the client's stream anything.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    task::{LocalSet, spawn_local},
    time::timeout,
};

use super::*;
use crate::turn::Flow;

const PATIENCE: Duration = Duration::from_secs(20);

impl ClientStream for DuplexStream {
    fn reset_on_close(&self) {}
}

/// A stream that sends nothing off before it is flushed, and ends without saying so, as one under TLS may.
struct Lazy {
    stream: DuplexStream,
    held: Vec<u8>,
    flushed: Rc<Cell<usize>>,
}

impl AsyncRead for Lazy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let ended = into.filled().len() == before;
        Poll::Ready(if ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for Lazy {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.held.len() >= 4096 {
            ready!(self.as_mut().poll_flush(context))?;
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.flushed.set(self.flushed.get() + 1);
        while !self.held.is_empty() {
            let this = &mut *self;
            let taken = ready!(Pin::new(&mut this.stream).poll_write(context, &this.held))?;
            this.held.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl ClientStream for Lazy {
    fn reset_on_close(&self) {}
}

async fn peer() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (ours, listener.accept().await.unwrap().0)
}

fn pair<S>(client: S, peer: TcpStream, data: &[u8], responses: &[u8]) -> Pair<S> {
    let (to_peer, to_client) = (Direction::new(data.to_vec()), Direction::new(responses.to_vec()));
    Pair { client, peer, to_peer, to_client, failed: false, quiet: None }
}

/// Serves a pair to its end, with a buffer of this size.
async fn serve<S: ClientStream>(mut pair: Pair<S>, buffer: usize, flow: &Flow) -> End {
    let buffer = RefCell::new(vec![0; buffer]);
    let tap = Tap { flow, limits: None, worker: 0 };
    poll_fn(|context| pair.poll(context, &mut buffer.borrow_mut(), &tap)).await
}

/// Bytes of which no two stretches are alike.
fn pattern(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32 / 4 + 1)
        .flat_map(|word| (word ^ seed).wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

async fn local<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, LocalSet::new().run_until(future)).await.expect("it hangs")
}

/// 6062-3-01, 6062-5.4-04, 6062-5.4-05
#[tokio::test]
async fn everything_passes_through_the_narrowest_pipes() {
    local(async {
        for (pipe, buffer) in [(1, 7), (64, 16_384), (100_000, 333)] {
            let ((client, mut near), (ours, mut far)) = (duplex(pipe), peer().await);
            let length = if pipe == 1 { 20_000 } else { 2_000_000 };
            let (up, down) = (pattern(1, length), pattern(2, length));
            let flow = Rc::new(Flow::default());
            let counted = Rc::clone(&flow);
            let (early, late) = up.split_at(100);
            let pair = pair(client, ours, early, b"responses");
            let served = spawn_local(async move { serve(pair, buffer, &flow).await });
            let (late, sent) = (late.to_vec(), down.clone());
            let (mut far_in, mut far_out) = far.split();
            let (mut near_in, mut near_out) = tokio::io::split(&mut near);
            let (mut above, mut below) = (Vec::new(), Vec::new());
            let everything = tokio::join!(
                async { (near_out.write_all(&late).await.unwrap(), near_out.shutdown().await.unwrap()) },
                async { (far_out.write_all(&sent).await.unwrap(), far_out.shutdown().await.unwrap()) },
                far_in.read_to_end(&mut above),
                near_in.read_to_end(&mut below),
            );
            assert!(everything.2.is_ok() && everything.3.is_ok());
            assert!(above == up && below == [b"responses", &down[..]].concat());
            assert_eq!(served.await.unwrap(), End::Whole);
            // Without what came with the bind, which is counted when the relay begins, and without the responses.
            assert_eq!(format!("{counted:?}"), format!("Flow {{ to_peer: {}, to_client: {length} }}", length - 100));
        }
    })
    .await;
}

/// Data do not stay in a stream that waits to be flushed.
#[tokio::test]
async fn what_is_written_is_sent_off() {
    local(async {
        let ((stream, mut near), (ours, mut far)) = (duplex(1000), peer().await);
        let flushed = Rc::new(Cell::new(0));
        let client = Lazy { stream, held: Vec::new(), flushed: Rc::clone(&flushed) };
        let pair = pair(client, ours, b"", b"response");
        let served = spawn_local(async move { serve(pair, 16_384, &Flow::default()).await });
        let mut bytes = vec![0; 100_000];
        near.read_exact(&mut bytes[..8]).await.unwrap();
        assert_eq!(&bytes[..8], b"response");
        for round in 0..3 {
            let data = pattern(round, bytes.len());
            let sent = data.clone();
            let (result, _) = tokio::join!(far.write_all(&sent), near.read_exact(&mut bytes));
            assert!(result.is_ok() && bytes == data);
        }
        assert!(flushed.get() > 0);
        drop(far);
        assert_eq!(near.read(&mut bytes).await.unwrap(), 0);
        drop(near);
        assert_eq!(served.await.unwrap(), End::Whole);
    })
    .await;
}

/// What one side had sent before it took no more still reaches the other, which is told then.
#[tokio::test]
async fn a_broken_direction_lets_the_other_finish() {
    local(async {
        let ((client, mut near), (ours, mut far)) = (duplex(10_000), peer().await);
        far.write_all(&pattern(3, 30_000)).await.unwrap();
        let pair = pair(client, ours, b"", b"");
        let served = spawn_local(async move { serve(pair, 4096, &Flow::default()).await });
        near.write_all(b"unread").await.unwrap();
        // Closing with unread data is a reset.
        far.peek(&mut [0]).await.unwrap();
        drop(far);
        near.write_all(b"nobody takes this").await.unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(3, 30_000));
        assert_eq!(served.await.unwrap(), End::Broken);
    })
    .await;
}

#[tokio::test]
async fn an_idle_direction_holds_no_memory_and_a_blocked_one_no_more_than_a_read() {
    let ((client, _near), (ours, mut far)) = (duplex(1000), peer().await);
    let mut pair = pair(client, ours, b"", b"");
    let (mut buffer, flow) = (vec![0; 8192], Flow::default());
    let tap = Tap { flow: &flow, limits: None, worker: 0 };
    far.write_all(&pattern(4, 60_000)).await.unwrap();
    for _ in 0..10 {
        let polled = timeout(Duration::from_millis(5), poll_fn(|context| pair.poll(context, &mut buffer, &tap)));
        assert!(polled.await.is_err());
        assert!((1..=8192).contains(&pair.to_client.kept.len()));
        assert_eq!(pair.to_peer.kept.capacity(), 0);
    }
}
