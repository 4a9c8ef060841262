//! The writer: builds a message in the caller's buffer.

use std::net::SocketAddr;

use super::{
    AttributeType, Class, ErrorCode, HEADER_LEN, IntegrityKey, MAGIC_COOKIE, Method, TransactionId, address,
    fingerprint, kind, message::RequestHead, padded,
};

/// The caller's buffer was too small for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Builds one message, attribute by attribute.
///
/// A write that does not fit is remembered and reported by the finishing call, so that callers need one check only.
#[derive(Debug)]
pub struct MessageWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
    transaction_id: TransactionId,
    overflow: bool,
}

impl<'b> MessageWriter<'b> {
    /// Starts a message of this server's own.
    #[must_use]
    pub fn new(buffer: &'b mut [u8], method: Method, class: Class, transaction_id: TransactionId) -> Self {
        let mut writer = Self { buffer, len: 0, transaction_id, overflow: false };
        writer.put(&kind::join(method.code(), class).to_be_bytes());
        writer.put(&[0, 0]);
        writer.put(&MAGIC_COOKIE.to_be_bytes());
        writer.put(&transaction_id.0);
        writer
    }

    /// Starts the response to a request: its method, cookie and transaction id (those of RFC 3489 too).
    #[must_use]
    pub fn response(buffer: &'b mut [u8], request: RequestHead, class: Class) -> Self {
        let [_, _, _, _, transaction_id @ ..] = request.cookie_and_id;
        let mut writer = Self { buffer, len: 0, transaction_id: TransactionId(transaction_id), overflow: false };
        writer.put(&kind::join(request.method, class).to_be_bytes());
        writer.put(&[0, 0]);
        writer.put(&request.cookie_and_id);
        writer
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.buffer.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.overflow = true,
        }
    }

    /// Adds an attribute whose value is `parts` one after the other, with zero padding.
    fn put_attribute(&mut self, attribute: AttributeType, parts: &[&[u8]]) {
        let value_len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let Ok(len) = u16::try_from(value_len) else {
            self.overflow = true;
            return;
        };
        self.put(&attribute.0.to_be_bytes());
        self.put(&len.to_be_bytes());
        for part in parts {
            self.put(part);
        }
        let padding = padded(value_len).saturating_sub(value_len);
        self.put([0u8; 3].get(..padding).unwrap_or_default());
    }

    /// Adds an attribute with a raw value.
    pub fn attribute(&mut self, attribute: AttributeType, value: &[u8]) -> &mut Self {
        self.put_attribute(attribute, &[value]);
        self
    }

    /// Adds an attribute whose value is so many zero bytes.
    pub fn zeros(&mut self, attribute: AttributeType, value_len: usize) -> &mut Self {
        let Ok(len) = u16::try_from(value_len) else {
            self.overflow = true;
            return self;
        };
        self.put(&attribute.0.to_be_bytes());
        self.put(&len.to_be_bytes());
        let end = self.len.saturating_add(padded(value_len));
        match self.buffer.get_mut(self.len..end) {
            Some(place) => {
                place.fill(0);
                self.len = end;
            }
            None => self.overflow = true,
        }
        self
    }

    /// Adds an attribute with a 32-bit value.
    pub fn u32(&mut self, attribute: AttributeType, value: u32) -> &mut Self {
        self.attribute(attribute, &value.to_be_bytes())
    }

    /// Adds an XOR-coded transport address.
    pub fn xor_address(&mut self, attribute: AttributeType, address: SocketAddr) -> &mut Self {
        self.address(attribute, address::xor(address, self.transaction_id))
    }

    /// Adds a plain transport address.
    pub fn address(&mut self, attribute: AttributeType, address: SocketAddr) -> &mut Self {
        let (bytes, used) = address::encode(address);
        self.attribute(attribute, bytes.get(..used).unwrap_or_default())
    }

    /// Adds ERROR-CODE with its reason phrase (RFC 8489 §14.8).
    pub fn error_code(&mut self, error: ErrorCode) -> &mut Self {
        let [class, number] = error.class_and_number();
        self.put_attribute(AttributeType::ERROR_CODE, &[&[0, 0, class, number], error.reason().as_bytes()]);
        self
    }

    /// ERROR-CODE with a short phrase.
    pub fn error_code_in_short(&mut self, error: ErrorCode) -> &mut Self {
        let [class, number] = error.class_and_number();
        self.put_attribute(AttributeType::ERROR_CODE, &[&[0, 0, class, number], error.short_reason().as_bytes()]);
        self
    }

    /// ERROR-CODE with more words behind those that the RFCs recommend; all of them together must be short (RFC 8489 §14.8:
    /// less than 128 characters).
    pub fn error_code_with(&mut self, error: ErrorCode, words: &str) -> &mut Self {
        let [class, number] = error.class_and_number();
        let value = [&[0, 0, class, number], error.reason().as_bytes(), b": ", words.as_bytes()];
        self.put_attribute(AttributeType::ERROR_CODE, &value);
        self
    }

    /// Adds ADDRESS-ERROR-CODE with its reason phrase (RFC 8656 §18.12). `family` as in REQUESTED-ADDRESS-FAMILY.
    pub fn address_error_code(&mut self, family: u8, error: ErrorCode) -> &mut Self {
        let [class, number] = error.class_and_number();
        let head = [family, 0, class, number];
        self.put_attribute(AttributeType::ADDRESS_ERROR_CODE, &[&head, error.reason().as_bytes()]);
        self
    }

    /// Adds UNKNOWN-ATTRIBUTES (RFC 8489 §14.13), as many as fit `limit` bytes of value.
    pub fn unknown_attributes(&mut self, types: impl Iterator<Item = AttributeType>, limit: usize) -> &mut Self {
        let header = self.len;
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &[]);
        let start = self.len;
        for attribute in types {
            if self.len.saturating_sub(start).saturating_add(2) > limit {
                break;
            }
            self.put(&attribute.0.to_be_bytes());
        }
        let value_len = self.len.saturating_sub(start);
        if let (Some(place), Ok(len)) =
            (self.buffer.get_mut(header.saturating_add(2)..header.saturating_add(4)), u16::try_from(value_len))
        {
            place.copy_from_slice(&len.to_be_bytes());
        }
        self.put([0u8; 3].get(..padded(value_len).saturating_sub(value_len)).unwrap_or_default());
        self
    }

    /// Adds the integrity attribute of `key` over everything written so far.
    pub fn integrity(&mut self, key: &IntegrityKey) -> &mut Self {
        let tag = self.buffer.get(..self.len).and_then(|before| key.tag(before));
        match tag.as_ref().and_then(|tag| tag.get(..key.algorithm().tag_len())) {
            Some(tag) => {
                self.attribute(key.algorithm().attribute(), tag);
            }
            None => self.overflow = true,
        }
        self
    }

    /// Adds FINGERPRINT over everything written so far; nothing may follow it.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.set_length(self.len.saturating_add(8));
        let value = fingerprint::of(self.buffer.get(..self.len).unwrap_or_default());
        self.u32(AttributeType::FINGERPRINT, value)
    }

    /// Ends the message with an attribute whose value of `value_len` bytes already stands behind the buffer's used part,
    /// and returns how many bytes were written before that value. The value's zero padding is the caller's to add.
    ///
    /// # Errors
    /// [`Overflow`] if the buffer was too small or the message would be too long for its length field.
    pub fn finish_before_value(mut self, attribute: AttributeType, value_len: usize) -> Result<usize, Overflow> {
        let len = u16::try_from(value_len).map_err(|_| Overflow)?;
        self.put(&attribute.0.to_be_bytes());
        self.put(&len.to_be_bytes());
        self.set_length(self.len.saturating_add(padded(value_len)));
        if self.overflow { Err(Overflow) } else { Ok(self.len) }
    }

    /// Ends the message and returns its length in bytes.
    ///
    /// # Errors
    /// [`Overflow`] if the buffer was too small.
    pub fn finish(mut self) -> Result<usize, Overflow> {
        self.set_length(self.len);
        if self.overflow { Err(Overflow) } else { Ok(self.len) }
    }

    /// Writes the header's length field for a message that ends at `end`.
    fn set_length(&mut self, end: usize) {
        match (u16::try_from(end.saturating_sub(HEADER_LEN)), self.buffer.get_mut(2..4)) {
            (Ok(len), Some(place)) => place.copy_from_slice(&len.to_be_bytes()),
            _ => self.overflow = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};

    use super::super::{Class, MacAlgorithm, Message, vectors};
    use super::*;

    const TID: TransactionId = TransactionId(*b"tid-tid-tid-");

    /// Writes all attributes of a sample again, then its integrity and FINGERPRINT.
    fn write_again(sample: &[u8], key: &IntegrityKey) -> Vec<u8> {
        let message = Message::parse(sample).unwrap();
        let mut buffer = [0xEE; 256];
        let mut writer = MessageWriter::new(&mut buffer, Method::Binding, message.class(), message.transaction_id());
        for (attribute, value) in message.attributes() {
            writer.attribute(attribute, value);
        }
        writer.integrity(key);
        if message.has(AttributeType::FINGERPRINT) {
            writer.fingerprint();
        }
        let len = writer.finish().unwrap();
        buffer[..len].to_vec()
    }

    /// 5769-2-01: padded with zeros as we pad, and so byte for byte.
    #[test]
    fn the_long_term_request_of_rfc_5769() {
        let key = IntegrityKey::new(MacAlgorithm::Sha1, &Md5::digest(vectors::LONG_TERM));
        assert_eq!(write_again(vectors::LONG_TERM_REQUEST, &key), vectors::LONG_TERM_REQUEST);
    }

    /// 5769-2-01: these are padded with spaces, we pad with zeros (8489-14-03), so padding, MAC and CRC differ.
    #[test]
    fn the_short_term_samples_of_rfc_5769() {
        let key = IntegrityKey::new(MacAlgorithm::Sha1, vectors::PASSWORD);
        for (sample, padding) in
            [(vectors::REQUEST, 73..76), (vectors::RESPONSE_IPV4, 35..36), (vectors::RESPONSE_IPV6, 35..36)]
        {
            let written = write_again(sample, &key);
            let integrity = sample.len() - 8 - 20;
            let mut expected = sample[..integrity].to_vec();
            assert!(expected[padding.clone()].iter().all(|byte| *byte == b' '));
            expected[padding].fill(0);
            assert_eq!(written[..integrity], expected);
            let message = Message::parse(&written).unwrap();
            assert!(key.verifies(&message));
            assert!(message.has(AttributeType::FINGERPRINT));
        }
    }

    /// 8489-B-01, except for the length field and thus the MAC.
    #[test]
    fn the_userhash_request_of_rfc_8489() {
        let mut sample = vectors::USERHASH_REQUEST.to_vec();
        sample[3] = 136;
        let key = IntegrityKey::new(MacAlgorithm::Sha256, &sha2::Sha256::digest(vectors::LONG_TERM));
        let written = write_again(&sample, &key);
        let mac = sample.len() - 32;
        assert_eq!(written[..mac], sample[..mac]);
        assert!(key.verifies(&Message::parse(&written).unwrap()));
    }

    /// 8489-5-01, 8489-5-02, 8489-5-04
    #[test]
    fn an_empty_message() {
        let mut buffer = [0xEE; 20];
        let len = MessageWriter::new(&mut buffer, Method::Refresh, Class::Success, TID).finish().unwrap();
        assert_eq!(buffer[..len], *b"\x01\x04\0\0\x21\x12\xA4\x42tid-tid-tid-");
    }

    /// 8489-5-03, 8489-5-05
    #[test]
    fn a_response_takes_method_cookie_and_transaction_id_from_its_request() {
        let classic = b"\x00\x01\0\0classic id of 16";
        let modern = vectors::message(0x0009, &[]);
        let requests = [Message::parse_classic(classic).unwrap(), Message::parse(&modern).unwrap()];
        for (request, [success, error]) in requests.iter().zip([[0x0101, 0x0111], [0x0109, 0x0119]]) {
            for (class, kind) in [(Class::Success, success), (Class::Error, error)] {
                let mut buffer = [0xEE; 20];
                assert_eq!(MessageWriter::response(&mut buffer, request.head(), class).finish(), Ok(20));
                assert_eq!(buffer[..2], u16::to_be_bytes(kind));
                assert_eq!(buffer[4..], request.head().cookie_and_id);
            }
        }
    }

    /// 8489-14-02, 8489-14-03, 8656-18-01: the buffer's old content must not show.
    #[test]
    fn padding_is_zero_and_not_counted() {
        for len in 0..=8u8 {
            let mut buffer = [0xEE; 64];
            let value = &[b'x'; 8][..usize::from(len)];
            let mut writer = MessageWriter::new(&mut buffer, Method::Data, Class::Indication, TID);
            writer.attribute(AttributeType::DATA, value);
            let end = writer.finish().unwrap();
            assert_eq!(end % 4, 0);
            assert_eq!(usize::from(buffer[3]), end - HEADER_LEN);
            assert_eq!(buffer[20..24], [0, 0x13, 0, len]);
            assert_eq!(buffer[24..24 + usize::from(len)], *value);
            assert!(buffer[24 + usize::from(len)..end].iter().all(|byte| *byte == 0));
        }
    }

    /// 8489-14.13-01
    #[test]
    fn unknown_attributes_are_padded_with_zeros() {
        for count in 0..=5u8 {
            let mut buffer = [0xEE; 64];
            let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Error, TID);
            writer.unknown_attributes((0..count).map(|code| AttributeType(0x7F00 + u16::from(code))), 100);
            writer.u32(AttributeType::LIFETIME, 7);
            let end = writer.finish().unwrap();
            let message = Message::parse(&buffer[..end]).unwrap();
            let expected: Vec<u8> = (0..count).flat_map(|code| [0x7F, code]).collect();
            assert_eq!(message.get(AttributeType::UNKNOWN_ATTRIBUTES), Some(&expected[..]));
            assert_eq!(message.get_u32(AttributeType::LIFETIME), Some(Ok(7)));
            assert!(buffer[24 + expected.len()..end - 8].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn unknown_attributes_stop_at_the_limit() {
        for (limit, kept) in [(0, 0), (1, 0), (2, 1), (7, 3), (8, 4)] {
            let mut buffer = [0xEE; 64];
            let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Error, TID);
            writer.unknown_attributes((0x7F00..0x7FFF).map(AttributeType), limit);
            let end = writer.finish().unwrap();
            let message = Message::parse(&buffer[..end]).unwrap();
            assert_eq!(message.get(AttributeType::UNKNOWN_ATTRIBUTES).map(<[u8]>::len), Some(kept * 2));
        }
    }

    /// 8489-14.8-01, 8656-18-06
    #[test]
    fn error_codes() {
        let mut buffer = [0xEE; 128];
        let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Error, TID);
        writer.error_code(ErrorCode::StaleNonce).address_error_code(2, ErrorCode::AddressFamilyNotSupported);
        let end = writer.finish().unwrap();
        let message = Message::parse(&buffer[..end]).unwrap();
        assert_eq!(message.get(AttributeType::ERROR_CODE), Some(&b"\0\0\x04\x26Stale Nonce"[..]));
        let address_error = &b"\x02\0\x04\x28Address Family not Supported"[..];
        assert_eq!(message.get(AttributeType::ADDRESS_ERROR_CODE), Some(address_error));

        for (error, value) in [
            (ErrorCode::Unauthenticated, &b"\0\0\x04\x01Auth"[..]),
            (ErrorCode::StaleNonce, b"\0\0\x04\x26Stale Nonce"),
        ] {
            let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Error, TID);
            writer.error_code_in_short(error);
            let end = writer.finish().unwrap();
            let message = Message::parse(&buffer[..end]).unwrap();
            assert_eq!(message.get(AttributeType::ERROR_CODE), Some(value));
        }
    }

    /// 8489-14.5-01, 8489-14.6-02, 8489-14.7-01
    #[test]
    fn both_integrities_and_a_fingerprint() {
        let keys = [MacAlgorithm::Sha1, MacAlgorithm::Sha256].map(|algorithm| IntegrityKey::new(algorithm, b"key"));
        let mut buffer = [0xEE; 128];
        let mut writer = MessageWriter::new(&mut buffer, Method::Refresh, Class::Success, TID);
        writer.u32(AttributeType::LIFETIME, 600).integrity(&keys[0]).integrity(&keys[1]).fingerprint();
        let end = writer.finish().unwrap();
        let message = Message::parse(&buffer[..end]).unwrap();
        assert!(keys.iter().all(|key| key.verifies(&message)));
        assert_eq!(message.value_offset(AttributeType::FINGERPRINT), Some(end - 4));
    }

    #[test]
    fn a_header_before_a_value_that_is_there_already() {
        for len in 0..=8u8 {
            let mut buffer = [0; 64];
            let value_at = 36;
            buffer[value_at..].fill(b'x');
            let mut writer = MessageWriter::new(&mut buffer, Method::Data, Class::Indication, TID);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, "192.0.2.1:1".parse().unwrap());
            assert_eq!(writer.finish_before_value(AttributeType::DATA, len.into()), Ok(value_at));
            let end = value_at + padded(len.into());
            let message = Message::parse(&buffer[..end]).unwrap();
            assert_eq!(message.get(AttributeType::DATA), Some(&b"xxxxxxxx"[..len.into()]));
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_by_any_amount() {
        fn write(buffer: &mut [u8]) -> Result<usize, Overflow> {
            let key = IntegrityKey::new(MacAlgorithm::Sha256, b"key");
            let mut writer = MessageWriter::new(buffer, Method::Allocate, Class::Error, TID);
            writer.error_code(ErrorCode::UnknownAttribute);
            writer.unknown_attributes([AttributeType(0x7F00)].into_iter(), 2);
            writer.integrity(&key).fingerprint();
            writer.finish()
        }
        let mut buffer = [0; 256];
        let needed = write(&mut buffer).unwrap();
        for len in 0..needed {
            assert_eq!(write(&mut buffer[..len]), Err(Overflow), "{len}");
        }
        assert_eq!(write(&mut buffer[..needed]), Ok(needed));
        for len in 0..24 {
            let writer = MessageWriter::new(&mut buffer[..len], Method::Data, Class::Indication, TID);
            assert_eq!(writer.finish_before_value(AttributeType::DATA, 0), Err(Overflow));
        }
    }

    #[test]
    fn zeros_leave_nothing_of_what_was_there() {
        for len in 0..9 {
            let mut buffer = [0xEE; 40];
            let mut writer = MessageWriter::new(&mut buffer, Method::Binding, Class::Success, TID);
            writer.zeros(AttributeType::PADDING, len);
            let end = writer.finish().unwrap();
            assert_eq!(end, 24 + padded(len));
            assert_eq!(buffer[20..24], [0, 0x26, 0, u8::try_from(len).unwrap()]);
            assert!(buffer[24..end].iter().all(|byte| *byte == 0));
            let mut writer = MessageWriter::new(&mut buffer[..end - 1], Method::Binding, Class::Success, TID);
            writer.zeros(AttributeType::PADDING, len);
            assert_eq!(writer.finish(), Err(Overflow));
        }
        let mut buffer = vec![0; 200_000];
        for len in [65_529, 65_535, 65_536, usize::MAX] {
            let mut writer = MessageWriter::new(&mut buffer, Method::Binding, Class::Success, TID);
            writer.zeros(AttributeType::PADDING, len);
            assert_eq!(writer.finish(), Err(Overflow), "{len}");
        }
    }

    #[test]
    fn more_than_the_length_fields_can_say() {
        let mut buffer = vec![0; 200_000];
        let mut start = |values: &[usize]| {
            let mut writer = MessageWriter::new(&mut buffer, Method::Data, Class::Indication, TID);
            for len in values {
                writer.attribute(AttributeType::DATA, &vec![0; *len]);
            }
            writer.finish()
        };
        assert_eq!(start(&[65_528]), Ok(65_552));
        assert_eq!(start(&[65_529]), Err(Overflow));
        assert_eq!(start(&[65_536]), Err(Overflow));
        assert_eq!(start(&[65_528, 0]), Err(Overflow));
        let mut before = |len| {
            MessageWriter::new(&mut buffer, Method::Data, Class::Indication, TID)
                .finish_before_value(AttributeType::DATA, len)
        };
        assert_eq!(before(65_528), Ok(24));
        assert_eq!(before(65_529), Err(Overflow));
        assert_eq!(before(usize::MAX), Err(Overflow));
        let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Error, TID);
        writer.unknown_attributes((0..u16::MAX).map(AttributeType), usize::MAX);
        assert_eq!(writer.finish(), Err(Overflow));
    }
}
