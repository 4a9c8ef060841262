//! Mobility (RFC 8016): an allocation follows its client to another 5-tuple, shown by a ticket.
//!
//! The state of an allocation with a ticket: it is used from its 5-tuple; a Refresh with the ticket from another one makes that
//! one *arriving*, and both serve until data come from there, or the connection of the old one is gone (§3.2.2). Without a
//! connection and with nobody arriving the client is *away*: data from peers are dropped, and the allocation waits for
//! the ticket, or its end. At any time at most one 5-tuple gets data from peers, and each of the two leads to this allocation
//! alone.
//!
//! The client's new 5-tuple may be another worker's, which has no part in the allocation but hands over what comes from
//! there ([`Step::Forward`]): it knows it by the ticket at first, and then as a guest.

use std::{collections::HashMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    AllocationId, Client, Drop, Effect, FiveTuple, Handle, RelayProtocol, Server, Step, Time,
    authentication::Requester, reply::ReplyContext, time::whole_seconds,
};
use crate::stun::{AttributeType, ErrorCode, Message, Method};

/// How long the ticket before the present one is taken for a retransmission: as long as a transaction over UDP can last
/// (RFC 8489 §6.2.1), and more than the 30 s of RFC 8016 §3.2.2.
const RETRANSMISSIONS: Duration = Duration::from_secs(40);

/// What a ticket says: id (8), worker (1), serial number (3).
const STATE_LEN: usize = 12;
/// The part that authenticates it; as long as that of a nonce.
const TAG_LEN: usize = 12;
/// Characters of a ticket. coturn's clients take 32 at most, and no byte that is 0.
const TICKET_LEN: usize = (STATE_LEN + TAG_LEN) / 3 * 4;
/// Serial numbers begin anew after so many moves of one allocation.
const SERIALS: u32 = 1 << 24;

/// Parameters of mobility.
#[derive(Clone)]
pub struct Mobility {
    /// The number of the worker that the server belongs to.
    pub worker: u8,
    /// Encrypts the tickets; unpredictable, and the same in all workers.
    pub key: [u8; 32],
}

impl fmt::Debug for Mobility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mobility").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// What an allocation with a ticket has besides the others.
#[derive(Debug, Default)]
pub(super) struct Mobile {
    /// The number of the ticket that is valid.
    serial: u32,
    /// Who has used up the ticket before, and until when that is taken for a retransmission.
    used: Option<(FiveTuple, Time)>,
    /// Who has shown the ticket and not sent data yet; kept by the table.
    pub(super) arriving: Option<Client>,
}

/// What a ticket says. It is good for as long as its allocation lives and no other has been issued in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticket {
    id: AllocationId,
    /// The worker that has the allocation.
    worker: u8,
    /// Below [`SERIALS`].
    serial: u32,
}

/// Issues and reads tickets.
///
/// A ticket is encrypted with a synthetic initialisation vector, as in RFC 5297, of two pseudo-random functions: the tag is
/// one of the state, and the other, of the tag, is what the state is hidden by. So it is authenticated and tells nothing
/// but whether two are the same, needs no random numbers, and is short; one that is sent again is the same again.
pub(super) struct Tickets {
    tag: Hmac<Sha256>,
    mask: Hmac<Sha256>,
    worker: u8,
}

impl Tickets {
    pub(super) fn new(mobility: &Mobility) -> Self {
        // HMAC takes keys of any length (RFC 2104 §2).
        let hmac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
        let derived = |purpose: &[u8]| {
            let mut from = hmac(&mobility.key);
            from.update(purpose);
            hmac(&from.finalize().into_bytes())
        };
        Self { tag: derived(b"ticket tag"), mask: derived(b"ticket mask"), worker: mobility.worker }
    }

    fn seal(&self, ticket: Ticket) -> [u8; TICKET_LEN] {
        let [_, serial @ ..] = ticket.serial.to_be_bytes();
        let mut state = [0; STATE_LEN];
        state[..8].copy_from_slice(&ticket.id.0.to_be_bytes());
        state[8] = ticket.worker;
        state[9..].copy_from_slice(&serial);
        let mut sealed = [0; TAG_LEN + STATE_LEN];
        let (tag, hidden) = sealed.split_at_mut(TAG_LEN);
        tag.copy_from_slice(&self.tag_of(&state).finalize().into_bytes()[..TAG_LEN]);
        hidden.copy_from_slice(&self.hide(tag, state));
        let mut text = [0; TICKET_LEN];
        // 24 bytes always make 32 characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(sealed, &mut text);
        text
    }

    /// The ticket, if this server's workers have issued it.
    fn open(&self, text: &[u8]) -> Option<Ticket> {
        let mut sealed = [0; TAG_LEN + STATE_LEN];
        if text.len() != TICKET_LEN || URL_SAFE_NO_PAD.decode_slice(text, &mut sealed) != Ok(sealed.len()) {
            return None;
        }
        let (tag, hidden) = sealed.split_at(TAG_LEN);
        let state = self.hide(tag, hidden.try_into().ok()?);
        self.tag_of(&state).verify_truncated_left(tag).ok()?;
        let (id, &[worker, high, middle, low]) = state.split_first_chunk()? else { return None };
        let serial = u32::from_be_bytes([0, high, middle, low]);
        Some(Ticket { id: AllocationId(u64::from_be_bytes(*id)), worker, serial })
    }

