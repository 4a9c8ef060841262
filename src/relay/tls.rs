//! TLS over TCP (RFC 8489 §6.2.3): what handshakes are held with, which certificate a client is shown, and the stream that
//! comes of it.
//!
//! Nothing is kept between connections: sessions are resumed by tickets that only this process can read, and there is no
//! cache.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{data_connection::ClientStream, system};
use crate::config::settings;

/// Names of the protocol in ALPN (RFC 7443 §2).
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// So much is encrypted at a time before it is sent; what a client does not take waits in its queue, where it can be dropped.
const BATCH: usize = 16 << 10;

/// What is said of a handshake that took too long.
pub(super) const NOT_FINISHED: &str = "not finished in time";

/// The alert with which a client has ended a handshake, if that is what ended it.
pub(super) fn alert(error: &io::Error) -> Option<u8> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(u8::from(*alert)),
        _ => None,
    }
}

/// Whether the first byte of a connection begins a TLS record (RFC 7983 §7).
pub(super) const fn is_record(first: u8) -> bool {
    matches!(first, 20..=63)
}

/// What TLS is spoken with.
#[derive(Debug)]
pub(super) struct Tls {
    /// One for all workers, so that a client may resume its session on any of them. A reload makes another [`Tls`] when anything
    /// about it changes: sessions of clients then begin anew.
    config: Arc<ServerConfig>,
    pub(super) handshake_timeout: Duration,
    /// Unfinished handshakes of all workers together.
    pub(super) max_handshakes: usize,
}

impl Tls {
    pub(super) fn new(settings: &settings::Tls) -> Result<Self, rustls::Error> {
        Ok(Self {
            config: Arc::new(server_config(settings)?),
            handshake_timeout: settings.handshake_timeout,
            max_handshakes: settings.max_handshakes,
        })
    }

    /// Holds a handshake.
    pub(super) async fn accept(&self, connection: TcpStream) -> io::Result<Stream> {
        let mut stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(connection).await?;
        // `Stream` sees to it, in whole messages.
        stream.get_mut().1.set_buffer_limit(None);
        Ok(Stream(stream))
    }
}

fn server_config(settings: &settings::Tls) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        settings::TlsVersion::V1_2 => &[&TLS13, &TLS12],
        settings::TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &settings.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(client_verifier(clients, &provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(&settings.certificates, &provider)?));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

fn client_verifier(
    clients: &settings::ClientCa,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in &clients.roots {
        roots.add(root.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(|error| rustls::Error::General(error.to_string()))
}

/// The certificates, in the order of the configuration.
#[derive(Debug)]
struct Certificates(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl Certificates {
    fn new(certificates: &[settings::Certificate], provider: &CryptoProvider) -> Result<Self, rustls::Error> {
        let certified = |certificate: &settings::Certificate| {
            let key = CertifiedKey::from_der(certificate.chain.clone(), certificate.key.0.clone_key(), provider)?;
            Ok((certificate.names.clone(), Arc::new(key)))
        };
        certificates.iter().map(certified).collect::<Result<_, _>>().map(Self)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate for the host that the client names; without a name, or for a host that none is for, the first of
    /// all. One whose key the client cannot check is passed over, so that a host may have an ECDSA and an RSA certificate.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|(_, key)| key.key.choose_scheme(hello.signature_schemes()).is_some());
        let named = hello.server_name().and_then(|host| {
            let host = host.to_ascii_lowercase();
            usable().find(|(names, _)| names.iter().any(|name| covers(name, &host)))
        });
        // A client that can use none is refused for what it lacks, with the alert that belongs to that.
        named.or_else(|| usable().next()).or(self.0.first()).map(|(_, key)| Arc::clone(key))
    }
}

/// Whether a name of a certificate stands for this host (RFC 9525 §6.3); both in lower case.
pub(super) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => name == host,
    }
}

/// A client's connection after its handshake.
#[derive(Debug)]
pub(super) struct Stream(TlsStream<TcpStream>);

impl AsyncRead for Stream {
    /// Reads as many records as there are and fit: clients like to send a record for each message.
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            let filled = into.filled().len();
            let read = Pin::new(&mut self.0).poll_read(context, into);
            match read {
                Poll::Ready(Ok(())) if into.filled().len() > filled && into.remaining() > 0 => {}
                // The end, or an error, comes again with the next read.
                _ if into.filled().len() > before => return Poll::Ready(Ok(())),
                read => return read,
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// A record of its own for each slice, which is one message (`Queue::apart`), and all of them in one call to the system. A
    /// TLS stream has no boundaries, but there are clients (`turnutils_uclient` is one) that take a record for a message and
    /// lose what follows.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(context))?;
        let mut writer = self.0.get_mut().1.writer();
        let mut written = 0;
        for slice in slices {
            written += writer.write(slice)?;
            if written >= BATCH {
                break;
            }
        }
        // What cannot be sent now is sent before anything else is taken.
        match self.poll_flush(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(written)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl ClientStream for Stream {
    fn reset_on_close(&self) {
        system::reset_on_close(self.0.get_ref().0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_certificates_stand_for_hosts() {
        for (name, host, expected) in [
            ("turn.example.org", "turn.example.org", true),
            ("turn.example.org", "example.org", false),
            ("*.example.org", "turn.example.org", true),
            ("*.example.org", "a.turn.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
        ] {
            assert_eq!(covers(name, host), expected, "{name} for {host}");
        }
    }

    /// 7983-7-01
    #[test]
    fn a_first_byte_tells_tls_from_stun_and_channel_data() {
        for first in 0..=u8::MAX {
            assert_eq!(is_record(first), (20..64).contains(&first), "{first}");
        }
    }
}
