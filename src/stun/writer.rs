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
    /// and returns how many bytes were written before that value.
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
