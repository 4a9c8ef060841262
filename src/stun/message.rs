//! The reader: one pass over a message, offsets into the caller's bytes.

use std::{fmt, iter, net::SocketAddr};

use super::{
    AttributeType, Class, HEADER_LEN, MAGIC_COOKIE, TransactionId, address, attribute, fingerprint, kind, padded,
};

/// Why bytes are not a message that can be acted on. All of them are dropped in silence (RFC 8489 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The first two bits are set, or there are fewer bytes than a header.
    NotStun,
    /// The magic cookie is missing.
    Cookie,
    /// The length field is no multiple of 4, or is not the number of bytes that follow.
    Length,
    /// An attribute claims more bytes than there are.
    Attribute,
    /// FINGERPRINT is present and wrong.
    Fingerprint,
}

/// A STUN message, borrowed from the bytes that it came in.
///
/// Attributes that the sender did not protect by the integrity attributes (that follow them) are invisible
/// (RFC 8489 §9), so no code can act on them by mistake.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: u16,
    class: Class,
    classic: bool,
    slots: [Slot; attribute::COUNT],
    /// End of the attributes that may be acted on, integrity attributes and FINGERPRINT excluded.
    visible_end: usize,
    unknown_required: bool,
}

/// Where an attribute's value lies; an offset of 0 (inside the header) means absent.
#[derive(Clone, Copy, Default)]
struct Slot {
    offset: u16,
    len: u16,
}