    fn tag_of(&self, state: &[u8; STATE_LEN]) -> Hmac<Sha256> {
        let mut mac = self.tag.clone();
        mac.update(state);
        mac
    }

    /// Hides a state, or shows a hidden one.
    fn hide(&self, tag: &[u8], mut state: [u8; STATE_LEN]) -> [u8; STATE_LEN] {
        let mut mac = self.mask.clone();
        mac.update(tag);
        state.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        state
    }
}

/// Clients whose allocation another worker has. Each is one that an allocation has been moved to, so there are no more of
/// them than the quotas allow allocations.
#[derive(Debug, Default)]
pub(super) struct Guests(HashMap<FiveTuple, u16>);

impl Guests {
    /// The worker that has the client's allocation.
    pub(super) fn home(&self, tuple: &FiveTuple) -> Option<u16> {
        if self.0.is_empty() { None } else { self.0.get(tuple).copied() }
    }
}

impl Server {
    /// Whether an Allocate asks for a ticket (RFC 8016 §3.1.2). There is none for TCP, whose connections end with the client's
    /// (RFC 6062 §5.5).
    pub(super) fn wants_ticket(&self, message: &Message<'_>, protocol: RelayProtocol) -> Result<bool, ErrorCode> {
        match message.get(AttributeType::MOBILITY_TICKET) {
            None => Ok(false),
            Some([]) if self.tickets.is_some() && protocol == RelayProtocol::Udp => Ok(true),
            Some([]) => Err(ErrorCode::MobilityForbidden),
            Some(_) => Err(ErrorCode::BadRequest),
        }
    }

    /// The ticket that is valid for an allocation, if it has one.
    pub(super) fn ticket(&self, handle: Handle) -> Option<[u8; TICKET_LEN]> {
        let tickets = self.tickets.as_ref()?;
        let allocation = self.table.get(handle)?;
        let serial = allocation.mobile.as_ref()?.serial;
        Some(tickets.seal(Ticket { id: allocation.id, worker: tickets.worker, serial }))
    }

    /// The worker that a request of a client without allocation is for, if it is not this one. ConnectionBind is for this one,
    /// which has the connection.
    pub(super) fn elsewhere(&self, client: &Client, method: Method, message: &Message<'_>) -> Option<u16> {
        if method == Method::ConnectionBind {
            return None;
        }
        let by_ticket = || {
            let tickets = self.tickets.as_ref().filter(|_| method == Method::Refresh)?;
            let ticket = tickets.open(message.get(AttributeType::MOBILITY_TICKET)?)?;
            (ticket.worker != tickets.worker).then_some(ticket.worker.into())
        };
        self.guests.home(&client.tuple).or_else(by_ticket)
    }

