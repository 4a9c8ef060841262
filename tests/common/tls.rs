//! Certificates of the tests' own authority, and a client's end of TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;

/// The name in the certificate that every server gets whose configuration mentions TLS.
pub(crate) const HOST: &str = "turn.example.org";

/// The end of a client, after its handshake.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of the tests");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    /// Its own certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key in PEM, for hosts.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_for(names, &KeyPair::generate().expect("a key"))
    }

    /// The same with an RSA key.
    pub(crate) fn issue_rsa(&self, names: &[&str]) -> (String, String) {
        self.issue_for(names, &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key"))
    }

    fn issue_for(&self, names: &[&str], key: &KeyPair) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names.clone()).expect("names of hosts");
        // Clients are known by it, too.
        params.distinguished_name.push(rcgen::DnType::CommonName, names.first().map_or("nobody", String::as_str));
        (params.signed_by(key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A certificate of one's own making, in PEM.
    pub(crate) fn sign(&self, params: CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.0).expect("a certificate").pem()
    }

    /// Writes `ca.pem`, and `NAME.pem` and `NAME.key` for hosts.
    pub(crate) fn write(&self, folder: &Path, name: &str, (certificate, key): (String, String)) {
        std::fs::write(folder.join("ca.pem"), self.pem()).expect("a file");
        std::fs::write(folder.join(format!("{name}.pem")), certificate).expect("a file");
        let file = folder.join(format!("{name}.key"));
        std::fs::write(&file, key).expect("a file");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    }
}

/// What a client trusts that trusts `ca.pem` of this folder, and speaks by default.
pub(crate) fn client(folder: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("ca.pem")).expect("a root");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects to a server and holds a handshake with [`HOST`].
pub(crate) fn connect(config: ClientConfig, server: SocketAddr) -> Stream {
    let connection = TcpStream::connect_timeout(&server, PATIENCE).expect("connecting to the server");
    handshake(config, connection)
}

/// Holds a handshake over a connection.
pub(crate) fn handshake(config: ClientConfig, connection: TcpStream) -> Stream {
    connection.set_nodelay(true).expect("an option");
    connection.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    connection.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    let host = ServerName::try_from(HOST).expect("a name");
    let tls = ClientConnection::new(Arc::new(config), host).expect("a client");
    let mut stream = StreamOwned::new(tls, connection);
    stream.conn.complete_io(&mut stream.sock).unwrap_or_else(|error| panic!("no handshake with the server: {error}"));
    stream
}

/// Writes all and sends it.
pub(crate) fn send(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).and_then(|()| stream.flush()).expect("writing to the server");
}

/// Whether the server has ended the connection, waiting as long as the stream's time limit.
pub(crate) fn has_ended(stream: &mut Stream) -> bool {
    match stream.read(&mut [0; 1000]) {
        Ok(length) => length == 0,
        Err(error) => {
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }
    }
}
