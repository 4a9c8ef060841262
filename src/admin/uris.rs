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
