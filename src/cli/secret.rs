//! `turnserver secret`: the secrets of time-limited credentials in the configured store.

use std::{fmt::Write, process::ExitCode};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::store::{Desk, Failure, on_store, print, print_rows, read_secret, tell_server};
use crate::{auth::store::NamedSecret, config::Settings};

/// What coturn's tables hold.
const LONGEST: usize = 127;

/// What to do with secrets.
#[derive(Debug, clap::Args)]
pub(super) struct Secret {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add a secret, which is asked for, or read from standard input
    Add {
        /// The realm that it is for [default: the configuration's]
        #[arg(long)]
        realm: Option<String>,

        /// Make one, and print it
        #[arg(long)]
        generate: bool,
    },
    /// Remove a secret: by the id that `list` shows, or else it is asked for, or read from standard input
    Remove {
        /// The secret's id
        id: Option<String>,

        /// The realm that it is for [default: the configuration's]
        #[arg(long)]
        realm: Option<String>,
    },
    /// List the secrets of a realm by their ids: the first 8 digits of their SHA-256
    List {
        /// The realm that they are for [default: the configuration's]
        #[arg(long)]
        realm: Option<String>,

        /// Print the secrets, too
        #[arg(long)]
        reveal: bool,

        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

impl Secret {
    /// Does it; what goes wrong is said on standard error.
    pub(super) fn run(&self, settings: &Settings) -> ExitCode {
        let realm = |realm: &Option<String>| realm.clone().unwrap_or_else(|| settings.auth.realm.clone());
        on_store(settings, |desk| match &self.action {
            Action::Add { realm: of, generate } => {
                add(desk, &realm(of), *generate).map(|()| changed(settings, &realm(of)))
            }
            Action::Remove { id, realm: of } => {
                remove(desk, &realm(of), id.as_deref()).map(|()| changed(settings, &realm(of)))
            }
            Action::List { realm: of, reveal, json } => list(desk, &realm(of), *reveal, *json),
        })
    }
}

/// Tells the running server.
fn changed(settings: &Settings, realm: &str) {
    tell_server(settings, &json!({ "realm": realm, "secrets": true }));
}

/// What a secret goes by where it must not be shown. Short, so that it does not serve to guess a secret.
fn id(secret: &str) -> String {
    let mut id = String::new();
    for byte in Sha256::digest(secret.as_bytes()).iter().take(4) {
        // Writing into a string does not fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

fn add(desk: &Desk<'_>, realm: &str, generate: bool) -> Result<(), Failure> {
    desk.ask(desk.registry.prepare())?;
    let secret = if generate { make()? } else { read_secret("secret")? };
    if secret.len() > LONGEST {
        return Err(format!("the secret is longer than {LONGEST} bytes; nothing was changed").into());
    }
    if secrets(desk, realm)?.iter().any(|there| there.value == secret) {
        return Err(format!("realm {realm:?} has this secret already").into());
    }
    desk.ask(desk.registry.add_secret(realm, &secret))?;
    if generate { print(&format!("{}\n", secret.as_str())) } else { Ok(()) }
}

fn make() -> Result<Zeroizing<String>, Failure> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice()).map_err(|error| format!("cannot make a secret: {error}"))?;
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice())))
}

fn remove(desk: &Desk<'_>, realm: &str, wanted: Option<&str>) -> Result<(), Failure> {
    let secret = match wanted {
        None => read_secret("secret")?,
        Some(wanted) => {
            let mut found = secrets(desk, realm)?.into_iter().filter(|secret| id(&secret.value) == wanted);
            let Some(secret) = found.next() else {
                return Err(format!("realm {realm:?} has no secret with the id {wanted:?} in the store").into());
            };
            if found.next().is_some() {
                return Err("two secrets have this id; give the secret itself on standard input".into());
            }
            secret.value
        }
    };
    if desk.ask(desk.registry.remove_secret(realm, &secret))? {
        Ok(())
    } else {
        Err(format!("realm {realm:?} has no such secret in the store").into())
    }
}

fn list(desk: &Desk<'_>, realm: &str, reveal: bool, json: bool) -> Result<(), Failure> {
    let secrets = secrets(desk, realm)?;
    if reveal {
        let row = |secret: &NamedSecret| [realm.to_owned(), id(&secret.value), secret.value.as_str().to_owned()];
        print_rows(["realm", "id", "secret"], &secrets.iter().map(row).collect::<Vec<_>>(), json)
    } else {
        let row = |secret: &NamedSecret| [realm.to_owned(), id(&secret.value)];
        print_rows(["realm", "id"], &secrets.iter().map(row).collect::<Vec<_>>(), json)
    }
}

fn secrets(desk: &Desk<'_>, realm: &str) -> Result<Vec<NamedSecret>, Failure> {
    desk.ask(desk.registry.secrets(realm))
}
