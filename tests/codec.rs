//! The codec against stun-rs, an independent one: what ours writes stun-rs reads, what stun-rs writes ours reads, and both
//! write the same bytes. Then the codec against itself and against any bytes.

mod stun;

use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*};
use stun::{exercise, samples, vectors};
use stun_rs::{
    Algorithm, AlgorithmId, DecoderContextBuilder, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder,
    MessageMethod, MessageType, StunAttribute, StunMessage, StunMessageBuilder,
    attributes::{StunAttributeType, stun as base, turn as relay},
};
use turnserver::stun::{
    AttributeType as A, Class, ErrorCode, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId,
    address, fingerprint, kind,
};

const CLASSES: [(Class, MessageClass); 4] = [
    (Class::Request, MessageClass::Request),
    (Class::Indication, MessageClass::Indication),
    (Class::Success, MessageClass::SuccessResponse),
    (Class::Error, MessageClass::ErrorResponse),
];

const METHODS: [Method; 7] = [
    Method::Binding,
    Method::Allocate,
    Method::Refresh,
    Method::Send,
    Method::Data,
    Method::CreatePermission,
    Method::ChannelBind,
];

const ERRORS: [ErrorCode; 14] = [
    ErrorCode::TryAlternate,
    ErrorCode::BadRequest,
    ErrorCode::Unauthenticated,
    ErrorCode::Forbidden,
    ErrorCode::UnknownAttribute,
    ErrorCode::AllocationMismatch,
    ErrorCode::StaleNonce,
    ErrorCode::AddressFamilyNotSupported,
    ErrorCode::WrongCredentials,
    ErrorCode::UnsupportedTransportProtocol,
    ErrorCode::PeerAddressFamilyMismatch,
    ErrorCode::AllocationQuotaReached,
    ErrorCode::ServerError,
    ErrorCode::InsufficientCapacity,
];

fn ours(tid: [u8; 12], fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0xEE; 70_000];
    let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Request, TransactionId(tid));
    fill(&mut writer);
    let len = writer.finish().unwrap();
    buffer.truncate(len);
    buffer
}

fn theirs(tid: [u8; 12], attributes: Vec<StunAttribute>) -> Vec<u8> {
    let builder = StunMessageBuilder::new(stun_rs::methods::ALLOCATE, MessageClass::Request)
        .with_transaction_id(stun_rs::TransactionId::from(tid));
    let message = attributes.into_iter().fold(builder, StunMessageBuilder::with_attribute).build();
    let mut buffer = vec![0xEE; 70_000];
    let len = MessageEncoderBuilder::default().build().encode(&mut buffer, &message).unwrap();
    buffer.truncate(len);
    buffer
}

fn read_by_theirs(bytes: &[u8]) -> StunMessage {
    let (message, len) = MessageDecoderBuilder::default().build().decode(bytes).unwrap();
    assert_eq!(len, bytes.len());
    message
}

/// The first attribute of this type that stun-rs finds.
fn theirs_in<T: StunAttributeType>(bytes: &[u8]) -> StunAttribute {
    read_by_theirs(bytes).get::<T>().expect("the attribute").clone()
}

