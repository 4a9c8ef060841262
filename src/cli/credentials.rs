//! `turnserver credentials`: a time-limited credential, made with a secret of the configuration or, where that has none, of the store.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde_json::Value;

use super::store::secrets_of;
use crate::{
    auth::mint::{ChoiceError, Minted, choose, choose_stored, mint, realm_in_store},
    config::{self, Settings},
};

/// What to make.
#[derive(Debug, clap::Args)]
pub(super) struct Credentials {
    /// How long it is good for, like 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = config::parse_period)]
    ttl: Duration,

    /// The user's name; quotas and logs go by it
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,

    /// The realm whose secret it is made with [default: that of [auth]]
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,

    /// The secret that it is made with [default: the first]
    #[arg(long, value_name = "NAME")]
    secret_name: Option<String>,

    /// Print JSON alone
    #[arg(long)]
    json: bool,

    /// What the JSON looks like
    #[arg(long, value_name = "SHAPE", default_value = "ice-servers")]
    shape: Shape,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    /// For RTCPeerConnection
    IceServers,
    /// username, password, ttl, uris
    Rest,
    /// As Cloudflare's generate-ice-servers answers
    Cloudflare,
}

impl Credentials {
    /// Makes it and prints it on standard output; what goes wrong is said on standard error.
    pub(super) fn print(&self, settings: &Settings) -> ExitCode {
        match self.make(settings).and_then(|minted| self.write(&minted, &config::client_uris(settings))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn make(&self, settings: &Settings) -> Result<Minted, String> {
        let (realm, named) = (self.realm.as_deref(), self.secret_name.as_deref());
        let chosen = match realm_in_store(settings, realm) {
            None => choose(settings, realm, named).map(|(secret, names)| (secret.clone(), names)),
            Some(prepared) => choose_stored(settings, realm, named, &secrets_of(settings, &prepared)?),
        };
        let (secret, names) = chosen.map_err(|error| match &error {
            ChoiceError::Realm(_) => format!("--realm: {error}"),
            ChoiceError::Secret { .. } => format!("--secret-name: {error}"),
            ChoiceError::NoSecret => format!("{error}, and give the file with -c"),
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        mint(&secret, names, &self.user, self.ttl, now).map_err(|error| format!("--user: {error}"))
    }

    fn write(&self, minted: &Minted, uris: &[String]) -> Result<(), String> {
        let shape: Value = match self.shape {
            Shape::IceServers => minted.ice_servers(uris),
            Shape::Rest => minted.rest(uris),
            Shape::Cloudflare => minted.generate_ice_servers(uris),
        };
        let mut output = io::stdout().lock();
        let written = if self.json {
            writeln!(output, "{shape}")
        } else {
            let (username, password, expires) = (&minted.username, minted.password.as_str(), minted.expires);
            writeln!(output, "username  {username}\npassword  {password}\nexpires   {expires}\n\n{shape:#}")
        };
        written.and_then(|()| output.flush()).map_err(|error| format!("cannot print the credential: {error}"))
    }
}
