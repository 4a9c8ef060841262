//! What address does the world see? Asked of a cloud's metadata service and of STUN servers, for `external-ip = "auto"` and for
//! `turnserver check`.
//!
//! Nothing here is believed halfway: an address counts as found when all who answer say the same.

mod metadata;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

pub use self::metadata::Cloud;
use crate::{
    config::settings::{FindExternal, RelayAddress, StunServer},
    probe::{
        binding::{resolve_like, seen_by},
        special,
    },
};

/// How long all who are asked may take together.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// A cloud's metadata service.
    Cloud(Cloud),
    /// A STUN server.
    Stun(StunServer),
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud(cloud) => write!(f, "metadata of {}", cloud.name()),
            Self::Stun(server) => write!(f, "STUN server {server}"),
        }
    }
}

/// What one who was asked says, or why there is no answer.
pub type Testimony = (Witness, Result<IpAddr, String>);

/// What comes of all answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All who answered say this.
    Found {
        /// The address.
        address: IpAddr,
        /// Who says so, in words.
        by: String,
        /// STUN servers are configured, and none has answered: what others see was not looked at.
        unconfirmed: bool,
    },
    /// Those who answered contradict each other; in words.
    Contradiction(String),
    /// Nobody answered; who was asked, and why not.
    Silence(String),
}

