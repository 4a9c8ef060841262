//! Builds without the feature `dtls`: the configuration refuses listeners for it, so nothing of this ever exists.

use super::{Handshake, Read, Wire};
use crate::config::settings;

/// What DTLS is spoken with.
#[derive(Debug)]
pub(in crate::relay) enum Context {}

impl Context {
    pub(in crate::relay) fn new(_: &settings::Tls) -> Result<Self, String> {
        Err("this program was built without DTLS".to_owned())
    }

    pub(super) fn begin(&self, _: &Wire, _: &[u8]) -> Result<Association, String> {
        match *self {}
    }
}

/// One client's keys and numbers.
#[derive(Debug)]
pub(super) enum Association {}

impl Association {
    pub(super) fn handshake(&mut self) -> Handshake {
        match *self {}
    }

    pub(super) fn read(&mut self, _: &mut [u8]) -> Read {
        match *self {}
    }

    pub(super) fn shortest_record(&self) -> usize {
        match *self {}
    }

    pub(super) fn write(&mut self, _: &[u8]) -> bool {
        match *self {}
    }

    pub(super) fn timeout(&self) -> Option<std::time::Duration> {
        match *self {}
    }

    pub(super) fn retransmit(&mut self) -> bool {
        match *self {}
    }

    pub(super) fn close(&mut self) {
        match *self {}
    }
}
