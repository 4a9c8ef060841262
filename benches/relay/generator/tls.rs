//! A client's end of TLS, between buffers: how bytes come and go is up to [`super::streams`].

use std::io::{self, BufRead, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::job::REALM;

/// What all clients have in common.
pub(crate) struct Tls(Arc<ClientConfig>);

/// One client's session, after its handshake.
pub(crate) struct Session(ClientConnection);

impl Tls {
    /// Clients that trust one certificate, and take the first cipher suite of rustls that a server has: AES-256-GCM.
    pub(crate) fn new(certificate: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Holds a handshake over a connection that blocks.
    pub(crate) fn handshake(&self, stream: &mut TcpStream) -> io::Result<Session> {
        let name = ServerName::try_from(REALM).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(stream).map_err(|error| io::Error::other(format!("TLS handshake: {error}")))?;
        }
        Ok(Session(session))
    }
}

impl Session {
    /// Version and cipher suite.
    pub(crate) fn name(&self) -> String {
        match (self.0.protocol_version(), self.0.negotiated_cipher_suite()) {
            (Some(version), Some(suite)) => format!("{version:?} {:?}", suite.suite()),
            _ => "handshake not done".to_owned(),
        }
    }

    /// Appends `plain` to `sealed`, in as few records as it fits in. A session that has failed seals nothing, so that all that
    /// it was to carry is lost.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) {
        let written = self.0.writer().write_all(plain);
        while written.is_ok() && self.0.wants_write() && self.0.write_tls(sealed).is_ok() {}
    }

    /// Appends what is in `sealed` to `plain`; nothing more comes out of a session that has failed.
    pub(crate) fn open(&mut self, mut sealed: &[u8], plain: &mut Vec<u8>) {
        while !sealed.is_empty() {
            if self.0.read_tls(&mut sealed).is_err() || self.0.process_new_packets().is_err() {
                return;
            }
            let mut reader = self.0.reader();
            // At its end, and after all that has come, this is an error or an empty piece.
            while let Ok(piece) = reader.fill_buf()
                && !piece.is_empty()
            {
                let length = piece.len();
                plain.extend_from_slice(piece);
                reader.consume(length);
            }
        }
    }
}
