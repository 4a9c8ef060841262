//! Where datagrams stand on their way through an association. One for all associations of a worker, which are served one after
//! the other.

use std::{cell::RefCell, io, rc::Rc};

/// Room for the longest datagram that anybody sends on purpose: a record of 16 KiB and what belongs to it.
const FIRST: usize = 17 << 10;

/// A handle on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Rc<RefCell<Datagrams>>);

#[derive(Debug, Default)]
struct Datagrams {
    /// What has come, until it is taken.
    incoming: Vec<u8>,
    arrived: bool,
    /// What is to be sent, one after the other.
    outgoing: Vec<u8>,
    /// By datagram to be sent: where it ends.
    ends: Vec<usize>,
}

impl Wire {
    /// Puts a datagram there; an older one that nobody has taken is lost.
    pub(super) fn load(&self, datagram: &[u8]) {
        let mut wire = self.0.borrow_mut();
        wire.incoming.clear();
        if wire.incoming.capacity() == 0 {
            wire.incoming.reserve(FIRST);
        }
        wire.incoming.extend_from_slice(datagram);
        wire.arrived = true;
    }

    /// Takes what is to be sent.
    pub(super) fn drain(&self, mut send: impl FnMut(&[u8])) {
        let mut wire = self.0.borrow_mut();
        let mut start = 0;
        for &end in &wire.ends {
            send(&wire.outgoing[start..end]);
            start = end;
        }
        wire.ends.clear();
        wire.outgoing.clear();
    }
}

impl io::Read for Wire {
    /// Takes the datagram that has come. What it is longer than `into` is lost, as with a socket.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if !std::mem::take(&mut wire.arrived) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = wire.incoming.len().min(into.len());
        into[..len].copy_from_slice(&wire.incoming[..len]);
        Ok(len)
    }
}

impl io::Write for Wire {
    /// Adds one datagram.
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        wire.outgoing.extend_from_slice(datagram);
        let end = wire.outgoing.len();
        wire.ends.push(end);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn datagrams_keep_their_boundaries() {
        let mut wire = Wire::default();
        let mut into = [0; 4];
        assert_eq!(wire.read(&mut into).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        wire.load(b"lost");
        wire.load(b"longer than that");
        assert_eq!((wire.read(&mut into).unwrap(), &into), (4, b"long"));
        assert_eq!(wire.read(&mut into).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut other = wire.clone();
        assert_eq!((wire.write(b"one").unwrap(), other.write(b"two").unwrap()), (3, 3));
        for expected in [vec![b"one".to_vec(), b"two".to_vec()], vec![]] {
            let mut sent = Vec::new();
            wire.drain(|datagram| sent.push(datagram.to_vec()));
            assert_eq!(sent, expected);
        }
    }
}
