//! Everything that a server may do with bytes that it has received.

use std::hint::black_box;

use turnserver::stun::{
    AttributeType, ChannelData, Class, ErrorCode, IntegrityKey, Message, MessageWriter,
    frame::{self, Frame},
};

/// What became of the bytes as a STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Refused,
    Accepted,
    /// Accepted, and protected by one of the keys.
    Verified,
}

/// Reads `bytes` in every way there is. Panics if an answer contradicts another one, or if the codec does.
pub(crate) fn everything(bytes: &[u8], keys: &[IntegrityKey]) -> Outcome {
    for wide_channels in [false, true] {
        front(bytes, wide_channels);
    }
    if let Some(data) = ChannelData::parse(bytes) {
        assert!(usize::from(data.len) + 4 <= bytes.len());
        assert_eq!(data.header(), bytes[..4]);
    }
    if let Ok(message) = Message::parse_classic(bytes) {
        assert!(message.is_classic() && Message::parse(bytes).is_err());
        accessors(&message);
    }
    let Ok(message) = Message::parse(bytes) else { return Outcome::Refused };
    assert!(!message.is_classic());
    accessors(&message);
    // `|` and not `||`: every key has to be tried.
    if keys.iter().fold(false, |found, key| found | key.verifies(&message)) {
        Outcome::Verified
    } else {
        Outcome::Accepted
    }
}

fn front(bytes: &[u8], wide_channels: bool) {
    match frame::front(bytes, wide_channels) {
        Frame::Stun(len) => {
            assert!((20..=bytes.len()).contains(&len) && len.is_multiple_of(4));
            assert_eq!(len, 20 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])));
        }
        Frame::ChannelData(len) => {
            assert!((4..=bytes.len()).contains(&len) && len.is_multiple_of(4));
            assert!(ChannelData::parse(&bytes[..len]).is_some());
        }
        Frame::Partial(len) => assert!(len > bytes.len() && len <= 65_536 + 20),
        Frame::Lost => {}
    }
}

fn accessors(message: &Message<'_>) {
    let bytes = message.bytes();
    assert!(message.method() < 0x1000);
    assert_eq!(message.head().cookie_and_id, bytes[4..20]);
    assert_eq!(message.transaction_id().0, bytes[8..20]);
    for attribute in AttributeType::ALL {
        let value = message.get(attribute);
        assert_eq!(value.is_some(), message.has(attribute));
        let at = message.value_offset(attribute);
        assert_eq!(value, at.zip(value).map(|(at, value)| &bytes[at..at + value.len()]));
        assert_eq!(message.before(attribute), at.map(|at| &bytes[..at - 4]));
        assert_eq!(message.get_u32(attribute).map(|number| number.is_ok()), value.map(|value| value.len() == 4));
        let address = message.get_xor_address(attribute);
        assert_eq!(address.is_some(), value.is_some());
    }
    let mut required = 0;
    for (attribute, value) in message.attributes() {
        black_box(value);
        if attribute.is_comprehension_required() && !AttributeType::ALL.contains(&attribute) {
            required += 1;
            assert_eq!(message.get(attribute), None);
        } else if AttributeType::ALL.contains(&attribute) {
            assert!(message.has(attribute));
        }
    }
    assert_eq!(message.has_unknown_required(), required > 0);
    assert_eq!(message.unknown_required().count(), required);
    for address in message.xor_addresses(AttributeType::XOR_PEER_ADDRESS) {
        black_box(address.is_ok());
    }
    response(message);
}

/// The answer to unknown attributes must be a message, whatever the request was.
fn response(request: &Message<'_>) {
    let mut buffer = [0; 128];
    let mut writer = MessageWriter::response(&mut buffer, request.head(), Class::Error);
    writer.error_code(ErrorCode::UnknownAttribute).unknown_attributes(request.unknown_required(), 64);
    let len = writer.finish().expect("to fit");
    let response =
        if request.is_classic() { Message::parse_classic(&buffer[..len]) } else { Message::parse(&buffer[..len]) };
    let response = response.expect("to be a message");
    assert_eq!((response.method(), response.class()), (request.method(), Class::Error));
    assert_eq!(response.head().cookie_and_id, request.head().cookie_and_id);
}

/// What a stream was cut into: the frames, how many bytes were left, and whether framing was lost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) left: usize,
    pub(crate) lost: bool,
}

/// Cuts a stream that arrives in segments of these sizes, which are repeated until it ends.
pub(crate) fn cut(stream: &[u8], sizes: &[usize]) -> Cut {
    let mut cut = Cut { frames: Vec::new(), left: 0, lost: false };
    let mut sizes = sizes.iter().cycle();
    let (mut taken, mut arrived) = (0, 0);
    while arrived < stream.len() {
        let size = *sizes.next().unwrap_or(&usize::MAX);
        arrived = arrived.saturating_add(size.max(1)).min(stream.len());
        loop {
            let bytes = &stream[taken..arrived];
            match frame::front(bytes, false) {
                Frame::Stun(len) | Frame::ChannelData(len) => {
                    cut.frames.push(bytes[..len].to_vec());
                    taken += len;
                }
                Frame::Partial(needed) => {
                    assert!(needed > bytes.len());
                    break;
                }
                Frame::Lost => {
                    cut.lost = true;
                    return cut;
                }
            }
        }
    }
    cut.left = arrived - taken;
    cut
}