/// What the world sees of a relay address: asks everybody at once.
pub async fn ask(find: &FindExternal, local: IpAddr) -> Vec<Testimony> {
    let mut questions: JoinSet<(usize, Testimony)> = JoinSet::new();
    let clouds =
        find.metadata.iter().filter(|_| local.is_ipv4()).flat_map(|base| Cloud::ALL.map(|cloud| (base, cloud)));
    for (at, (base, cloud)) in clouds.enumerate() {
        let base = base.clone();
        questions.spawn(async move {
            let answer = timeout(PATIENCE, cloud.ask(&base, local)).await;
            (at, (Witness::Cloud(cloud), answer.unwrap_or_else(|_| Err("did not answer in time".to_owned()))))
        });
    }
    for (at, server) in find.stun_servers.iter().cloned().enumerate() {
        questions.spawn(async move {
            let seen = match resolve_like(&server.host, server.port, local, PATIENCE).await {
                Ok(address) => stun(address, local).await,
                Err(error) => Err(error.to_string()),
            };
            (Cloud::ALL.len() + at, (Witness::Stun(server), seen))
        });
    }
    let mut answers: Vec<(usize, Testimony)> = Vec::new();
    while let Some(answer) = questions.join_next().await {
        answers.extend(answer.ok());
    }
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

async fn stun(server: SocketAddr, local: IpAddr) -> Result<IpAddr, String> {
    seen_by(server, local, PATIENCE).await.map(|seen| seen.ip()).map_err(|error| error.to_string())
}

/// What comes of the answers.
#[must_use]
pub fn judge(find: &FindExternal, answers: &[Testimony]) -> Verdict {
    let heard: Vec<(&Witness, IpAddr)> =
        answers.iter().filter_map(|(witness, answer)| Some((witness, *answer.as_ref().ok()?))).collect();
    let list = |words: Vec<String>| words.join(", ");
    let Some((_, address)) = heard.first().copied() else {
        // Of the clouds at most one can answer: that none does is one thing to say.
        let mut silent: Vec<String> = Vec::new();
        if answers.iter().any(|(witness, _)| matches!(witness, Witness::Cloud(_))) {
            silent.push("no metadata service answers".to_owned());
        }
        silent.extend(answers.iter().filter_map(|(witness, answer)| match (witness, answer) {
            (Witness::Stun(_), Err(why)) => Some(format!("{witness}: {why}")),
            _ => None,
        }));
        return Verdict::Silence(if silent.is_empty() { "nobody was asked".to_owned() } else { list(silent) });
    };
    if heard.iter().any(|(_, other)| *other != address) {
        return Verdict::Contradiction(list(
            heard.iter().map(|(witness, ip)| format!("{witness} says {ip}")).collect(),
        ));
    }
    let seen = heard.iter().any(|(witness, _)| matches!(witness, Witness::Stun(_)));
    let by = list(heard.iter().map(|(witness, _)| witness.to_string()).collect());
    Verdict::Found { address, by, unconfirmed: !seen && !find.stun_servers.is_empty() }
}

/// Asks for every relay address, and says in the log what comes of it. Returns with each relay address its external one, where
/// that is to change.
pub async fn look(find: &FindExternal, addresses: &[RelayAddress]) -> Vec<RelayAddress> {
    let mut changes = Vec::new();
    for &RelayAddress { local, external } in addresses {
        match judge(find, &ask(find, local).await) {
            Verdict::Found { address, by, unconfirmed } => {
                if unconfirmed {
                    tracing::warn!(%local, external = %address, by, "external address: no STUN server confirms it");
                }
                if address == external {
                    tracing::debug!(%local, %external, by, "external address: as before");
                    continue;
                }
                tracing::info!(%local, before = %external, external = %address, by, "external address: found");
                if let Some(kind) = special(address) {
                    tracing::warn!(external = %address, kind = kind.name, "external address: not public; only clients in the same network reach it");
                }
                changes.push(RelayAddress { local, external: address });
            }
            Verdict::Contradiction(said) => {
                tracing::warn!(
                    %local, %external, said,
                    "external address: not verified, those who were asked contradict each other; still told the one before; \
                     write external-ip"
                );
            }
            // A public address needs no other.
            Verdict::Silence(why) if special(external).is_none() => {
                tracing::info!(%local, %external, why, "external address: nobody answers; the one before is public");
            }
            Verdict::Silence(why) => {
                tracing::warn!(
                    %local, %external, why,
                    "external address: not verified, nobody answers; still told the one before, which clients elsewhere do \
                     not reach; write external-ip, or add stun-servers"
                );
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(host: &str) -> Witness {
        Witness::Stun(StunServer { host: host.to_owned(), port: 3478 })
    }

    fn says(witness: Witness, ip: &str) -> Testimony {
        (witness, Ok(ip.parse().unwrap()))
    }

    fn silent(witness: Witness) -> Testimony {
        (witness, Err("did not answer in time".to_owned()))
    }

    #[test]
    fn all_who_answer_have_to_agree() {
        let find = FindExternal {
            stun_servers: vec![StunServer { host: "a".to_owned(), port: 3478 }],
            ..FindExternal::default()
        };
        let aws = || Witness::Cloud(Cloud::Aws);
        let found = |answers: &[Testimony]| match judge(&find, answers) {
            Verdict::Found { address, by, unconfirmed } => format!("{address} {by} {unconfirmed}"),
            Verdict::Contradiction(said) => said,
            Verdict::Silence(why) => why,
        };
        assert_eq!(
            found(&[says(aws(), "198.51.100.1"), says(stun("a"), "198.51.100.1")]),
            "198.51.100.1 metadata of AWS, STUN server a:3478 false"
        );
        assert_eq!(found(&[says(aws(), "198.51.100.1"), silent(stun("a"))]), "198.51.100.1 metadata of AWS true");
        assert_eq!(found(&[silent(aws()), says(stun("a"), "198.51.100.2")]), "198.51.100.2 STUN server a:3478 false");
        assert_eq!(
            found(&[says(aws(), "198.51.100.1"), says(stun("a"), "198.51.100.2")]),
            "metadata of AWS says 198.51.100.1, STUN server a:3478 says 198.51.100.2"
        );
        assert_eq!(
            found(&[silent(aws()), silent(stun("a"))]),
            "no metadata service answers, STUN server a:3478: did not answer in time"
        );
        assert_eq!(found(&[]), "nobody was asked");
    }
}