impl<'a> Message<'a> {
    /// Parses exactly one message: `bytes` is a whole datagram or a whole stream frame.
    ///
    /// # Errors
    /// Any [`ParseError`]; the message is then to be dropped in silence.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_with(bytes, false)
    }

    /// Parses a message of RFC 3489, which has 128 bits of transaction id where the cookie is now.
    ///
    /// # Errors
    /// Any [`ParseError`]; [`ParseError::Cookie`] if the message does have the cookie and is none of RFC 3489.
    pub fn parse_classic(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_with(bytes, true)
    }

    fn parse_with(bytes: &'a [u8], classic: bool) -> Result<Self, ParseError> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::NotStun)?;
        let &[kind_high, kind_low, len_high, len_low, c0, c1, c2, c3, ..] = header;
        if kind_high & 0xC0 != 0 {
            return Err(ParseError::NotStun);
        }
        if ([c0, c1, c2, c3] == MAGIC_COOKIE.to_be_bytes()) == classic {
            return Err(ParseError::Cookie);
        }
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        if !len.is_multiple_of(4) || len != body.len() {
            return Err(ParseError::Length);
        }
        let (method, class) = kind::split(u16::from_be_bytes([kind_high, kind_low]));
        let mut message = Self {
            bytes,
            method,
            class,
            classic,
            slots: [Slot::default(); attribute::COUNT],
            visible_end: bytes.len(),
            unknown_required: false,
        };
        message.read_attributes()?;
        Ok(message)
    }

    /// Fills the table: the first of each understood attribute, honouring the order rules of RFC 8489 §9 and §14.7.
    fn read_attributes(&mut self) -> Result<(), ParseError> {
        /// What has been passed on the way through the attributes.
        #[derive(PartialEq, PartialOrd)]
        enum Passed {
            Nothing,
            Integrity,
            IntegritySha256,
            Fingerprint,
        }
        let mut passed = Passed::Nothing;
        let mut offset = HEADER_LEN;
        while offset < self.bytes.len() {
            let (attribute, value_len) = attribute_at(self.bytes, offset).ok_or(ParseError::Attribute)?;
            let visible = match attribute {
                AttributeType::MESSAGE_INTEGRITY => passed == Passed::Nothing,
                AttributeType::MESSAGE_INTEGRITY_SHA256 => passed <= Passed::Integrity,
                AttributeType::FINGERPRINT => passed < Passed::Fingerprint,
                _ => passed == Passed::Nothing,
            };
            if visible {
                if passed == Passed::Nothing {
                    self.visible_end = offset;
                }
                match attribute {
                    AttributeType::MESSAGE_INTEGRITY => passed = Passed::Integrity,
                    AttributeType::MESSAGE_INTEGRITY_SHA256 => passed = Passed::IntegritySha256,
                    AttributeType::FINGERPRINT => {
                        self.check_fingerprint(offset)?;
                        passed = Passed::Fingerprint;
                    }
                    _ => {}
                }
                self.note(attribute, offset, value_len);
            }
            // `attribute_at` has checked that header, value and padding lie inside `bytes`.
            offset = offset.saturating_add(4).saturating_add(padded(usize::from(value_len)));
            if passed == Passed::Nothing {
                self.visible_end = offset;
            }
        }
        Ok(())
    }

    fn note(&mut self, attribute: AttributeType, offset: usize, len: u16) {
        match attribute::position(attribute.0).and_then(|place| self.slots.get_mut(place)) {
            Some(slot) if slot.offset == 0 => {
                // A message has at most 65,555 bytes; an attribute header that starts above 65,535 cannot exist,
                // since 4 more bytes would have to follow it.
                *slot = Slot { offset: u16::try_from(offset).unwrap_or_default(), len };
            }
            Some(_) => {}
            None => self.unknown_required |= attribute.is_comprehension_required(),
        }
    }

    fn check_fingerprint(&self, offset: usize) -> Result<(), ParseError> {
        let value = offset.saturating_add(4);
        let claimed = self.bytes.get(value..value.saturating_add(4)).ok_or(ParseError::Fingerprint)?;
        let before = self.bytes.get(..offset).ok_or(ParseError::Fingerprint)?;
        // An attribute of another length is no FINGERPRINT at all.
        let length_is_right = attribute_at(self.bytes, offset).is_some_and(|(_, len)| len == 4);
        (length_is_right && claimed == fingerprint::of(before).to_be_bytes())
            .then_some(())
            .ok_or(ParseError::Fingerprint)
    }

    /// The 12-bit method code, spoken by this server or not.
    #[must_use]
    pub const fn method(&self) -> u16 {
        self.method
    }

    /// The class.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether this is a message of RFC 3489 ([`Message::parse_classic`]).
    #[must_use]
    pub const fn is_classic(&self) -> bool {
        self.classic
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What a response to this request copies.
    #[must_use]
    pub fn head(&self) -> RequestHead {
        // `parse` saw a whole header.
        let cookie_and_id = self.bytes.get(4..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        RequestHead { method: self.method, cookie_and_id }
    }

    /// The 96-bit transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        TransactionId(self.bytes.get(8..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
    }

    /// The value of the first attribute of this type, without padding.
    #[must_use]
    pub fn get(&self, attribute: AttributeType) -> Option<&'a [u8]> {
        let slot = self.slot(attribute)?;
        let start = usize::from(slot.offset).checked_add(4)?;
        self.bytes.get(start..start.checked_add(usize::from(slot.len))?)
    }

    /// The offset in [`Self::bytes`] at which the value of the first attribute of this type begins.
    #[must_use]
    pub fn value_offset(&self, attribute: AttributeType) -> Option<usize> {
        usize::from(self.slot(attribute)?.offset).checked_add(4)
    }

    /// Whether the attribute is present.
    #[must_use]
    pub fn has(&self, attribute: AttributeType) -> bool {
        self.slot(attribute).is_some()
    }

    /// The bytes before the attribute's header.
    #[must_use]
    pub fn before(&self, attribute: AttributeType) -> Option<&'a [u8]> {
        self.bytes.get(..usize::from(self.slot(attribute)?.offset))
    }

    fn slot(&self, attribute: AttributeType) -> Option<Slot> {
        self.slots.get(attribute::position(attribute.0)?).copied().filter(|slot| slot.offset != 0)
    }

    /// The value as a big-endian 32-bit number: `None` if absent, `Some(Err(Malformed))` if of another length.
    #[must_use]
    pub fn get_u32(&self, attribute: AttributeType) -> Option<Result<u32, Malformed>> {
        self.get(attribute).map(|value| value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed))
    }

    /// The value as an XOR-coded transport address: `None` if absent, `Some(Err(Malformed))` if it is none.
    #[must_use]
    pub fn get_xor_address(&self, attribute: AttributeType) -> Option<Result<SocketAddr, Malformed>> {
        self.get(attribute).map(|value| self.xor_address(value))
    }

    /// All attributes of this type, decoded as XOR-coded transport addresses.
    pub fn xor_addresses(
        &self,
        attribute: AttributeType,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'_, 'a> {
        self.attributes().filter(move |(found, _)| *found == attribute).map(|(_, value)| self.xor_address(value))
    }

    fn xor_address(&self, value: &[u8]) -> Result<SocketAddr, Malformed> {
        address::decode(value).map(|coded| address::xor(coded, self.transaction_id())).ok_or(Malformed)
    }

    /// The attributes that may be acted on, in order, integrity attributes and FINGERPRINT excluded.
    pub fn attributes(&self) -> impl Iterator<Item = (AttributeType, &'a [u8])> + use<'a> {
        let bytes = self.bytes.get(..self.visible_end).unwrap_or_default();
        let mut offset = HEADER_LEN;
        iter::from_fn(move || {
            let (attribute, len) = attribute_at(bytes, offset)?;
            let start = offset.checked_add(4)?;
            offset = start.checked_add(padded(usize::from(len)))?;
            Some((attribute, bytes.get(start..start.checked_add(usize::from(len))?)?))
        })
    }

    /// Whether there is a comprehension-required attribute that the reader does not understand.
    #[must_use]
    pub const fn has_unknown_required(&self) -> bool {
        self.unknown_required
    }

    /// The types of the comprehension-required attributes that the reader does not understand (RFC 8489 §6.3.1).
    pub fn unknown_required(&self) -> impl Iterator<Item = AttributeType> + use<'a> {
        self.attributes()
            .map(|(attribute, _)| attribute)
            .filter(|attribute| attribute.is_comprehension_required() && attribute::position(attribute.0).is_none())
    }
}

/// What a response copies from its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// The 12-bit method code.
    pub method: u16,
    /// Bytes 4 to 20: cookie and transaction id, or the 128-bit transaction id of RFC 3489.
    pub cookie_and_id: [u8; 16],
}

/// An attribute whose value is not what its type prescribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Type and value length of the attribute at `offset`, if its header, value and padding lie inside `bytes`.
fn attribute_at(bytes: &[u8], offset: usize) -> Option<(AttributeType, u16)> {
    let rest = bytes.get(offset..)?;
    let (&[type_high, type_low, len_high, len_low], value) = rest.split_first_chunk::<4>()?;
    let len = u16::from_be_bytes([len_high, len_low]);
    (padded(usize::from(len)) <= value.len()).then_some((AttributeType(u16::from_be_bytes([type_high, type_low])), len))
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("method", &format_args!("{:#05x}", self.method))
            .field("class", &self.class)
            .field("transaction_id", &self.transaction_id())
            .field("attributes", &self.attributes().map(|(attribute, _)| attribute).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
