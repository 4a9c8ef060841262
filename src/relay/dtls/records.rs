//! Which records of a datagram the library is shown. Anybody can send in a client's name, and what nobody but the client can
//! have made is only known after decryption; but some things can be told before.

/// Bytes of a record's header.
const HEADER: usize = 13;

/// A record, and what follows it.
struct Record<'d> {
    encrypted: bool,
    len: usize,
    rest: &'d [u8],
}

/// The first record. What is cut off is none; the library passes over it.
fn first(datagram: &[u8]) -> Option<Record<'_>> {
    let (&[_, _, _, e0, e1, .., l0, l1], records) = datagram.split_first_chunk::<HEADER>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    Some(Record { encrypted: [e0, e1] != [0, 0], len, rest: records.get(len..)? })
}

/// The part of a datagram that counts once a handshake is finished: from its first encrypted record on. What comes in the clear
/// is late, or not the client's.
pub fn protected(datagram: &[u8]) -> Option<&[u8]> {
    let mut rest = datagram;
    while let Some(record) = first(rest) {
        if record.encrypted {
            return Some(rest);
        }
        rest = record.rest;
    }
    None
}

/// Whether every encrypted record can be one: OpenSSL 3.0 gives a session up for a record that is shorter than what encryption
/// adds, instead of passing over it.
pub fn are_long_enough(datagram: &[u8], shortest: usize) -> bool {
    let mut rest = datagram;
    while let Some(record) = first(rest) {
        if record.encrypted && record.len < shortest {
            return false;
        }
        rest = record.rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(epoch: u8, len: u8) -> Vec<u8> {
        let mut record = vec![23, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 0, 0, len];
        record.extend(vec![7; usize::from(len)]);
        record
    }

    #[test]
    fn only_encrypted_records_count_in_the_end() {
        let (clear, encrypted) = (record(0, 40), record(1, 2));
        for (datagram, expected) in [
            (clear.clone(), None),
            (encrypted.clone(), Some(&encrypted[..])),
            ([&clear[..], &clear, &encrypted].concat(), Some(&encrypted)),
            ([&clear[..clear.len() - 1], &encrypted[..1]].concat(), None),
            (clear[..20].to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(protected(&datagram), expected, "{datagram:02x?}");
        }
    }

    #[test]
    fn an_encrypted_record_has_a_least_length() {
        for (records, expected) in [
            (vec![record(0, 1)], true),
            (vec![record(1, 24)], true),
            (vec![record(1, 23)], false),
            (vec![record(0, 1), record(1, 30), record(2, 0)], false),
            (vec![record(1, 30), record(0, 0), record(1, 24)], true),
        ] {
            assert_eq!(are_long_enough(&records.concat(), 24), expected, "{records:02x?}");
        }
        assert!(are_long_enough(&record(1, 24)[..20], 24), "the library sees that it is cut off");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in proptest::collection::vec(0_u8..30, 0..100)) {
            let protected = protected(&bytes);
            prop_assert!(protected.is_none_or(|rest| bytes.ends_with(rest) && rest.len() >= HEADER));
            prop_assert!(are_long_enough(&bytes, 0));
        }
    }
}