    /// Refresh with a ticket (RFC 8016 §3.2.2). `owned` is the allocation that the request's 5-tuple leads to.
    #[allow(clippy::too_many_arguments)] // the parts of one request, each used once
    pub(super) fn refresh_with_ticket(
        &mut self,
        client: &Client,
        owned: Option<Handle>,
        message: &Message<'_>,
        requester: &Requester,
        context: &ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> Result<usize, ErrorCode> {
        let tickets = self.tickets.as_ref().ok_or(ErrorCode::MobilityForbidden)?;
        let sealed = message.get(AttributeType::MOBILITY_TICKET).unwrap_or_default();
        let ticket = tickets.open(sealed).ok_or(ErrorCode::BadRequest)?;
        let handle = self.table.mobile(ticket.id).ok_or(ErrorCode::AllocationMismatch)?;
        if !self.expire_relayed(handle, now) {
            return Err(ErrorCode::AllocationMismatch);
        }
        let allocation = &self.table[handle];
        let mobile = allocation.mobile.as_ref().ok_or(ErrorCode::BadRequest)?;
        let again = ticket.serial == mobile.serial.wrapping_sub(1) % SERIALS
            && mobile.used.is_some_and(|(by, until)| by == client.tuple && now < until)
            && owned == Some(handle);
        if !again && (owned == Some(handle) || ticket.serial != mobile.serial) {
            return Err(ErrorCode::BadRequest);
        }
        if !allocation.owner.is(requester) {
            return Err(ErrorCode::WrongCredentials);
        }
        if owned.is_some_and(|owned| owned != handle) {
            return Err(ErrorCode::AllocationMismatch);
        }
        let lifetime = self.prolong(handle, message, requester, now)?;
        // Lifetime 0 may have been its end.
        if !again && self.table.mobile(ticket.id) == Some(handle) {
            self.join(handle, client, now);
        }
        let ticket = self.table.mobile(ticket.id).and_then(|handle| self.ticket(handle));
        Ok(context.success(&self.rules, reply, |writer| {
            writer.u32(AttributeType::LIFETIME, whole_seconds(lifetime));
            if let Some(ticket) = &ticket {
                writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
            }
        }))
    }

    /// Lets the allocation be used from another 5-tuple, too; uses its ticket up.
    fn join(&mut self, handle: Handle, client: &Client, now: Time) {
        let Some(mobile) = self.table[handle].mobile.as_mut() else { return };
        mobile.serial = mobile.serial.wrapping_add(1) % SERIALS;
        mobile.used = Some((client.tuple, now + RETRANSMISSIONS));
        let given_up = self.table.expect(handle, Some(*client));
        self.effects.extend(given_up.map(Effect::Left));
        self.effects.push(Effect::Joined(*client));
        if self.table[handle].away {
            self.settle(handle);
        }
    }

    /// The allocation that is to move to this client, now that data come from there.
    pub(super) fn arrive(&mut self, client: &Client) -> Option<Handle> {
        let handle = self.table.arriving(&client.tuple)?;
        self.settle(handle).then_some(handle)
    }

    /// Moves an allocation to the client that is arriving, if there is one.
    fn settle(&mut self, handle: Handle) -> bool {
        let Some(next) = self.table.expect(handle, None) else { return false };
        let was_away = self.table[handle].away;
        let before = self.table.rehome(handle, next);
        let id = self.table[handle].id;
        self.effects.push(Effect::Moved { handle, id, from: before.tuple, to: next.tuple });
        if !was_away {
            self.effects.push(Effect::Left(before));
        }
        true
    }

    /// A client's connection is gone. Whether that is no end of an allocation.
    pub(super) fn let_go(&mut self, client: &Client) -> bool {
        if let Some(home) = self.guests.0.remove(&client.tuple) {
            self.effects.push(Effect::GuestGone { client: *client, home });
            return true;
        }
        if let Some(handle) = self.table.arriving(&client.tuple) {
            self.table.expect(handle, None);
            self.effects.push(Effect::Left(*client));
            return true;
        }
        let mobile = self.table.find(&client.tuple).filter(|handle| self.table[*handle].mobile.is_some());
        let Some(handle) = mobile else { return false };
        if !self.settle(handle) {
            self.table.leave(handle);
            self.effects.push(Effect::Left(*client));
        }
        true
    }

    /// Data from a client that has no allocation here.
    pub(super) fn stranger<'m>(&mut self, client: &Client, now: Time) -> Step<'m> {
        match self.guests.home(&client.tuple) {
            Some(worker) => Step::Forward(worker),
            None => {
                self.note_no_session(&client.tuple, now);
                self.drop(Drop::NoAllocation)
            }
        }
    }

    /// The worker that has the allocation of this client, if it is a guest.
    #[must_use]
    pub fn home(&self, client: &Client) -> Option<u16> {
        self.guests.home(&client.tuple)
    }

    /// From now on the worker `home` has this client's allocation. False if the client has one here.
    pub fn admit(&mut self, client: &Client, home: u16) -> bool {
        let admitted = !self.owns_allocation(client);
        if admitted {
            self.guests.0.insert(client.tuple, home);
        }
        admitted
    }

    /// The worker `home` has no allocation of this client any more.
    pub fn dismiss(&mut self, client: &Client, home: u16) {
        if self.guests.home(&client.tuple) == Some(home) {
            self.guests.0.remove(&client.tuple);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket { id: AllocationId(0x0003_0000_0000_0001), worker: 3, serial: 0x01_02_03 };

    fn tickets(key: u8) -> Tickets {
        Tickets::new(&Mobility { worker: 0, key: [key; 32] })
    }

    /// 8016-5-01, 8016-3.2.2-04, H-13
    #[test]
    fn an_altered_or_foreign_ticket_is_none() {
        let sealed = tickets(1).seal(TICKET);
        assert_eq!(tickets(1).open(&sealed), Some(TICKET));
        assert_eq!(tickets(2).open(&sealed), None);
        for at in 0..sealed.len() * 8 {
            let mut altered = sealed;
            altered[at / 8] ^= 1 << (at % 8);
            assert_eq!(tickets(1).open(&altered), None, "bit {at}");
        }
        for len in 0..sealed.len() {
            assert_eq!(tickets(1).open(&sealed[..len]), None);
        }
        assert_eq!(tickets(1).open(&[&sealed[..], b"A"].concat()), None);
    }

    /// 8016-5-02
    #[test]
    fn two_tickets_have_nothing_in_common() {
        let raw = |serial| URL_SAFE_NO_PAD.decode(tickets(1).seal(Ticket { serial, ..TICKET })).unwrap();
        let pairs = (0..1000).map(|serial| (raw(serial), raw(serial + 1)));
        let differing: u32 = pairs.flat_map(|(a, b)| a.into_iter().zip(b)).map(|(a, b)| (a ^ b).count_ones()).sum();
        let bits = 1000 * 8 * 24;
        assert!(differing.abs_diff(bits / 2) < bits / 50, "{differing} of {bits} bits differ");
    }
}
