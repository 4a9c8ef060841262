//! `turnserver user`: the users of the configured store.

use std::process::ExitCode;

use serde_json::json;

use super::store::{Desk, Failure, on_store, print_rows, read_secret, tell_server};
use crate::{
    auth::{
        key::{LongTermKey, md5_key},
        prepare::prepare,
    },
    config::Settings,
};

/// RFC 8489 §14.3: USERNAME has fewer than 509 bytes.
const LONGEST_NAME: usize = 508;

/// What to do with users.
#[derive(Debug, clap::Args)]
pub(super) struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add a user; the password is asked for, or read from standard input
    Add(Who),
    /// Give a user another password, which is asked for, or read from standard input
    Password(Who),
    /// Remove a user
    Remove(Who),
    /// List the users
    List {
        /// Those of this realm only
        #[arg(long)]
        realm: Option<String>,

        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Who {
    /// The user's name
    name: String,

    /// The user's realm [default: the configuration's]
    #[arg(long)]
    realm: Option<String>,
}

impl User {
    /// Does it; what goes wrong is said on standard error.
    pub(super) fn run(&self, settings: &Settings) -> ExitCode {
        on_store(settings, |desk| match &self.action {
            Action::Add(who) => who.change(settings, |user| add(desk, user)),
            Action::Password(who) => who.change(settings, |user| password(desk, user)),
            Action::Remove(who) => who.change(settings, |user| remove(desk, user)),
            Action::List { realm, json } => {
                let users = desk.ask(desk.registry.users(realm.as_deref()))?;
                let rows: Vec<_> = users.into_iter().map(|user| [user.realm, user.name]).collect();
                print_rows(["realm", "user"], &rows, *json)
            }
        })
    }
}

/// A user in the form that is stored.
struct Prepared {
    realm: String,
    name: String,
}

impl Who {
    /// Changes a user, and tells the running server.
    fn change(
        &self,
        settings: &Settings,
        change: impl FnOnce(&Prepared) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let user = self.prepared(settings)?;
        change(&user)?;
        tell_server(settings, &json!({ "realm": user.realm, "user": user.name }));
        Ok(())
    }

    fn prepared(&self, settings: &Settings) -> Result<Prepared, Failure> {
        let realm = self.realm.as_ref().unwrap_or(&settings.auth.realm);
        let realm = prepare(realm).map_err(|error| format!("the realm {realm:?} {error}"))?;
        let name = prepare(&self.name).map_err(|error| format!("the user name {:?} {error}", self.name))?;
        if name.len() > LONGEST_NAME {
            return Err(format!("the user name is longer than {LONGEST_NAME} bytes").into());
        }
        Ok(Prepared { realm: realm.into_owned(), name: name.into_owned() })
    }
}

impl Prepared {
    fn is_there(&self, desk: &Desk<'_>) -> Result<bool, Failure> {
        let users = desk.ask(desk.registry.user(&self.realm, &self.name));
        users.map(|user| user.is_some())
    }

    fn unknown(&self) -> Failure {
        format!("realm {:?} has no user {:?} in the store", self.realm, self.name).into()
    }

    /// Asks for the password, and keeps the key that it comes to.
    fn put(&self, desk: &Desk<'_>) -> Result<(), Failure> {
        let password = read_secret("password")?;
        let key = md5_key(&self.name, &self.realm, &password).map_err(|error| format!("the password {error}"))?;
        desk.ask(desk.registry.put_user(&self.realm, &self.name, &key))?;
        // Some databases take two names for the same, and keep one of them.
        let kept = desk.ask(desk.registry.user(&self.realm, &self.name))?;
        match kept.and_then(|record| record.md5) {
            Some(kept) if kept.as_bytes() == LongTermKey::as_bytes(&key) => Ok(()),
            _ => Err(format!("the store has not kept {:?}: it takes it for another user's name", self.name).into()),
        }
    }
}

fn add(desk: &Desk<'_>, user: &Prepared) -> Result<(), Failure> {
    desk.ask(desk.registry.prepare())?;
    if user.is_there(desk)? {
        let remedy = "`turnserver user password` gives it another password";
        return Err(format!("realm {:?} has a user {:?} already; {remedy}", user.realm, user.name).into());
    }
    user.put(desk)
}

fn password(desk: &Desk<'_>, user: &Prepared) -> Result<(), Failure> {
    if !user.is_there(desk)? {
        return Err(user.unknown());
    }
    user.put(desk)
}

fn remove(desk: &Desk<'_>, user: &Prepared) -> Result<(), Failure> {
    if desk.ask(desk.registry.remove_user(&user.realm, &user.name))? { Ok(()) } else { Err(user.unknown()) }
}
