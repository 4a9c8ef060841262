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

/// Where an attribute lies; an offset of 0 (inside the header) means absent.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Of the attribute's header, in 32-bit words: a message has up to 65,552 bytes, more than 16 bits count.
    word: u16,
    /// Of the value, in bytes.
    len: u16,
}

impl Slot {
    const fn is_absent(self) -> bool {
        self.word == 0
    }

    fn offset(self) -> usize {
        usize::from(self.word).saturating_mul(4)
    }
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
            Some(slot) if slot.is_absent() => {
                // Attributes begin on word boundaries, and the last word of the longest message is its 16,388th.
                *slot = Slot { word: u16::try_from(offset / 4).unwrap_or_default(), len };
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
        let start = slot.offset().checked_add(4)?;
        self.bytes.get(start..start.checked_add(usize::from(slot.len))?)
    }

    /// The offset in [`Self::bytes`] at which the value of the first attribute of this type begins.
    #[must_use]
    pub fn value_offset(&self, attribute: AttributeType) -> Option<usize> {
        self.slot(attribute)?.offset().checked_add(4)
    }

    /// Whether the attribute is present.
    #[must_use]
    pub fn has(&self, attribute: AttributeType) -> bool {
        self.slot(attribute).is_some()
    }

    /// The bytes before the attribute's header.
    #[must_use]
    pub fn before(&self, attribute: AttributeType) -> Option<&'a [u8]> {
        self.bytes.get(..self.slot(attribute)?.offset())
    }

    fn slot(&self, attribute: AttributeType) -> Option<Slot> {
        self.slots.get(attribute::position(attribute.0)?).copied().filter(|slot| !slot.is_absent())
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

#[cfg(test)]
mod tests {
    use super::super::vectors::{self, attribute, attribute_padded, message};
    use super::*;

    const USERNAME: u16 = AttributeType::USERNAME.0;
    const LIFETIME: u16 = AttributeType::LIFETIME.0;
    const INTEGRITY: u16 = AttributeType::MESSAGE_INTEGRITY.0;
    const INTEGRITY_SHA256: u16 = AttributeType::MESSAGE_INTEGRITY_SHA256.0;
    const REFRESH: u16 = 0x0004;
    const UNKNOWN_REQUIRED: u16 = 0x7FF0;
    const UNKNOWN_OPTIONAL: u16 = 0xFFF0;

    /// The attributes, and a right FINGERPRINT behind them.
    fn with_fingerprint(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = message(REFRESH, &[attributes, &[attribute(AttributeType::FINGERPRINT.0, &[0; 4])]].concat());
        let value = bytes.len() - 4;
        let crc = fingerprint::of(&bytes[..value - 4]);
        bytes[value..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn refused(bytes: &[u8]) -> ParseError {
        Message::parse(bytes).expect_err("refused")
    }

    fn unknown(message: &Message<'_>) -> Vec<u16> {
        message.unknown_required().map(|attribute| attribute.0).collect()
    }

    /// 5769-2-01
    #[test]
    fn the_request_of_rfc_5769() {
        let message = Message::parse(vectors::REQUEST).unwrap();
        assert_eq!((message.method(), message.class()), (1, Class::Request));
        assert_eq!(message.transaction_id().0, *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
        assert_eq!(message.get(AttributeType::SOFTWARE), Some(&b"STUN test client"[..]));
        assert_eq!(message.get(AttributeType::USERNAME), Some(&b"evtj:h6vY"[..]));
        assert!(message.has(AttributeType::MESSAGE_INTEGRITY));
        assert!(message.has(AttributeType::FINGERPRINT));
        // PRIORITY belongs to ICE, which this server does not speak; ICE-CONTROLLED is optional.
        assert_eq!(unknown(&message), [0x0024]);
    }

    /// 5769-2-01
    #[test]
    fn the_responses_of_rfc_5769() {
        for (vector, address) in [
            (vectors::RESPONSE_IPV4, "192.0.2.1:32853"),
            (vectors::RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
        ] {
            let message = Message::parse(vector).unwrap();
            assert_eq!((message.method(), message.class()), (1, Class::Success));
            assert_eq!(message.get(AttributeType::SOFTWARE), Some(&b"test vector"[..]));
            let mapped = message.get_xor_address(AttributeType::XOR_MAPPED_ADDRESS);
            assert_eq!(mapped, Some(Ok(address.parse().unwrap())));
            assert!(!message.has_unknown_required());
        }
    }

    /// What comes over TCP lies wherever it was read to, and some processors trap on misaligned numbers; Miri tells of them on any.
    #[test]
    fn messages_are_read_at_any_alignment() {
        for at in 0..8 {
            let shifted = [&[0xFF; 8][..at], vectors::RESPONSE_IPV6].concat();
            let message = Message::parse(&shifted[at..]).unwrap();
            let mapped = message.get_xor_address(AttributeType::XOR_MAPPED_ADDRESS);
            assert_eq!(mapped, Some(Ok("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap())), "{at}");
            let long = [&[0xFF; 8][..at], vectors::LONG_TERM_REQUEST].concat();
            let message = Message::parse(&long[at..]).unwrap();
            assert_eq!(message.get(AttributeType::REALM), Some(&b"example.org"[..]), "{at}");
        }
    }

    /// 5769-2-01
    #[test]
    fn the_long_term_request_of_rfc_5769() {
        let message = Message::parse(vectors::LONG_TERM_REQUEST).unwrap();
        let (username, _) = vectors::LONG_TERM.split_once(':').unwrap();
        assert_eq!(message.get(AttributeType::USERNAME), Some(username.as_bytes()));
        assert_eq!(message.get(AttributeType::REALM), Some(&b"example.org"[..]));
        assert_eq!(message.get(AttributeType::NONCE), Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
        assert!(!message.has(AttributeType::FINGERPRINT));
    }

    /// 8489-B-01: the printed length is wrong, the rest is a message.
    #[test]
    fn the_userhash_request_of_rfc_8489() {
        assert_eq!(refused(vectors::USERHASH_REQUEST), ParseError::Length);
        let mut bytes = vectors::USERHASH_REQUEST.to_vec();
        bytes[3] = 136;
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.get(AttributeType::USERHASH).map(<[u8]>::len), Some(32));
        assert_eq!(message.get(AttributeType::NONCE), Some(&b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"[..]));
        assert_eq!(message.get(AttributeType::REALM), Some(&b"example.org"[..]));
        assert_eq!(message.get(AttributeType::MESSAGE_INTEGRITY_SHA256).map(<[u8]>::len), Some(32));
    }

    /// 8489-5-01, 8489-6.3-01
    #[test]
    fn fewer_bytes_than_a_header_or_the_first_two_bits_set() {
        let bytes = message(REFRESH, &[]);
        for len in 0..HEADER_LEN {
            assert_eq!(refused(&bytes[..len]), ParseError::NotStun);
        }
        for first in [0x40, 0x80, 0xC0] {
            let mut bytes = bytes.clone();
            bytes[0] |= first;
            assert_eq!(refused(&bytes), ParseError::NotStun);
        }
    }

    /// 8489-5-02, 8489-6.3-02
    #[test]
    fn the_cookie_divides_messages_from_those_of_rfc_3489() {
        let mut bytes = message(0x0001, &[attribute(LIFETIME, &[0; 4])]);
        assert!(!Message::parse(&bytes).unwrap().is_classic());
        assert_eq!(Message::parse_classic(&bytes).err(), Some(ParseError::Cookie));
        for at in 4..8 {
            bytes[at] ^= 1;
            assert_eq!(refused(&bytes), ParseError::Cookie);
            let classic = Message::parse_classic(&bytes).unwrap();
            assert!(classic.is_classic());
            assert_eq!(classic.head().cookie_and_id, bytes[4..20]);
            bytes[at] ^= 1;
        }
    }

    /// 8489-5-04, 8489-6.3-03
    #[test]
    fn the_length_field_must_be_the_number_of_bytes_that_follow() {
        let bytes = message(REFRESH, &[attribute(LIFETIME, &[0; 4])]);
        for len in (0..=u16::MAX).filter(|len| *len != 8) {
            let mut bytes = bytes.clone();
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(refused(&bytes), ParseError::Length, "{len}");
        }
        for surplus in 1..=8 {
            let bytes = [&bytes[..], &[0; 8][..surplus]].concat();
            assert_eq!(refused(&bytes), ParseError::Length);
        }
        for missing in 1..=8 {
            assert_eq!(refused(&bytes[..bytes.len() - missing]), ParseError::Length);
        }
    }

    /// 8489-6.3-03, 8489-14-01
    #[test]
    fn an_attribute_must_lie_inside_the_message() {
        let whole = message(REFRESH, &[attribute(USERNAME, b"abcdefgh")]);
        for claimed in 9..=u16::MAX {
            let mut bytes = whole.clone();
            bytes[22..24].copy_from_slice(&claimed.to_be_bytes());
            assert_eq!(refused(&bytes), ParseError::Attribute, "{claimed}");
        }
        for claimed in 5..=8 {
            let mut bytes = whole.clone();
            bytes[22..24].copy_from_slice(&u16::to_be_bytes(claimed));
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.get(AttributeType::USERNAME), Some(&b"abcdefgh"[..usize::from(claimed)]));
        }
    }

    /// 8489-14-01: whatever the length field makes of the missing padding.
    #[test]
    fn the_last_attribute_without_its_padding() {
        let whole = message(REFRESH, &[attribute(LIFETIME, &[0; 4]), attribute(USERNAME, b"abcde")]);
        for missing in 1..=3 {
            let mut bytes = whole[..whole.len() - missing].to_vec();
            assert_eq!(refused(&bytes), ParseError::Length);
            let follow = bytes.len() - HEADER_LEN;
            bytes[3] = u8::try_from(follow).unwrap();
            assert_eq!(refused(&bytes), ParseError::Length);
            bytes[3] = u8::try_from(follow & !3).unwrap();
            assert_eq!(refused(&bytes), ParseError::Length);
        }
        let mut bytes = whole[..whole.len() - 4].to_vec();
        bytes[3] -= 4;
        assert_eq!(refused(&bytes), ParseError::Attribute);
    }

    /// 8489-14-02, 8489-14-04
    #[test]
    fn padding_is_no_part_of_the_value_and_its_content_is_ignored() {
        for len in 0..=8 {
            let value = &b"abcdefgh"[..len];
            for padding in [0x00, 0x20, 0xFF] {
                let padded = attribute_padded(USERNAME, value, padding);
                let bytes = message(REFRESH, &[padded, attribute(LIFETIME, &[0, 0, 2, 88])]);
                let message = Message::parse(&bytes).unwrap();
                assert_eq!(message.get(AttributeType::USERNAME), Some(value));
                assert_eq!(message.get_u32(AttributeType::LIFETIME), Some(Ok(600)));
            }
        }
    }

    /// 8489-14-05
    #[test]
    fn the_first_of_repeated_attributes_counts() {
        for attribute_type in AttributeType::ALL {
            if attribute_type == AttributeType::FINGERPRINT {
                continue;
            }
            let bytes = message(REFRESH, &[attribute(attribute_type.0, b"one"), attribute(attribute_type.0, b"two!")]);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.get(attribute_type), Some(&b"one"[..]));
            assert_eq!(message.value_offset(attribute_type), Some(24));
            assert_eq!(message.before(attribute_type), Some(&bytes[..20]));
        }
    }

    /// CreatePermission may carry many peers (RFC 8656 §10.1).
    #[test]
    fn every_peer_address_is_seen() {
        let v4 = attribute(AttributeType::XOR_PEER_ADDRESS.0, &[0, 1, 0x21, 0x12, 0x21, 0x12, 0xA4, 0x43]);
        let bad = attribute(AttributeType::XOR_PEER_ADDRESS.0, &[0, 1, 0, 0]);
        let hidden = [attribute(INTEGRITY, &[0; 20]), v4.clone()].concat();
        let bytes = message(0x0008, &[v4, attribute(LIFETIME, &[0; 4]), bad, hidden]);
        let message = Message::parse(&bytes).unwrap();
        let found: Vec<_> = message.xor_addresses(AttributeType::XOR_PEER_ADDRESS).collect();
        assert_eq!(found, [Ok("0.0.0.1:0".parse().unwrap()), Err(Malformed)]);
    }

    /// 8489-6.3-09, 8489-6.3.1-01
    #[test]
    fn unknown_attributes_are_listed_if_required_and_ignored_if_optional() {
        let bytes = message(
            REFRESH,
            &[
                attribute(UNKNOWN_OPTIONAL, b"ignored"),
                attribute(UNKNOWN_REQUIRED, b""),
                attribute(LIFETIME, &[0; 4]),
                attribute(UNKNOWN_REQUIRED + 1, b"x"),
            ],
        );
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has_unknown_required());
        assert_eq!(unknown(&message), [UNKNOWN_REQUIRED, UNKNOWN_REQUIRED + 1]);
        assert!(message.has(AttributeType::LIFETIME));
        assert_eq!(message.get(AttributeType(UNKNOWN_REQUIRED)), None);

        let bytes = super::super::vectors::message(REFRESH, &[attribute(UNKNOWN_OPTIONAL, b"ignored")]);
        assert!(!Message::parse(&bytes).unwrap().has_unknown_required());
    }

    /// 8489-9-01, 8489-9-02
    #[test]
    fn attributes_behind_integrity_are_invisible() {
        for (integrity, tag) in [(INTEGRITY, &[0; 20][..]), (INTEGRITY_SHA256, &[0; 32])] {
            let bytes = message(
                REFRESH,
                &[
                    attribute(USERNAME, b"user"),
                    attribute(integrity, tag),
                    attribute(LIFETIME, &[0; 4]),
                    attribute(USERNAME, b"else"),
                    attribute(UNKNOWN_REQUIRED, b""),
                ],
            );
            let message = Message::parse(&bytes).unwrap();
            assert!(message.has(AttributeType(integrity)));
            assert_eq!(message.get(AttributeType::LIFETIME), None);
            assert_eq!(message.get(AttributeType::USERNAME), Some(&b"user"[..]));
            assert!(!message.has_unknown_required());
            assert_eq!(unknown(&message), [0; 0]);
            assert_eq!(message.attributes().collect::<Vec<_>>(), [(AttributeType::USERNAME, &b"user"[..])]);
        }
    }

    /// 8489-9-01, 8489-9-02: of the two integrity attributes only the SHA-256 one may stand second.
    #[test]
    fn the_order_of_the_integrity_attributes() {
        let sha1 = attribute(INTEGRITY, &[1; 20]);
        let sha256 = attribute(INTEGRITY_SHA256, &[2; 32]);
        let lifetime = attribute(LIFETIME, &[0; 4]);

        let bytes = message(REFRESH, &[sha1.clone(), lifetime.clone(), sha256.clone(), lifetime]);
        let both = Message::parse(&bytes).unwrap();
        assert!(both.has(AttributeType::MESSAGE_INTEGRITY) && both.has(AttributeType::MESSAGE_INTEGRITY_SHA256));
        assert!(!both.has(AttributeType::LIFETIME));

        let bytes = message(REFRESH, &[sha256, sha1]);
        let reversed = Message::parse(&bytes).unwrap();
        assert!(reversed.has(AttributeType::MESSAGE_INTEGRITY_SHA256));
        assert!(!reversed.has(AttributeType::MESSAGE_INTEGRITY));
    }

    /// 8489-14.7-01
    #[test]
    fn nothing_is_visible_behind_a_fingerprint() {
        let hidden =
            [attribute(LIFETIME, &[0; 4]), attribute(INTEGRITY, &[0; 20]), attribute(INTEGRITY_SHA256, &[0; 32])];
        let mut bytes = [with_fingerprint(&[attribute(USERNAME, b"user")]), hidden.concat()].concat();
        let len = u8::try_from(bytes.len() - HEADER_LEN).unwrap();
        bytes[3] = len;
        let crc = fingerprint::of(&bytes[..28]);
        bytes[32..36].copy_from_slice(&crc.to_be_bytes());
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has(AttributeType::FINGERPRINT));
        assert!(message.has(AttributeType::USERNAME));
        for attribute in
            [AttributeType::LIFETIME, AttributeType::MESSAGE_INTEGRITY, AttributeType::MESSAGE_INTEGRITY_SHA256]
        {
            assert!(!message.has(attribute));
        }
        assert_eq!(message.attributes().count(), 1);
    }

    /// 8489-6.3-07
    #[test]
    fn a_wrong_fingerprint_refuses_the_message() {
        for front in [vec![], vec![attribute(INTEGRITY, &[0; 20])], vec![attribute(INTEGRITY_SHA256, &[0; 32])]] {
            let bytes = with_fingerprint(&front);
            assert!(Message::parse(&bytes).unwrap().has(AttributeType::FINGERPRINT));
            for bit in 0..32 {
                let mut bytes = bytes.clone();
                let value = bytes.len() - 4;
                bytes[value + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(refused(&bytes), ParseError::Fingerprint);
            }
            let mut bytes = bytes.clone();
            bytes[8] ^= 1;
            assert_eq!(refused(&bytes), ParseError::Fingerprint);
        }
    }

    /// 8489-6.3-07
    #[test]
    fn a_fingerprint_of_another_length_refuses_the_message() {
        for len in [0, 1, 3, 5, 8] {
            let mut bytes = message(REFRESH, &[attribute(AttributeType::FINGERPRINT.0, &[0; 8][..len])]);
            let crc = fingerprint::of(&bytes[..20]).to_be_bytes();
            bytes[24..].iter_mut().zip(crc).for_each(|(to, from)| *to = from);
            assert_eq!(refused(&bytes), ParseError::Fingerprint, "{len}");
        }
    }

    /// 8656-18-08
    #[test]
    fn a_number_of_another_length_is_malformed() {
        for len in [0, 1, 2, 3, 5, 8] {
            let bytes = message(REFRESH, &[attribute(LIFETIME, &[0; 8][..len])]);
            assert_eq!(Message::parse(&bytes).unwrap().get_u32(AttributeType::LIFETIME), Some(Err(Malformed)));
        }
        let bytes = message(REFRESH, &[]);
        assert_eq!(Message::parse(&bytes).unwrap().get_u32(AttributeType::LIFETIME), None);
    }

    #[test]
    fn an_empty_channel_number_is_present_and_malformed() {
        let bytes = message(0x0009, &[attribute(AttributeType::CHANNEL_NUMBER.0, &[])]);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.get(AttributeType::CHANNEL_NUMBER), Some(&[][..]));
        assert_eq!(message.get_u32(AttributeType::CHANNEL_NUMBER), Some(Err(Malformed)));
    }

    #[test]
    fn a_password_algorithm_cannot_reach_beyond_its_value() {
        for claimed in [1, 4, 0xFFFF] {
            let [high, low] = u16::to_be_bytes(claimed);
            let algorithm = attribute(AttributeType::PASSWORD_ALGORITHM.0, &[0, 2, high, low]);
            let bytes = message(REFRESH, &[algorithm, attribute(LIFETIME, &[0; 4])]);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.get(AttributeType::PASSWORD_ALGORITHM), Some(&[0, 2, high, low][..]));
            assert!(message.has(AttributeType::LIFETIME));
        }
    }

    /// 8489-14.1-01
    #[test]
    fn an_address_that_is_none_is_malformed() {
        for value in [&[][..], &[0, 1], &[0, 1, 0, 0, 1, 2, 3], &[0, 2, 0, 0, 1, 2, 3, 4], &[0, 3, 0, 0, 1, 2, 3, 4]] {
            let bytes = message(0x0008, &[attribute(AttributeType::XOR_PEER_ADDRESS.0, value)]);
            let peer = Message::parse(&bytes).unwrap().get_xor_address(AttributeType::XOR_PEER_ADDRESS);
            assert_eq!(peer, Some(Err(Malformed)));
        }
    }

    /// A stream frame can be longer than the 65,535 bytes that a 16-bit offset reaches.
    #[test]
    fn attributes_at_the_end_of_the_longest_message() {
        let filler = attribute(UNKNOWN_OPTIONAL, &[0; 65_512]);
        let bytes = message(
            REFRESH,
            &[filler, attribute(LIFETIME, &[0, 0, 2, 88]), attribute(AttributeType::DONT_FRAGMENT.0, b"")],
        );
        assert_eq!(bytes.len(), 65_548);
        let last = message(REFRESH, &[bytes[20..].to_vec(), attribute(AttributeType::EVEN_PORT.0, b"")]);
        assert_eq!(last.len(), 65_552);
        let message = Message::parse(&last).unwrap();
        assert_eq!(message.get_u32(AttributeType::LIFETIME), Some(Ok(600)));
        assert!(message.has(AttributeType::DONT_FRAGMENT));
        assert_eq!(message.value_offset(AttributeType::DONT_FRAGMENT), Some(65_548));
        assert!(message.has(AttributeType::EVEN_PORT));
        assert_eq!(message.before(AttributeType::EVEN_PORT).map(<[u8]>::len), Some(65_548));
    }
}
