//! The core's side: messages of clients in and out, and what the ends of sessions mean for allocations.

use super::{Broken, Read, State};
use crate::{
    relay::core::Core,
    relay::route::Way,
    turn::{Client, Drop, EndReason, FiveTuple, Time, Transport},
};

impl Core {
    /// Takes a datagram of DTLS that has come to a listener. The client is returned whose messages are to be read now
    /// ([`Core::read_dtls`]), if there may be any. Sessions may have ended.
    pub(in crate::relay) fn dtls_datagram(
        &mut self,
        at: usize,
        tuple: FiveTuple,
        datagram: &[u8],
        now: Time,
    ) -> Option<Client> {
        let dtls = self.dtls.as_mut()?;
        let id = dtls.datagram(at, tuple, datagram, &self.listeners, &self.shared, now);
        let client = id.and_then(|id| dtls.sessions.get(id)).map(|session| session.client);
        self.note_failed(now);
        client
    }

    /// Has it noted which handshakes have failed.
    fn note_failed(&mut self, now: Time) {
        let Some(dtls) = self.dtls.as_mut() else { return };
        for (mut tuple, broken) in dtls.failed.drain(..) {
            tuple.transport = Transport::Dtls;
            match broken {
                Some(Broken { alert, error }) => self.server.note_handshake(&tuple, alert, &error, now),
                None => self.server.note_too_many_connections(&tuple, now),
            }
        }
    }

    /// Takes the next message of a client, if there is another. Its session may end with that.
    pub(in crate::relay) fn read_dtls(&mut self, client: &Client, into: &mut [u8]) -> Option<usize> {
        let (Some(dtls), Way::Dtls(id)) = (self.dtls.as_mut(), Way::of(client.route)) else { return None };
        let session = dtls.sessions.get_mut(id).filter(|_| !into.is_empty())?;
        let read = session.association.read(into);
        // A retransmission of the last flight, or an alert.
        dtls.flush(id, 0, &self.listeners);
        match read {
            Read::Message(len) => return Some(len),
            Read::Nothing => {}
            Read::Closed => {
                dtls.close(id, &self.listeners);
                dtls.remove(id);
            }
        }
        None
    }

    /// Whether there (still) is a session of this number and it is this client's.
    pub(in crate::relay) fn has_dtls(&self, id: usize, tuple: &FiveTuple) -> bool {
        let session = self.dtls.as_ref().and_then(|dtls| dtls.sessions.get(id));
        session.is_some_and(|session| session.client.tuple == *tuple && matches!(session.state, State::Open { .. }))
    }

    /// Whether this 5-tuple has a session, or is about to.
    pub(in crate::relay) fn knows_dtls(&self, tuple: &FiveTuple) -> bool {
        let tuple = FiveTuple { transport: Transport::Dtls, ..*tuple };
        self.dtls.as_ref().is_some_and(|dtls| dtls.by_tuple.contains_key(&tuple))
    }

    /// How many sessions of DTLS there are on a listener.
    pub(in crate::relay) fn dtls_on(&self, listener: usize) -> usize {
        let sessions = self.dtls.iter().flat_map(|dtls| dtls.sessions.iter());
        sessions.filter(|(_, session)| session.listener == listener).count()
    }

    /// A message of this client was answered or relayed.
    pub(in crate::relay) fn dtls_was_useful(&mut self, client: &Client, now: Time) {
        let (Some(dtls), Way::Dtls(id)) = (self.dtls.as_mut(), Way::of(client.route)) else { return };
        if let Some(session) = dtls.sessions.get_mut(id)
            && let State::Open { active } = &mut session.state
        {
            *active = now;
        }
    }

    /// Sends one message, in three parts, to the client of a session.
    pub(in crate::relay) fn send_dtls(&mut self, id: usize, parts: [&[u8]; 3], tos: u8) {
        let refused = self.dtls.as_mut().map_or(0, |dtls| dtls.send(id, parts, tos, &self.listeners));
        for _ in 0..refused {
            self.server.count_drop(Drop::SendFailed);
        }
    }

    /// Sends so much of [`Core::reply`] to the client of a session.
    pub(in crate::relay) fn reply_dtls(&mut self, id: usize, len: usize) {
        let reply = [&self.reply[..len], &[], &[]];
        let refused = self.dtls.as_mut().map_or(0, |dtls| dtls.send(id, reply, 0, &self.listeners));
        for _ in 0..refused {
            self.server.count_drop(Drop::SendFailed);
        }
    }

    /// Whether sessions have ended whose allocations are to be ended ([`Core::end_gone`]).
    pub(in crate::relay) fn has_gone(&self) -> bool {
        self.dtls.as_ref().is_some_and(|dtls| !dtls.gone.is_empty())
    }

    /// Ends the allocations of sessions that have ended. What is to leave from their relay sockets must have left.
    pub(in crate::relay) fn end_gone(&mut self, now: Time) {
        let Some(dtls) = self.dtls.as_mut() else { return };
        for client in dtls.gone.drain(..) {
            self.server.end_client(&client, EndReason::ConnectionClosed, now);
        }
        self.apply_effects();
    }

    /// Looks after the sessions that it is time for.
    pub(in crate::relay) fn expire_dtls(&mut self, now: Time) {
        let Some(dtls) = self.dtls.as_mut() else { return };
        dtls.expire(&self.listeners, now, |client| self.server.has_allocation(client));
        self.note_failed(now);
        self.end_gone(now);
    }

    /// Says goodbye to all clients.
    pub(in crate::relay) fn close_dtls(&mut self) {
        let Some(dtls) = self.dtls.as_mut() else { return };
        let open: Vec<usize> = dtls.sessions.iter().map(|(id, _)| id).collect();
        for id in open {
            dtls.close(id, &self.listeners);
        }
    }
}
