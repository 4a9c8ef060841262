//! Attribute types (RFC 8489 §18.3, RFC 8656 §18) and which of them a reader keeps.

/// A 16-bit attribute type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

impl AttributeType {
    /// RFC 7635 §6.2. Understood only where access tokens are asked for, by whoever looks for it.
    pub const ACCESS_TOKEN: Self = Self(0x001B);
    /// RFC 7635 §6.1; only sent.
    pub const THIRD_PARTY_AUTHORIZATION: Self = Self(0x802E);
    /// RFC 5780 §7.2, RFC 3489 §11.2.4. Understood only where NAT discovery is offered, by whoever looks for it; the same
    /// holds for the next two.
    pub const CHANGE_REQUEST: Self = Self(0x0003);
    /// RFC 5780 §7.6.
    pub const PADDING: Self = Self(0x0026);
    /// RFC 5780 §7.5.
    pub const RESPONSE_PORT: Self = Self(0x0027);
    /// RFC 3489 §11.2.5; only sent.
    pub const SOURCE_ADDRESS: Self = Self(0x0004);
    /// RFC 3489 §11.2.3; only sent.
    pub const CHANGED_ADDRESS: Self = Self(0x0005);
    /// RFC 5780 §7.3; only sent.
    pub const RESPONSE_ORIGIN: Self = Self(0x802B);
    /// RFC 5780 §7.4; only sent.
    pub const OTHER_ADDRESS: Self = Self(0x802C);

    /// Whether an agent that does not know this attribute must refuse the message (RFC 8489 §14).
    #[must_use]
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// Declares the attributes that the reader understands: a constant each, and its slot in the reader's table.
macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Every attribute type that the reader understands.
            pub const ALL: [Self; COUNT] = [$(Self::$name,)*];
        }

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Position { $($name,)* Count }

        /// How many attribute types the reader understands.
        pub(super) const COUNT: usize = Position::Count as usize;

        /// The place of an understood attribute in the reader's table.
        pub(super) const fn position(code: u16) -> Option<usize> {
            Some(match code {
                $($code => Position::$name as usize,)*
                _ => return None,
            })
        }
    };
}

attributes! {
    /// RFC 8489 §14.1.
    MAPPED_ADDRESS = 0x0001;
    /// RFC 8489 §14.3.
    USERNAME = 0x0006;
    /// RFC 8489 §14.5.
    MESSAGE_INTEGRITY = 0x0008;
    /// RFC 8489 §14.8.
    ERROR_CODE = 0x0009;
    /// RFC 8489 §14.13.
    UNKNOWN_ATTRIBUTES = 0x000A;
    /// RFC 8656 §18.1.
    CHANNEL_NUMBER = 0x000C;
    /// RFC 8656 §18.2.
    LIFETIME = 0x000D;
    /// RFC 8656 §18.3.
    XOR_PEER_ADDRESS = 0x0012;
    /// RFC 8656 §18.4.
    DATA = 0x0013;
    /// RFC 8489 §14.9.
    REALM = 0x0014;
    /// RFC 8489 §14.10.
    NONCE = 0x0015;
    /// RFC 8656 §18.5.
    XOR_RELAYED_ADDRESS = 0x0016;
    /// RFC 8656 §18.6.
    REQUESTED_ADDRESS_FAMILY = 0x0017;
    /// RFC 8656 §18.7.
    EVEN_PORT = 0x0018;
    /// RFC 8656 §18.8.
    REQUESTED_TRANSPORT = 0x0019;
    /// RFC 8656 §18.9.
    DONT_FRAGMENT = 0x001A;
    /// RFC 8489 §14.6.
    MESSAGE_INTEGRITY_SHA256 = 0x001C;
    /// RFC 8489 §14.12.
    PASSWORD_ALGORITHM = 0x001D;
    /// RFC 8489 §14.4.
    USERHASH = 0x001E;
    /// RFC 8489 §14.2.
    XOR_MAPPED_ADDRESS = 0x0020;
    /// RFC 8656 §18.10.
    RESERVATION_TOKEN = 0x0022;
    /// RFC 6062 §6.2.1.
    CONNECTION_ID = 0x002A;
    /// RFC 8656 §18.11.
    ADDITIONAL_ADDRESS_FAMILY = 0x8000;
    /// RFC 8656 §18.12.
    ADDRESS_ERROR_CODE = 0x8001;
    /// RFC 8489 §14.11.
    PASSWORD_ALGORITHMS = 0x8002;
    /// RFC 8489 §14.16.
    ALTERNATE_DOMAIN = 0x8003;
    /// RFC 8656 §18.13.
    ICMP = 0x8004;
    /// RFC 8489 §14.14.
    SOFTWARE = 0x8022;
    /// RFC 8489 §14.15.
    ALTERNATE_SERVER = 0x8023;
    /// RFC 8489 §14.7.
    FINGERPRINT = 0x8028;
    /// RFC 8016 §3.3.
    MOBILITY_TICKET = 0x8030;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_understood_type_has_its_own_place() {
        let mut seen = [false; COUNT];
        for code in 0..=u16::MAX {
            if let Some(place) = position(code) {
                assert!(!std::mem::replace(&mut seen[place], true), "{code:#06x}");
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        for (place, attribute) in AttributeType::ALL.into_iter().enumerate() {
            assert_eq!(position(attribute.0), Some(place));
        }
    }
}
