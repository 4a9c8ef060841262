//! Configurations: ours in TOML, and those of coturn.

use turnserver::{
    config::{self, Effective, Host},
    import::{self, Options, report::Kind},
};

use super::bytes::{Bytes, text};

/// Where configurations are said to be; nothing is there.
const FILE: &str = "/nonexistent/turnserver.toml";

/// A host made up for the purpose.
pub(crate) fn host() -> Host {
    let ips = ["127.0.0.1", "192.0.2.7", "10.0.0.5", "::1", "2001:db8::7"].map(|ip| ip.parse().expect("an address"));
    Host {
        primary: vec![ips[1], ips[4]],
        addresses: ips.to_vec(),
        processors: 3,
        variable: |name| match name {
            "SET" => Ok("from-env".to_owned()),
            "KEY" => Ok("0xFFffffffffffffffffffffffffffff01".to_owned()),
            _ => Err(std::env::VarError::NotPresent),
        },
    }
}

/// Bytes are the text of a configuration: it is refused with reasons, or what it comes to is the same when it is written and
/// read again.
pub(crate) fn toml(bytes: &[u8]) {
    let text = text(bytes);
    // Other files are not what this is about, and some of them never end.
    if ["/dev", "/proc", "/sys", "/run"].iter().any(|path| text.contains(path)) {
        return;
    }
    match config::parse(text, FILE, &host()) {
        Ok(loaded) => {
            let written = Effective(&loaded.settings).to_string();
            assert!(written.parse::<toml::Table>().is_ok(), "what is written is no TOML:\n{written}");
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

/// The first bytes are the version and which answers are given; the rest is a `turnserver.conf`. If a configuration comes of
/// it, it is TOML that our reader understands.
pub(crate) fn coturn(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let version = *bytes.pick(&["4.5.2", "4.6.1", "4.7.0", "4.17.1"]);
    let answer = *bytes.pick(&["yes", "no", "drop", "keep", "example.org"]);
    let text = text(bytes.rest());
    let options = |decisions| Options { from: version.parse().ok(), decisions, random: [[7; 16], [8; 16]] };
    let first = import::import(text, "turnserver.conf", &options(Vec::new()));
    let asked = first.report.items.iter().filter(|item| item.kind == Kind::Decide);
    let mut decisions: Vec<(String, String)> = asked.map(|item| (item.key.clone(), answer.to_owned())).collect();
    decisions.dedup();
    let second = import::import(text, "turnserver.conf", &options(decisions));
    for imported in [first, second] {
        let refused = imported.report.has(Kind::Error) || imported.report.has(Kind::Decide);
        assert_eq!(imported.toml.is_none(), refused);
        let Some(toml) = imported.toml else { continue };
        assert!(toml.parse::<toml::Table>().is_ok(), "{toml}");
    }
    let _ = import::is_coturns(text);
}