/// One attribute, `ours` and `theirs`: the same bytes, and each reads from the other's what went in.
macro_rules! same {
    ($tid:expr, $fill:expr, $theirs:expr, $their_type:ty, $as:ident, $read:expr) => {{
        let fill: &dyn Fn(&mut MessageWriter<'_>) = &$fill;
        let expected: $their_type = $theirs;
        let written = ours($tid, fill);
        let foreign = theirs($tid, vec![expected.clone().into()]);
        prop_assert_eq!(&written, &foreign);
        let found = theirs_in::<$their_type>(&written);
        prop_assert_eq!(found.$as().unwrap(), &expected);
        let message = Message::parse(&foreign).unwrap();
        prop_assert_eq!(message.transaction_id().0, $tid);
        let read: &dyn Fn(&Message<'_>) -> bool = &$read;
        prop_assert!(read(&message), "ours reads {:?} from {:02x?}", message, foreign);
    }};
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ]
}

fn families() -> impl Strategy<Value = (u8, stun_rs::AddressFamily)> {
    prop_oneof![
        Just((address::FAMILY_IPV4, stun_rs::AddressFamily::IPv4)),
        Just((address::FAMILY_IPV6, stun_rs::AddressFamily::IPv6)),
    ]
}

fn errors() -> impl Strategy<Value = ErrorCode> {
    proptest::sample::select(&ERRORS[..])
}

/// What a quoted string may hold without quoting, which is what REALM and NONCE are (RFC 8489 §14.9, §14.10).
const QUOTABLE: &str = "[!#-\\[\\]-~]{1,120}";

/// Letters only, so that string preparation changes nothing.
const NAME: &str = "[a-zA-Z0-9:@.+-]{1,508}";

/// 8489-5-05: every method that stun-rs can name, in every class.
#[test]
fn message_types() {
    for code in 0..=0xFF {
        for (class, their_class) in CLASSES {
            let joined = kind::join(code, class);
            let theirs = MessageType::new(MessageMethod::try_from(code).unwrap(), their_class);
            assert_eq!(joined, theirs.as_u16());
            let theirs = MessageType::from(joined);
            assert_eq!((theirs.method().as_u16(), theirs.class()), (code, their_class));
        }
    }
}

/// 8489-5-01 to 8489-5-05: every message type that this server speaks, as a whole message.
#[test]
fn empty_messages() {
    for method in METHODS {
        for (class, their_class) in CLASSES {
            let mut buffer = [0xEE; 20];
            MessageWriter::new(&mut buffer, method, class, samples::TID).finish().unwrap();
            let theirs = read_by_theirs(&buffer);
            assert_eq!((theirs.method().as_u16(), theirs.class()), (method.code(), their_class));
            assert_eq!(theirs.transaction_id().as_bytes(), &samples::TID.0);

            let method_of_theirs = MessageMethod::try_from(method.code()).unwrap();
            let theirs = StunMessageBuilder::new(method_of_theirs, their_class)
                .with_transaction_id(stun_rs::TransactionId::from(samples::TID.0))
                .build();
            let mut foreign = [0xEE; 20];
            MessageEncoderBuilder::default().build().encode(&mut foreign, &theirs).unwrap();
            assert_eq!(buffer, foreign);
            let message = Message::parse(&foreign).unwrap();
            assert_eq!((message.method(), message.class()), (method.code(), class));
        }
    }
}

/// Every sample that stun-rs has all attributes for: both see the same attributes in the same order.
#[test]
fn samples_hold_the_same_attributes_for_both() {
    for (name, bytes) in samples::messages() {
        let message = Message::parse(&bytes).unwrap();
        let theirs = read_by_theirs(&bytes);
        assert_eq!(theirs.method().as_u16(), message.method(), "{name}");
        let behind = [A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256, A::FINGERPRINT];
        let ours = message.attributes().map(|(attribute, _)| attribute);
        let ours: Vec<_> = ours.chain(behind.into_iter().filter(|attribute| message.has(*attribute))).collect();
        let theirs: Vec<_> =
            theirs.attributes().iter().map(|attribute| A(attribute.attribute_type().as_u16())).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// 8489-14.8-01, 8656-18-06
#[test]
fn error_codes() {
    for error in ERRORS {
        let theirs_error = stun_rs::ErrorCode::new(error.code(), error.reason()).unwrap();
        let written = ours(samples::TID.0, |writer| {
            writer.error_code(error);
        });
        assert_eq!(written, theirs(samples::TID.0, vec![base::ErrorCode::new(theirs_error.clone()).into()]));
        let found = theirs_in::<base::ErrorCode>(&written);
        assert_eq!(found.as_error_code().unwrap().error_code(), &theirs_error);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// 8489-14.1-01, 8489-14.15
    #[test]
    fn plain_addresses(tid: [u8; 12], address in addresses()) {
        let reads = |attribute| move |message: &Message<'_>| {
            message.get(attribute).and_then(address::decode) == Some(address)
        };
        same!(tid, |writer| { writer.address(A::MAPPED_ADDRESS, address); },
            base::MappedAddress::from(address), base::MappedAddress, as_mapped_address, reads(A::MAPPED_ADDRESS));
        same!(tid, |writer| { writer.address(A::ALTERNATE_SERVER, address); },
            base::AlternateServer::from(address), base::AlternateServer, as_alternate_server, reads(A::ALTERNATE_SERVER));
    }

    /// 8489-14.2-01
    #[test]
    fn xor_addresses(tid: [u8; 12], address in addresses()) {
        let reads = |attribute| move |message: &Message<'_>| message.get_xor_address(attribute) == Some(Ok(address));
        same!(tid, |writer| { writer.xor_address(A::XOR_MAPPED_ADDRESS, address); },
            base::XorMappedAddress::from(address), base::XorMappedAddress, as_xor_mapped_address,
            reads(A::XOR_MAPPED_ADDRESS));
        same!(tid, |writer| { writer.xor_address(A::XOR_PEER_ADDRESS, address); },
            relay::XorPeerAddress::from(address), relay::XorPeerAddress, as_xor_peer_address,
            reads(A::XOR_PEER_ADDRESS));
        same!(tid, |writer| { writer.xor_address(A::XOR_RELAYED_ADDRESS, address); },
            relay::XorRelayedAddress::from(address), relay::XorRelayedAddress, as_xor_relayed_address,
            reads(A::XOR_RELAYED_ADDRESS));
    }

    #[test]
    fn many_peer_addresses(tid: [u8; 12], peers in vec(addresses(), 0..20)) {
        let attributes = peers.iter().map(|peer| relay::XorPeerAddress::from(*peer).into()).collect();
        let foreign = theirs(tid, attributes);
        let message = Message::parse(&foreign).unwrap();
        let read: Vec<_> = message.xor_addresses(A::XOR_PEER_ADDRESS).map(Result::unwrap).collect();
        prop_assert_eq!(read, peers);
    }

    /// 8656-18-01 to 8656-18-05, 8656-18-08
    #[test]
    fn numbers(tid: [u8; 12], number: u32, channel: u16) {
        same!(tid, |writer| { writer.u32(A::LIFETIME, number); },
            relay::LifeTime::from(number), relay::LifeTime, as_life_time,
            |message| message.get_u32(A::LIFETIME) == Some(Ok(number)));
        same!(tid, |writer| { writer.u32(A::CHANNEL_NUMBER, u32::from(channel) << 16); },
            relay::ChannelNumber::new(channel), relay::ChannelNumber, as_channel_number,
            |message| message.get_u32(A::CHANNEL_NUMBER) == Some(Ok(u32::from(channel) << 16)));
    }

    /// 8656-18-01
    #[test]
    fn data(tid: [u8; 12], data in vec(any::<u8>(), 0..3000)) {
        same!(tid, |writer| { writer.attribute(A::DATA, &data); },
            relay::Data::new(&data), relay::Data, as_data, |message| message.get(A::DATA) == Some(&data));
    }

    /// A Data indication's header, written before data that is there already, makes the message that stun-rs makes.
    #[test]
    fn data_indication_in_place(tid: [u8; 12], peer in addresses(), data in vec(any::<u8>(), 0..3000)) {
        let mut buffer = [0xEE; 64];
        let mut writer = MessageWriter::new(&mut buffer, Method::Data, Class::Indication, TransactionId(tid));
        writer.xor_address(A::XOR_PEER_ADDRESS, peer);
        let len = writer.finish_before_value(A::DATA, data.len()).unwrap();
        let mut written = [&buffer[..len], &data].concat();
        written.resize(written.len().next_multiple_of(4), 0);
        let message = read_by_theirs(&written);
        prop_assert_eq!(message.method(), stun_rs::methods::DATA);
        prop_assert_eq!(message.class(), MessageClass::Indication);
        let found = message.get::<relay::Data>().unwrap().as_data().unwrap();
        prop_assert_eq!(found.as_bytes(), &data);
        let found = message.get::<relay::XorPeerAddress>().unwrap().as_xor_peer_address().unwrap();
        prop_assert_eq!(found.socket_address(), &peer);
    }

    /// 8656-18-03 to 8656-18-05
    #[test]
    fn allocate_options(tid: [u8; 12], reserve: bool, token: [u8; 8], (family, their_family) in families()) {
        let even_port = [u8::from(reserve) << 7];
        same!(tid, |writer| { writer.attribute(A::EVEN_PORT, &even_port); },
            relay::EvenPort::new(reserve), relay::EvenPort, as_even_port,
            |message| message.get(A::EVEN_PORT) == Some(&even_port));
        same!(tid, |writer| { writer.attribute(A::RESERVATION_TOKEN, &token); },
            relay::ReservationToken::from(token), relay::ReservationToken, as_reservation_token,
            |message| message.get(A::RESERVATION_TOKEN) == Some(&token));
        same!(tid, |writer| { writer.attribute(A::REQUESTED_TRANSPORT, &[17, 0, 0, 0]); },
            relay::RequestedTrasport::default(), relay::RequestedTrasport, as_requested_trasport,
            |message| message.get(A::REQUESTED_TRANSPORT) == Some(&[17, 0, 0, 0]));
        same!(tid, |writer| { writer.attribute(A::DONT_FRAGMENT, &[]); },
            relay::DontFragment::default(), relay::DontFragment, as_dont_fragment,
            |message| message.get(A::DONT_FRAGMENT) == Some(&[]));
        same!(tid, |writer| { writer.attribute(A::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]); },
            relay::RequestedAddressFamily::new(their_family), relay::RequestedAddressFamily,
            as_requested_address_family,
            |message| message.get(A::REQUESTED_ADDRESS_FAMILY) == Some(&[family, 0, 0, 0]));
        same!(tid, |writer| { writer.attribute(A::ADDITIONAL_ADDRESS_FAMILY, &[family, 0, 0, 0]); },
            relay::AdditionalAddressFamily::new(their_family), relay::AdditionalAddressFamily,
            as_additional_address_family,
            |message| message.get(A::ADDITIONAL_ADDRESS_FAMILY) == Some(&[family, 0, 0, 0]));
    }

    /// 8656-18-06, 8656-18-07
    #[test]
    fn server_reports(
        tid: [u8; 12], error in errors(), (family, their_family) in families(),
        icmp_type in 0u16..128, icmp_code in 0u16..512, icmp_data: [u8; 4], unknown in vec(any::<u16>(), 0..40),
    ) {
        let their_error = stun_rs::ErrorCode::new(error.code(), error.reason()).unwrap();
        let value = [&[family, 0, (error.code() / 100) as u8, (error.code() % 100) as u8], error.reason().as_bytes()];
        let value = value.concat();
        same!(tid, |writer| { writer.address_error_code(family, error); },
            relay::AddressErrorCode::new(their_family, their_error), relay::AddressErrorCode, as_address_error_code,
            |message| message.get(A::ADDRESS_ERROR_CODE) == Some(&value));

        let icmp = (icmp_type << 9 | icmp_code).to_be_bytes();
        let value = [&[0, 0, icmp[0], icmp[1]], &icmp_data[..]].concat();
        let icmp_type = relay::IcmpType::new(icmp_type as u8).unwrap();
        let icmp_code = relay::IcmpCode::new(icmp_code).unwrap();
        same!(tid, |writer| { writer.attribute(A::ICMP, &value); },
            relay::Icmp::new(icmp_type, icmp_code, icmp_data), relay::Icmp, as_icmp,
            |message| message.get(A::ICMP) == Some(&value));

        let mut unique = Vec::new();
        for code in unknown {
            if !unique.contains(&code) {
                unique.push(code);
            }
        }
        let value: Vec<u8> = unique.iter().flat_map(|code| code.to_be_bytes()).collect();
        same!(tid, |writer| { writer.unknown_attributes(unique.iter().copied().map(A), 1000); },
            base::UnknownAttributes::from(&unique[..]), base::UnknownAttributes, as_unknown_attributes,
            |message| message.get(A::UNKNOWN_ATTRIBUTES) == Some(&value));
    }

    /// 8489-14.3-01, 8489-14.4-01, 8489-14.9-01, 8489-14.10-01, 8489-14.14-01
    #[test]
    fn names(tid: [u8; 12], name in NAME, realm in QUOTABLE, nonce in QUOTABLE, software in "\\PC{0,100}") {
        same!(tid, |writer| { writer.attribute(A::USERNAME, name.as_bytes()); },
            base::UserName::new(&name).unwrap(), base::UserName, as_user_name,
            |message| message.get(A::USERNAME) == Some(name.as_bytes()));
        same!(tid, |writer| { writer.attribute(A::REALM, realm.as_bytes()); },
            base::Realm::new(&realm).unwrap(), base::Realm, as_realm,
            |message| message.get(A::REALM) == Some(realm.as_bytes()));
        same!(tid, |writer| { writer.attribute(A::NONCE, nonce.as_bytes()); },
            base::Nonce::new(&nonce).unwrap(), base::Nonce, as_nonce,
            |message| message.get(A::NONCE) == Some(nonce.as_bytes()));
        let hash = base::UserHash::new(&name, &realm).unwrap();
        same!(tid, |writer| { writer.attribute(A::USERHASH, hash.hash()); },
            hash.clone(), base::UserHash, as_user_hash, |message| message.get(A::USERHASH) == Some(hash.hash()));
        same!(tid, |writer| { writer.attribute(A::SOFTWARE, software.as_bytes()); },
            base::Software::new(&software).unwrap(), base::Software, as_software,
            |message| message.get(A::SOFTWARE) == Some(software.as_bytes()));
    }

    /// 8489-14.11-01, 8489-14.12-01
    #[test]
    fn password_algorithms(tid: [u8; 12], list in vec((3u16.., vec(any::<u8>(), 0..9)), 1..6)) {
        let entry = |(id, parameters): &(u16, Vec<u8>)| {
            [&id.to_be_bytes()[..], &[0, parameters.len() as u8], parameters].concat()
        };
        let their_entry = |(id, parameters): &(u16, Vec<u8>)| {
            let parameters = (!parameters.is_empty()).then_some(&parameters[..]);
            base::PasswordAlgorithm::new(Algorithm::new(AlgorithmId::Unassigned(*id), parameters))
        };
        let one = entry(&list[0]);
        same!(tid, |writer| { writer.attribute(A::PASSWORD_ALGORITHM, &one); },
            their_entry(&list[0]), base::PasswordAlgorithm, as_password_algorithm,
            |message| message.get(A::PASSWORD_ALGORITHM) == Some(&one));

        let mut value = Vec::new();
        for algorithm in &list {
            value.resize(value.len().next_multiple_of(4), 0);
            value.extend(entry(algorithm));
        }
        let theirs: Vec<_> = list.iter().map(their_entry).collect();
        same!(tid, |writer| { writer.attribute(A::PASSWORD_ALGORITHMS, &value); },
            base::PasswordAlgorithms::from(theirs), base::PasswordAlgorithms, as_password_algorithms,
            |message| message.get(A::PASSWORD_ALGORITHMS) == Some(&value));
    }

    /// 8489-14.5-01, 8489-14.6-01, 8489-14.6-02, 8489-14.7-01, 8489-9.2.2-01, 8489-18.5-01
    #[test]
    fn integrity_and_fingerprint(
        tid: [u8; 12], lifetime: u32, password in "[a-z0-9]{1,40}",
        sha1: bool, sha256: bool, fingerprint: bool,
    ) {
        let key = |id| HMACKey::new_long_term("user", "example.org", &password, Algorithm::from(id)).unwrap();
        // stun-rs checks both integrity attributes with one key.
        for their_key in [key(AlgorithmId::MD5), key(AlgorithmId::SHA256)] {
            let our_sha1 = IntegrityKey::new(MacAlgorithm::Sha1, their_key.as_bytes());
            let our_sha256 = IntegrityKey::new(MacAlgorithm::Sha256, their_key.as_bytes());
            let written = ours(tid, |writer| {
                writer.u32(A::LIFETIME, lifetime);
                if sha1 { writer.integrity(&our_sha1); }
                if sha256 { writer.integrity(&our_sha256); }
                if fingerprint { writer.fingerprint(); }
            });
            let mut attributes: Vec<StunAttribute> = vec![relay::LifeTime::from(lifetime).into()];
            if sha1 { attributes.push(base::MessageIntegrity::new(their_key.clone()).into()); }
            if sha256 { attributes.push(base::MessageIntegritySha256::new(their_key.clone()).into()); }
            if fingerprint { attributes.push(base::Fingerprint::default().into()); }
            let foreign = theirs(tid, attributes);
            prop_assert_eq!(&written, &foreign);

            let context = DecoderContextBuilder::default().with_key(their_key).with_validation().build();
            let decoder = MessageDecoderBuilder::default().with_context(context).build();
            prop_assert!(decoder.decode(&written).is_ok());

            let message = Message::parse(&foreign).unwrap();
            prop_assert_eq!(our_sha1.verifies(&message), sha1);
            prop_assert_eq!(our_sha256.verifies(&message), sha256);
            prop_assert_eq!(message.has(A::FINGERPRINT), fingerprint);
        }
    }

    /// Anything written is read again: header, order, values.
    #[test]
    fn what_is_written_is_read(
        method in 0usize..METHODS.len(), class in 0usize..CLASSES.len(), tid: [u8; 12],
        attributes in vec((any::<u16>(), vec(any::<u8>(), 0..80)), 0..30), with_integrity: bool, with_fingerprint: bool,
    ) {
        let behind = [A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256, A::FINGERPRINT];
        let mut attributes = attributes;
        attributes.retain(|(code, _)| !behind.contains(&A(*code)));
        let [_, key] = samples::keys();
        let mut buffer = vec![0xEE; 4096];
        let mut writer =
            MessageWriter::new(&mut buffer, METHODS[method], CLASSES[class].0, TransactionId(tid));
        for (code, value) in &attributes {
            writer.attribute(A(*code), value);
        }
        if with_integrity { writer.integrity(&key); }
        if with_fingerprint { writer.fingerprint(); }
        let len = writer.finish().unwrap();
        let bytes = &buffer[..len];

        let message = Message::parse(bytes).unwrap();
        prop_assert_eq!(Method::from_code(message.method()), Some(METHODS[method]));
        prop_assert_eq!(message.class(), CLASSES[class].0);
        prop_assert_eq!(message.transaction_id().0, tid);
        let read: Vec<_> = message.attributes().map(|(attribute, value)| (attribute.0, value.to_vec())).collect();
        prop_assert_eq!(&read, &attributes);
        for known in A::ALL.into_iter().filter(|attribute| !behind.contains(attribute)) {
            let first = attributes.iter().find(|(code, _)| A(*code) == known);
            prop_assert_eq!(message.get(known), first.map(|(_, value)| &value[..]));
        }
        prop_assert_eq!(key.verifies(&message), with_integrity);
        prop_assert_eq!(message.has(A::FINGERPRINT), with_fingerprint);
        exercise::everything(bytes, &[key]);
    }

    /// Parsing is total, and so is every accessor.
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        exercise::everything(&bytes, &samples::keys());
    }

    /// As above, with a header that lets the attributes be looked at.
    #[test]
    fn any_attributes(kind in 0u16..0x4000, words in vec(any::<u32>(), 0..60)) {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        exercise::everything(&vectors::message(kind, &[body]), &samples::keys());
    }

    /// As above, with attributes that fit, so that nothing but their order and content is arbitrary.
    #[test]
    fn any_known_attributes(
        kind in 0u16..0x4000, attributes in vec((0..A::ALL.len(), vec(any::<u8>(), 0..40)), 0..20), repair: bool,
    ) {
        let attributes: Vec<_> =
            attributes.iter().map(|(place, value)| vectors::attribute(A::ALL[*place].0, value)).collect();
        let mut bytes = vectors::message(kind, &attributes);
        if repair {
            let len = u16::try_from(bytes.len() - 20 + 8).unwrap();
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            let crc = fingerprint::of(&bytes);
            bytes.extend(vectors::attribute(A::FINGERPRINT.0, &crc.to_be_bytes()));
        }
        exercise::everything(&bytes, &samples::keys());
    }

    /// 8489-6.2.2-05, 8656-12.6-03: a stream gives the same frames in whatever segments it arrives.
    #[test]
    fn any_segmentation(
        picks in vec(0usize..samples::all().len(), 1..6), sizes in vec(1usize..60, 1..8),
        cut_off in 0usize..40, junk in vec(any::<u8>(), 0..8),
    ) {
        let samples = samples::all();
        let mut stream: Vec<u8> = picks.iter().flat_map(|pick| samples[*pick].1.clone()).collect();
        stream.extend(junk);
        stream.truncate(stream.len() - cut_off.min(stream.len()));
        prop_assert_eq!(exercise::cut(&stream, &sizes), exercise::cut(&stream, &[]));
    }
}

/// 8489-6.2.2-05: a byte at a time, all samples that a stream may hold.
#[test]
fn a_byte_at_a_time() {
    let framed =
        samples::all().into_iter().filter(|(name, _)| !matches!(*name, "classic-binding" | "rfc8489-userhash-request"));
    let frames: Vec<_> = framed.map(|(_, bytes)| bytes).collect();
    let cut = exercise::cut(&frames.concat(), &[1]);
    assert_eq!(cut, exercise::Cut { frames, left: 0, lost: false });
}
