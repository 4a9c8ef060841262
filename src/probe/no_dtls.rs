//! DTLS of a build without OpenSSL: there is none.

use std::{convert::Infallible, io};

use tokio::{net::UdpSocket, time::Instant};

use super::link::{OpenError, Security};

/// An association, of which there is none.
pub(super) struct Dtls(Infallible);

impl Dtls {
    /// Says that there is none.
    pub(super) async fn connect(_: UdpSocket, _: &str, _: Instant) -> Result<(Self, Security), OpenError> {
        Err(OpenError::Handshake("this program was built without DTLS".to_owned()))
    }

    pub(super) async fn send(&mut self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) async fn receive(&mut self, _: Instant) -> io::Result<Option<Vec<u8>>> {
        match self.0 {}
    }
}
