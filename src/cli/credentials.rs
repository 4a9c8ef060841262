//! `turnserver credentials`: a time-limited credential, made with a secret of the configuration.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde_json::Value;

use crate::{
    auth::{
        mint::{Minted, mint},
        rest::RestSecret,
    },
    config::{self, Settings, settings::Mechanisms},
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
        let mechanisms = self.mechanisms(settings)?;
        let secret = self.secret(mechanisms)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        mint(secret, &mechanisms.rest, &self.user, self.ttl, now).map_err(|error| format!("--user: {error}"))
    }

    fn mechanisms<'s>(&self, settings: &'s Settings) -> Result<&'s Mechanisms, String> {
        let named = self.realm.as_deref().unwrap_or(&settings.auth.realm);
        if named == settings.auth.realm {
            return Ok(&settings.auth.mechanisms);
        }
        let realm = settings.realms.iter().find(|realm| realm.name == named);
        realm.map(|realm| &realm.mechanisms).ok_or_else(|| format!("--realm: there is no realm {named:?}"))
    }

    fn secret<'m>(&self, mechanisms: &'m Mechanisms) -> Result<&'m RestSecret, String> {
        let secrets = &mechanisms.secrets;
        let Some(named) = &self.secret_name else {
            let remedy = "add static-auth-secret, and give the file with -c";
            return secrets.first().ok_or_else(|| format!("the configuration of this realm has no secret; {remedy}"));
        };
        secrets.iter().find(|secret| *secret.name == **named).ok_or_else(|| {
            let known: Vec<&str> = secrets.iter().map(|secret| &*secret.name).collect();
            format!("--secret-name: there is no secret {named:?}; there are: {}", known.join(", "))
        })
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
