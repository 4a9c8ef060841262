//! Where a browser reaches this server, for the page's test of it.

use serde_json::{Value, json};

use crate::{
    config::{Settings, Spoken, secure_name, uris_at},
    relay::Endpoint,
    turn::Transport,
};

/// URIs as clients use them: those of `auth.uris`, or else of every address that clients are served at, with the port that it
/// has. `any_address` tells that the server is also reached under other names of its host, such as the page's.
pub(super) fn uris(settings: &Settings, endpoints: &[Endpoint]) -> Value {
    if !settings.auth.uris.is_empty() {
        return settings.auth.uris.iter().map(|uri| json!({ "uri": uri, "any_address": false })).collect();
    }
    let mut uris: Vec<Value> = Vec::new();
    for Endpoint { transport, address } in endpoints {
        let (spoken, is_named) = match transport {
            Transport::Udp => (Spoken::Udp, false),
            Transport::Tcp => (Spoken::Tcp, false),
            Transport::Tls => (Spoken::Tls, secure_name(settings).is_some()),
            Transport::Dtls => (Spoken::Dtls, secure_name(settings).is_some()),
        };
        let any_address = address.ip().is_unspecified() && !is_named;
        for uri in uris_at(settings, spoken, *address) {
            let uri = json!({ "uri": uri, "any_address": any_address });
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, parse};

    fn found(more: &str) -> Value {
        let text = format!(
            "[[listener]]\nlistening-ip = \"0.0.0.0\"\n[relay]\nrelay-ip = \"127.0.0.1\"\nexternal-ip = \"203.0.113.7\"\n\
             [auth]\nrealm = \"example.org\"\n{more}[[auth.user]]\nname = \"u\"\npassword = \"p\"\n"
        );
        let loaded = parse(&text, "t.toml", &Host::detect().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
        let endpoint = |transport, address: &str| Endpoint { transport, address: address.parse().unwrap() };
        uris(
            &loaded.settings,
            &[
                endpoint(Transport::Udp, "0.0.0.0:40000"),
                endpoint(Transport::Tcp, "127.0.0.1:40001"),
                endpoint(Transport::Tcp, "192.0.2.1:40001"),
                endpoint(Transport::Tls, "0.0.0.0:40002"),
            ],
        )
    }

    #[test]
    fn clients_find_the_server_where_the_world_sees_it() {
        let uri = |uri: &str, any_address: bool| json!({ "uri": uri, "any_address": any_address });
        let expected = json!([
            uri("stun:203.0.113.7:40000", true),
            uri("turn:203.0.113.7:40000?transport=udp", true),
            uri("turn:203.0.113.7:40001?transport=tcp", false),
            uri("turn:192.0.2.1:40001?transport=tcp", false),
            uri("turns:203.0.113.7:40002?transport=tcp", true),
        ]);
        assert_eq!(found(""), expected);
        let written = found("uris = [\"turn:turn.example.org\"]\nstatic-auth-secret = \"the secret of the north\"\n");
        assert_eq!(written, json!([uri("turn:turn.example.org", false)]));
    }
}
