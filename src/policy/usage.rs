//! Bytes of a month as text, so that the count outlives the process.
//!
//! One line for each holder: month, kind of holder, realm, name, bytes, with tabs between them. What could be taken for a
//! tab or the end of a line stands as `%` and two hexadecimal digits. A file that was not written by this is an error, never
//! an empty count.

use std::{fmt, sync::Arc};

use super::{month::Month, quota::Holder};

/// The first line: what the file is, and in which form.
const HEADER: &str = "turnserver usage 1";

/// Why a file of counts cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// It begins otherwise.
    #[error("is not a file of counts, or of another version")]
    Header,
    /// A line makes no sense.
    #[error("line {0} is damaged")]
    Line(usize),
    /// The last line does not end: the file was cut off.
    #[error("is cut off")]
    CutOff,
}

/// Writes the counts of a month.
pub fn encode<'h>(month: Month, counts: impl IntoIterator<Item = (&'h Holder, u64)>) -> String {
    let mut text = format!("{HEADER}\n");
    for (holder, bytes) in counts {
        let (kind, realm, name) = match holder {
            Holder::User { realm, user } => ("user", &**realm, &**user),
            Holder::Tenant { realm, tenant } => ("tenant", &**realm, &**tenant),
            Holder::Realm(realm) => ("realm", &**realm, ""),
            Holder::Total => ("total", "", ""),
        };
        let line = format_args!("{month}\t{kind}\t{}\t{}\t{bytes}\n", Escaped(realm), Escaped(name));
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut text, line);
    }
    text.push_str("end\n");
    text
}

/// Reads the counts of this month, and leaves those of others.
///
/// # Errors
/// [`UsageError`]: it is damaged.
pub fn decode(text: &str, month: Month) -> Result<Vec<(Holder, u64)>, UsageError> {
    let body = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(UsageError::Header)?;
    let body = body.strip_suffix("end\n").ok_or(UsageError::CutOff)?;
    let mut counts = Vec::new();
    for (line, number) in body.lines().zip(2..) {
        let (of, holder, bytes) = read_line(line).ok_or(UsageError::Line(number))?;
        if of == month {
            counts.push((holder, bytes));
        }
    }
    Ok(counts)
}

fn read_line(line: &str) -> Option<(Month, Holder, u64)> {
    let mut fields = line.split('\t');
    let month = fields.next()?.parse().ok()?;
    let kind = fields.next()?;
    let realm: Arc<str> = unescape(fields.next()?)?.into();
    let name: Arc<str> = unescape(fields.next()?)?.into();
    let bytes = fields.next()?.parse().ok()?;
    let holder = match kind {
        "user" => Holder::User { realm, user: name },
        "tenant" => Holder::Tenant { realm, tenant: name },
        "realm" => Holder::Realm(realm),
        "total" => Holder::Total,
        _ => return None,
    };
    fields.next().is_none().then_some((month, holder, bytes))
}

/// Text without control characters.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c == '%' || c.is_ascii_control() {
                write!(f, "%{:02x}", u32::from(c))?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok().filter(u8::is_ascii)?;
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOVEMBER: u64 = 1_796_083_199_999;

    fn holders(realm: &str, name: &str) -> [Holder; 4] {
        let (realm, name): (Arc<str>, Arc<str>) = (realm.into(), name.into());
        [
            Holder::User { realm: Arc::clone(&realm), user: Arc::clone(&name) },
            Holder::Tenant { realm: Arc::clone(&realm), tenant: name },
            Holder::Realm(realm),
            Holder::Total,
        ]
    }

    #[test]
    fn only_the_counts_of_the_month_are_read() {
        let [november, december] = [NOVEMBER, NOVEMBER + 1].map(Month::of);
        let holders = holders("example.org", "alice");
        let text = encode(november, holders.iter().zip(1..));
        assert_eq!(
            text,
            "turnserver usage 1\n2026-11\tuser\texample.org\talice\t1\n2026-11\ttenant\texample.org\talice\t2\n\
             2026-11\trealm\texample.org\t\t3\n2026-11\ttotal\t\t\t4\nend\n"
        );
        assert_eq!(decode(&text, november), Ok(holders.into_iter().zip(1..).collect()));
        assert_eq!(decode(&text, december), Ok(Vec::new()));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let month = Month::of(NOVEMBER);
        let text = encode(month, holders("r", "u").iter().zip(1..));
        assert_eq!(decode("", month), Err(UsageError::Header));
        assert_eq!(decode("turnserver usage 2\nend\n", month), Err(UsageError::Header));
        for len in "turnserver usage 1\n".len()..text.len() {
            assert_eq!(decode(&text[..len], month), Err(UsageError::CutOff), "{len}");
        }
        for damaged in ["2026-11\tuser\tr\tu", "2026-11\tuser\tr\tu\t-1", "2026-11\tpeer\tr\tu\t1", "\t\t\t\t1", ""]
            .into_iter()
            .chain(["2026-11\tuser\tr\tu\t1\t1", "2026-11\tuser\tr%\tu\t1", "2026-11\tuser\tr%ff\tu\t1"])
        {
            let text = format!("turnserver usage 1\n{damaged}\nend\n");
            assert_eq!(decode(&text, month), Err(UsageError::Line(2)), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn any_names_come_back(realm in any::<String>(), name in any::<String>(), bytes in any::<u64>()) {
            let month = Month::of(NOVEMBER);
            let counts: Vec<_> = holders(&realm, &name).into_iter().map(|holder| (holder, bytes)).collect();
            let text = encode(month, counts.iter().map(|(holder, bytes)| (holder, *bytes)));
            prop_assert_eq!(decode(&text, month), Ok(counts));
        }
    }
}
