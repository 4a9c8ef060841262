//! What errors of servers and of the network mean to whoever reads them, and what to do about them.

use std::{
    io::{self, ErrorKind},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{client::Failure, finding::Finding, link::OpenError};
use crate::{stun::Method, turn::Transport};

/// Why there is no link.
pub(super) fn not_opened(transport: Transport, error: &OpenError) -> Finding {
    let name = transport.name().to_uppercase();
    let kind = if transport.is_stream() { "TCP" } else { "UDP" };
    match error {
        OpenError::Connect(error) => not_connected("connect", kind, error),
        OpenError::Silent => {
            let remedy =
                format!("open the {kind} port in every firewall on the way, and see that the server listens there");
            Finding::error("connect", format!("nothing answers over {name}"), remedy)
        }
        OpenError::SilentHandshake => {
            let remedy = format!("see that the server serves {name} on this port, and its log");
            Finding::error("handshake", format!("{name} is begun and never finished"), remedy)
        }
        OpenError::Handshake(why) => {
            let remedy = format!("see that this port serves {name}, and the server's log");
            Finding::error("handshake", format!("no {name}: {why}"), remedy)
        }
    }
}

fn not_connected(about: &str, kind: &str, error: &io::Error) -> Finding {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            let remedy = format!("start the server, and let it listen on this {kind} port");
            Finding::error(about, format!("nobody listens on this {kind} port: the host refuses"), remedy)
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
            let remedy = "try from a network that has this address family, or see the routes of this host";
            Finding::error(about, format!("there is no way to this address from here: {error}"), remedy)
        }
        ErrorKind::PermissionDenied => {
            Finding::error(about, format!("this host does not let it out: {error}"), "open its firewall")
        }
        _ => Finding::error(about, error.to_string(), "see the network of this host and the server's log"),
    }
}

/// Why a request was not answered.
pub(super) fn not_answered(about: &str, transport: Transport, failure: &Failure) -> Finding {
    let kind = if transport.is_stream() { "TCP" } else { "UDP" };
    match failure {
        Failure::Silence if transport == Transport::Udp => {
            let remedy =
                format!("open the {kind} port in every firewall on the way, and see that the server listens there");
            Finding::error(about, "was not answered", remedy)
        }
        Failure::Silence => {
            Finding::error(about, "was not answered", "see that this is a STUN/TURN port, and the server's log")
        }
        Failure::Broken(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let remedy =
                "see the server's log; it may want a PROXY protocol header, a client certificate, or other traffic";
            Finding::error(about, "the server has closed the connection", remedy)
        }
        Failure::Broken(error) if error.kind() == ErrorKind::InvalidData => {
            Finding::error(about, "what answers there is no STUN/TURN server", "see what listens on this port")
        }
        Failure::Broken(error) => not_connected(about, kind, error),
        Failure::Credentials(why) => Finding::error(about, format!("user name or password: {why}"), "give others"),
    }
}

/// What a server means by an error. `user` is whom the request was from.
pub(super) fn refused(about: &str, method: Method, (code, reason): &(u16, String), user: Option<&str>) -> Finding {
    let expired = user.and_then(expired_for);
    let (meaning, remedy) = match code {
        300 => ("the server sends clients elsewhere", "probe the server that it names".to_owned()),
        400 => (
            "the server takes the request for malformed",
            "see its log; something on the way may change messages".to_owned(),
        ),
        401 if expired.is_some() => (
            "the credential has expired",
            format!(
                "make a new one, and compare the clocks; the time in its user name passed {} ago",
                expired.unwrap_or_default()
            ),
        ),
        401 if user.is_some() => (
            "the user does not exist, or the password is wrong",
            "compare user name, password, realm and, for time-limited credentials, the secret with those of the server"
                .to_owned(),
        ),
        401 => ("the server wants credentials", "give --user".to_owned()),
        403 if method == Method::Allocate => {
            ("this user or client may not relay", "see the server's rules, and its log".to_owned())
        }
        403 => (
            "the server's rules forbid this peer",
            "allow it in [peers] (coturn: allowed-peer-ip), if it should be".to_owned(),
        ),
        420 => ("the server does not know an attribute that it would have to", "use a newer server".to_owned()),
        437 => (
            "the server has no allocation for this client, or one already",
            "see whether a NAT or balancer on the way changes ports".to_owned(),
        ),
        438 => (
            "the server takes no nonce for good, not even its newest",
            "see whether a balancer spreads requests over several servers, and their clocks".to_owned(),
        ),
        440 => (
            "the server does not relay this address family",
            "give it a relay address of this family, if clients need it".to_owned(),
        ),
        441 => (
            "the server wants the credentials of the allocation",
            "see whether two users share a client address".to_owned(),
        ),
        442 => ("the server does not relay UDP", "set udp-relaying = true (coturn: remove no-udp-relay)".to_owned()),
        486 => (
            "the user has as many allocations as are allowed",
            "raise user-quota, or wait until older ones have expired".to_owned(),
        ),
        508 => ("the server has no relay ports or memory left", "widen min-port..max-port, and see its log".to_owned()),
        500..=599 => ("the server has failed", "try again, and see its log".to_owned()),
        _ => ("the server refuses", "see its log".to_owned()),
    };
    let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    Finding::error(about, format!("{} is answered with {code}{reason}: {meaning}", method.name()), remedy)
}

/// For how long a time-limited credential has been expired, if this is the name of one that is.
fn expired_for(user: &str) -> Option<String> {
    /// Seconds since 1970 of a time that no such credential can be older than.
    const EARLIEST: u64 = 1_000_000_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let numbers = user.split([':', '-', '|', '_']).filter_map(|part| part.parse::<u64>().ok());
    let expires = numbers.into_iter().find(|number| (EARLIEST..10 * EARLIEST).contains(number))?;
    let ago = now.checked_sub(expires)?;
    Some(match ago {
        0..=119 => format!("{ago} seconds"),
        120..=7_199 => format!("{} minutes", ago / 60),
        7_200..=172_799 => format!("{} hours", ago / 3_600),
        _ => format!("{} days", ago / 86_400),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_name_is_called_so() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(expired_for(&format!("{}:alice", now - 600)).as_deref(), Some("10 minutes"));
        assert_eq!(expired_for(&format!("alice:{}", now - 3 * 86_400)).as_deref(), Some("3 days"));
        assert_eq!(expired_for(&format!("{}:alice", now + 600)), None);
        assert_eq!(expired_for("alice"), None);
        assert_eq!(expired_for("12:alice"), None);
        let refusal = (401, "Unauthenticated".to_owned());
        let said = |user: &str| refused("allocate", Method::Allocate, &refusal, Some(user)).what;
        assert!(said("alice").contains("the password is wrong"));
        assert!(said(&format!("{}:a", now - 60)).ends_with("the credential has expired"));
    }

    #[test]
    fn every_error_has_words() {
        for code in [300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 486, 500, 508, 999] {
            let finding = refused("x", Method::Refresh, &(code, String::new()), None);
            assert!(finding.what.contains(&code.to_string()) && finding.remedy.is_some_and(|remedy| remedy.len() > 5));
        }
    }
}
