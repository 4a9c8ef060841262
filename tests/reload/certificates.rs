//! Certificates: by a reload, and by files that change while nobody says anything.

use std::{net::SocketAddr, path::Path, time::Instant};

use crate::{
    client::Client,
    common::{
        LOOPBACK, PASSWORD, PATIENCE, Server, USER, dtls,
        tls::{self, Authority, HOST},
    },
    support::{ctl, metric, peer, reload, round_trip},
    web::{ask_locally, get},
};

const TLS: &str = "[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = 0\ntransports = [\"tls\", \"dtls\"]\n\
                   [tls]\ncert = \"cert.pem\"\npkey = \"cert.key\"\n";

fn configuration() -> String {
    format!("{LOOPBACK}[management]\nlisten = \"off\"\nsocket = \"control.sock\"\n{TLS}")
}

fn over_tls(folder: &Path, server: SocketAddr) -> Client {
    Client::over_tls(tls::connect(tls::client(folder), server), Some((USER, PASSWORD)))
}

fn over_dtls(folder: &Path, server: SocketAddr) -> Client {
    let mut stream = dtls::prepare(folder, dtls::socket(server));
    assert!(dtls::handshake(&mut stream, PATIENCE), "no handshake with {server}");
    Client::over_dtls(stream, Some((USER, PASSWORD)))
}

/// A folder for what clients trust.
fn trusting(authority: &Authority) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("a file");
    folder
}

/// Whether new handshakes, with TLS and DTLS, show a certificate of this authority.
fn serves(server: &Server, folder: &Path) {
    over_tls(folder, server.ipv4("tls")).allocate().expect("an allocation");
    over_dtls(folder, server.ipv4("dtls")).allocate().expect("an allocation");
}

/// Clients of before, who go on.
fn clients(server: &Server) -> [Client; 2] {
    let folder = server.folder();
    let mut clients = [over_tls(folder, server.ipv4("tls")), over_dtls(folder, server.ipv4("dtls"))];
    clients.iter_mut().for_each(|client| assert!(client.allocate().is_ok()));
    clients
}

#[test]
fn a_reload_shows_new_certificates_to_new_handshakes() {
    let server = Server::start(&configuration());
    let (mut clients, peer, authority) = (clients(&server), peer(), Authority::new());
    clients.iter_mut().for_each(|client| client.permit(peer.1).expect("a permission"));
    let expiry =
        format!("turn_certificate_expiry_timestamp_seconds{{file=\"{}\"}}", server.folder().join("cert.pem").display());
    let before = metric(&server, &expiry);
    let [certificate, key] = ["cert.pem", "cert.key"].map(|name| server.folder().join(name));
    let mut params = rcgen::CertificateParams::new([HOST.to_owned()]).expect("names");
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let pair = rcgen::KeyPair::generate().expect("a key");
    let made = authority.sign(params, &pair);
    std::fs::write(&certificate, made).expect("a file");
    std::fs::write(&key, pair.serialize_pem()).expect("a file");
    assert!(ctl(&server).status.success());
    serves(&server, trusting(&authority).path());
    assert_ne!(metric(&server, &expiry), before);
    assert_eq!(get(&server, "/status")["certificates"][0]["expires"], 2_208_988_800_i64);
    clients.iter_mut().for_each(|client| round_trip(client, &peer));
}

