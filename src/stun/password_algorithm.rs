//! Password algorithms (RFC 8489 §18.5) and the attributes that name them (§14.11, §14.12).

/// How a long-term key is made from a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum PasswordAlgorithm {
    /// MD5, for compatibility only (RFC 8489 §18.5.1.1).
    Md5 = 0x0001,
    /// SHA-256 (RFC 8489 §18.5.1.2).
    Sha256 = 0x0002,
}

impl PasswordAlgorithm {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The algorithm with this number, if known.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x0001 => Some(Self::Md5),
            0x0002 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The value of PASSWORD-ALGORITHM: the number, and no parameters, which neither algorithm has.
    #[must_use]
    pub const fn encode(self) -> [u8; 4] {
        let [high, low] = self.code().to_be_bytes();
        [high, low, 0, 0]
    }

    /// Reads the value of PASSWORD-ALGORITHM. `None` if the algorithm is unknown or the value is malformed.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[high, low, 0, 0] = value else { return None };
        Self::from_code(u16::from_be_bytes([high, low]))
    }

    /// The value of PASSWORD-ALGORITHMS.
    #[must_use]
    pub fn encode_list(algorithms: &[Self]) -> Vec<u8> {
        algorithms.iter().flat_map(|algorithm| algorithm.encode()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8489-14.11-01, 8489-18.5-02
    #[test]
    fn values() {
        let list = PasswordAlgorithm::encode_list(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
        assert_eq!(list, [0, 2, 0, 0, 0, 1, 0, 0]);
        assert_eq!(PasswordAlgorithm::decode(&[0, 1, 0, 0]), Some(PasswordAlgorithm::Md5));
        assert_eq!(PasswordAlgorithm::decode(&[0, 3, 0, 0]), None);
        // A parameter length beyond the value.
        assert_eq!(PasswordAlgorithm::decode(&[0, 1, 0, 9]), None);
        assert_eq!(PasswordAlgorithm::decode(&[0, 1]), None);
    }
}
