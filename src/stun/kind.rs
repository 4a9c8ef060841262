//! Message types: the method and class folded into the first two bytes of a message (RFC 8489 §5).

/// A STUN or TURN method that this server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Method {
    /// RFC 8489 §12.
    Binding = 0x001,
    /// RFC 8656 §7.
    Allocate = 0x003,
    /// RFC 8656 §8.
    Refresh = 0x004,
    /// RFC 8656 §11; indications only.
    Send = 0x006,
    /// RFC 8656 §11; indications only.
    Data = 0x007,
    /// RFC 8656 §10.
    CreatePermission = 0x008,
    /// RFC 8656 §12.
    ChannelBind = 0x009,
    /// RFC 6062 §4.3.
    Connect = 0x00A,
    /// RFC 6062 §4.3.
    ConnectionBind = 0x00B,
    /// RFC 6062 §4.4; indications only.
    ConnectionAttempt = 0x00C,
}

impl Method {
    /// The method with this 12-bit code, if it is one that this server speaks.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            0x00A => Self::Connect,
            0x00B => Self::ConnectionBind,
            0x00C => Self::ConnectionAttempt,
            _ => return None,
        })
    }

    /// The 12-bit code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The name that the RFCs use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binding => "Binding",
            Self::Allocate => "Allocate",
            Self::Refresh => "Refresh",
            Self::Send => "Send",
            Self::Data => "Data",
            Self::CreatePermission => "CreatePermission",
            Self::ChannelBind => "ChannelBind",
            Self::Connect => "Connect",
            Self::ConnectionBind => "ConnectionBind",
            Self::ConnectionAttempt => "ConnectionAttempt",
        }
    }
}

/// What a message is to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Asks for a response.
    Request = 0b00,
    /// Asks for none.
    Indication = 0b01,
    /// Success response.
    Success = 0b10,
    /// Error response.
    Error = 0b11,
}

/// Splits the first two bytes of a message into the 12-bit method code and the class.
#[must_use]
pub const fn split(message_type: u16) -> (u16, Class) {
    let method = (message_type & 0x000F) | (message_type & 0x00E0) >> 1 | (message_type & 0x3E00) >> 2;
    let class = match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    (method, class)
}

/// Joins a 12-bit method code and a class into the first two bytes of a message.
#[must_use]
pub const fn join(method: u16, class: Class) -> u16 {
    let spread = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2;
    let class = class as u16;
    spread | (class & 0b10) << 7 | (class & 0b01) << 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8489-5-05
    #[test]
    fn known_message_types() {
        assert_eq!(join(Method::Binding.code(), Class::Success), 0x0101);
        assert_eq!(join(Method::Binding.code(), Class::Error), 0x0111);
        assert_eq!(join(Method::Allocate.code(), Class::Request), 0x0003);
        assert_eq!(join(Method::Allocate.code(), Class::Error), 0x0113);
        assert_eq!(join(Method::Send.code(), Class::Indication), 0x0016);
        assert_eq!(join(Method::Data.code(), Class::Indication), 0x0017);
    }

    #[test]
    fn split_undoes_join_for_every_method_and_class() {
        for method in 0..0x1000 {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let joined = join(method, class);
                assert_eq!(joined & 0xC000, 0);
                assert_eq!(split(joined), (method, class));
            }
        }
    }

    #[test]
    fn methods_have_their_codes() {
        for code in 0..0x1000 {
            if let Some(method) = Method::from_code(code) {
                assert_eq!(method.code(), code);
            }
        }
    }
}