/// A certificate is there before its key: nothing changes until both are.
#[test]
fn files_that_change_are_taken_up_without_a_word() {
    let server = Server::start(&configuration());
    let (mut clients, peer, authority) = (clients(&server), peer(), Authority::new());
    clients.iter_mut().for_each(|client| client.permit(peer.1).expect("a permission"));
    let (certificate, key) = authority.issue(&[HOST, "127.0.0.1"]);
    // As certbot does: into place by a rename.
    let replace = |name: &str, content: &str| {
        let new = server.folder().join("new");
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, server.folder().join(name)).expect("to rename it");
    };
    replace("cert.pem", &certificate);
    server.await_log(|log| log.contains("is not the key of the first certificate").then_some(()));
    serves(&server, server.folder());
    assert_eq!(metric(&server, "turn_config_reloads_total{result=\"applied\"}"), 0.0);
    replace("cert.key", &key);
    let told = server.await_logged("reloaded");
    assert_eq!((&told["cause"], &told["changed"]), (&"a file has changed".into(), &"tls: certificates".into()));
    serves(&server, trusting(&authority).path());
    assert_eq!(metric(&server, "turn_config_reloads_total{result=\"applied\"}"), 1.0);
    clients.iter_mut().for_each(|client| round_trip(client, &peer));
}

/// As Kubernetes does: the link to the folder is swapped. What has been written to the configuration meanwhile is not touched.
#[test]
fn a_secret_in_a_file_is_taken_up_and_ends_what_it_let_in() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (version, secret) in [("v1", "the first of the secrets"), ("v2", "the second of the secrets")] {
        std::fs::create_dir(at(version)).expect("a folder");
        std::fs::write(at(version).join("secret"), secret).expect("a file");
    }
    symlink("v1", at("..data")).expect("a link");
    symlink("..data/secret", at("secret")).expect("a link");
    let text = format!("{LOOPBACK}[management]\nlisten = \"off\"\nsocket = \"control.sock\"\n")
        .replace("[[auth.user]]", "static-auth-secret-file = \"secret\"\n[[auth.user]]");
    let server = Server::start_with(&text, folder);
    let made = ask_locally(&server, "POST", "/v1/credentials", "{\"user\": \"u\"}").json();
    let minted = |key: &str| made[key].as_str().expect("text").to_owned();
    let (name, password) = (minted("username"), minted("password"));
    let (mut by_secret, mut alice) = (
        Client::new("udp", server.ipv4("udp"), Some((&name, &password))),
        crate::support::client(&server, USER, PASSWORD),
    );
    by_secret.allocate().expect("an allocation");
    alice.allocate().expect("an allocation");
    std::fs::write(server.folder().join("turnserver.toml"), "half a configura").expect("a file");
    symlink("v2", server.folder().join("..new")).expect("a link");
    std::fs::rename(server.folder().join("..new"), server.folder().join("..data")).expect("to rename it");
    let told = server.await_logged("reloaded");
    assert_eq!((&told["changed"], &told["sessions_ended"]), (&"auth: passwords, keys or secrets".into(), &1.into()));
    assert_eq!(by_secret.delete(), Err(crate::client::Refused(401)));
    alice.delete().expect("to let go");
}

/// TLS is not there at first, and goes again.
#[test]
fn tls_comes_and_goes() {
    let plain = configuration().replace(TLS, "");
    let server = Server::start(&plain);
    let authority = Authority::new();
    authority.write(server.folder(), "cert", authority.issue(&[HOST, "127.0.0.1"]));
    reload(&server, &configuration());
    let find = |transport: &str| -> SocketAddr {
        let listeners = get(&server, "/status")["listeners"].clone();
        let found = listeners.as_array().into_iter().flatten().find(|listener| listener["transport"] == transport);
        found.and_then(|listener| listener["address"].as_str()?.parse().ok()).expect("a listener")
    };
    let (mut tls, mut dtls) = (over_tls(server.folder(), find("tls")), over_dtls(server.folder(), find("dtls")));
    let peer = peer();
    for client in [&mut tls, &mut dtls] {
        client.allocate().expect("an allocation");
        client.permit(peer.1).expect("a permission");
    }
    let began = Instant::now();
    let gone = find("dtls");
    reload(&server, &plain);
    [&mut tls, &mut dtls].into_iter().for_each(|client| round_trip(client, &peer));
    let mut stream = dtls::prepare(server.folder(), dtls::socket(gone));
    assert!(!dtls::handshake(&mut stream, std::time::Duration::from_millis(500)));
    assert!(began.elapsed() < PATIENCE);
}
