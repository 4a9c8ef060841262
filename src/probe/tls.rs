//! A client's end of TLS that takes any certificate, since it is there to tell of it; [`super::certificate`] judges it afterwards.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::link::{Security, Stream};

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Holds a handshake; the error is in words.
pub(super) async fn connect(stream: TcpStream, host: &str) -> Result<(Box<dyn Stream>, Security), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} cannot be asked for"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| words(&error))?;
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let security = Security {
        what: format!("{}, {}", version.unwrap_or_default().replace('_', "."), suite.unwrap_or_default()),
        chain: session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect(),
    };
    Ok((Box::new(stream), security))
}

/// What ended a handshake.
fn words(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
            "the server speaks no version that is still in use (1.2 or 1.3)".to_owned()
        }
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
            "the server has no certificate for this name".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("the server refuses the handshake ({alert:?})"),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        None => error.to_string(),
    }
}
