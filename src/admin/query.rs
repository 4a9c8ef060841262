//! The query of a request's target: `name=value&...`, percent-encoded.

/// The pairs of a query. Everything unknown is refused by whoever reads them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; `None` if it is not well-formed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        pairs.collect::<Option<Vec<_>>>().map(Self)
    }

    /// Takes a value out; the last one if there are several.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let mut taken = None;
        self.0.retain_mut(|(of, value)| {
            let found = of == name;
            if found {
                taken = Some(std::mem::take(value));
            }
            !found
        });
        taken
    }

    /// The name of something that nobody has taken.
    pub(super) fn rest(&self) -> Option<&str> {
        self.0.first().map(|(name, _)| name.as_str())
    }
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(left.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes a value.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_they_were_put_in() {
        for name in ["alice", "a b&c=d%", "1700000000:zoë", "+", ""] {
            let mut query = Query::parse(&format!("limit=5&user={}&", encode(name))).unwrap();
            assert_eq!(query.take("user").as_deref(), Some(name));
            assert_eq!(query.rest(), Some("limit"));
            assert_eq!(query.take("limit").as_deref(), Some("5"));
            assert_eq!(query.rest(), None);
            assert_eq!(query.take("limit"), None);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for wrong in ["a=%", "a=%2", "a=%zz", "a=%ff", "%f=1"] {
            assert_eq!(Query::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Query::parse(""), Some(Query::default()));
    }
}
