//! Secrets that systemd hands over in a folder of its own (`LoadCredential=`).

use std::process::Command;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::{
    client::{Client, Refused},
    common::{LOOPBACK, Server},
};

const SECRET: &str = "a secret that was handed over";

#[test]
fn a_secret_comes_out_of_the_folder_of_credentials() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("auth-secret"), format!("{SECRET}\n")).expect("to write");
    let user = "[[auth.user]]\nname = \"alice\"\npassword = \"secret\"\n";
    let configuration = LOOPBACK.replace(user, "static-auth-secret-file = \"credential:auth-secret\"\n");
    assert_ne!(configuration, LOOPBACK);
    let server = Server::start_as(None, &configuration, |command| {
        command.env("CREDENTIALS_DIRECTORY", folder.path());
    });
    let log_in = |secret: &str| {
        let name = "4102444800:zoe";
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(name.as_bytes());
        let password = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        Client::new("udp", server.ipv4("udp"), Some((name, &password))).allocate().map(|_| ())
    };
    assert_eq!(log_in(SECRET), Ok(()));
    assert_eq!(log_in("another"), Err(Refused(401)));

    // Started by hand there is no such folder.
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("-c").arg(server.folder().join("turnserver.toml")).env_remove("CREDENTIALS_DIRECTORY");
    let output = command.output().expect("to run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(78) && said.contains("CREDENTIALS_DIRECTORY"), "{said}");
}
