//! `turnserver key`: the keys that stand for a password in the configuration or a database.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use super::password;
use crate::auth::key::{LongTermKey, md5_key, sha256_key};

/// Whose key.
#[derive(Debug, clap::Args)]
pub(super) struct Key {
    /// The user's name, as clients send it
    #[arg(long, value_name = "NAME")]
    user: String,

    /// The realm that clients are told [default: that of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(super) realm: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Key {
    /// Prints them on standard output; what goes wrong is said on standard error.
    pub(super) fn print(&self, realm: &str) -> ExitCode {
        match password::read_new()
            .and_then(|password| self.keys(realm, &password))
            .and_then(|keys| self.write(realm, &keys))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn keys(&self, realm: &str, password: &str) -> Result<[LongTermKey; 2], String> {
        let part = |name: &str, text: &str| match crate::auth::prepare::prepare(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the {name} {error}")),
        };
        part("user's name", &self.user)?;
        part("realm", realm)?;
        part("password", password)?;
        let keys = [md5_key(&self.user, realm, password), sha256_key(&self.user, realm, password)];
        let [md5, sha256] = keys.map(|key| key.map_err(|error| error.to_string()));
        Ok([md5?, sha256?])
    }

    fn write(&self, realm: &str, keys: &[LongTermKey; 2]) -> Result<(), String> {
        let [md5, sha256] = keys.each_ref().map(|key| hex(key.as_bytes()));
        let user = &self.user;
        let mut output = io::stdout().lock();
        let written = if self.json {
            writeln!(output, "{}", json!({ "user": user, "realm": realm, "key": md5, "key-sha256": sha256 }))
        } else {
            writeln!(output, "user        {user}\nrealm       {realm}\nkey         {md5}\nkey-sha256  {sha256}")
        };
        written.and_then(|()| output.flush()).map_err(|error| format!("cannot print the keys: {error}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
