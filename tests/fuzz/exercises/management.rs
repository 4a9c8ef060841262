//! Management as whoever connects meets it: HTTP, by whole connections.

use std::sync::{Arc, LazyLock};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use turnserver::{
    admin::{Admin, Lifecycle, LogLevel, Reloads, Sockets},
    config::{self, Host},
    relay::Relay,
};

const TOKEN: &str = "a-token-that-nobody-guesses";

/// A server on loopback, whose management is spoken to without sockets.
struct Running {
    admin: Admin,
    lifecycle: Arc<Lifecycle>,
}

static RUNNING: LazyLock<Running> = LazyLock::new(|| {
    let text = format!(
        "[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = 0\n[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nrealm = \"example.org\"\n\
         static-auth-secret = \"north\"\n[[auth.user]]\nname = \"alice\"\npassword = \"wonderland\"\n\
         [process]\nworkers = 1\n[management]\nsocket = \"off\"\nlisten = \"off\"\ntoken = \"{TOKEN}\"\n"
    );
    let host = Host::detect().expect("a host with addresses");
    let settings =
        config::parse(&text, "/nonexistent/t.toml", &host).unwrap_or_else(|error| panic!("{error}")).settings;
    let relay = Relay::start(settings.clone(), None, &[]).unwrap_or_else(|error| panic!("{error}"));
    let lifecycle = Arc::new(Lifecycle::new(relay.monitor().clone(), None));
    let log = Arc::new(LogLevel::new("info".to_owned(), Box::new(|_| Ok(()))));
    // Whoever asks for a reload is told that there is nobody to do it.
    let (reloads, _) = Reloads::new();
    let monitor = relay.monitor().clone();
    let admin = Admin::start(Sockets::default(), &settings, monitor, Arc::clone(&lifecycle), None, log, reloads);
    // It serves until the process ends.
    std::mem::forget(relay);
    Running { admin: admin.expect("a thread"), lifecycle }
});

/// The first byte says where the connection comes from; the rest is what is sent there. What comes back is HTTP, and nobody
/// without the token is told or does more than everybody may.
pub(crate) fn run(bytes: &[u8]) {
    let Some((&first, sent)) = bytes.split_first() else { return };
    let over_network = first % 2 == 0;
    let was_draining = RUNNING.lifecycle.is_draining();
    // Time stands still while there is something to do, and goes on at once when there is not: nobody waits for a limit.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let answer = runtime.block_on(async {
        let (mut client, server) = duplex(1 << 20);
        let mut answer = Vec::new();
        client.write_all(sent).await.expect("room");
        let serve = RUNNING.admin.converse(server, over_network);
        let read = async {
            // A head that does not end, or an answer that goes on for ever.
            let patience = std::time::Duration::from_secs(90);
            let _ = tokio::time::timeout(patience, client.read_to_end(&mut answer)).await;
            drop(client);
        };
        tokio::join!(serve, read);
        answer
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    if over_network && !sent.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()) {
        let secrets: [&[u8]; 4] = [b"wonderland", b"north", TOKEN.as_bytes(), b"\"alice\""];
        let told = secrets.iter().find(|secret| answer.windows(secret.len()).any(|part| part == **secret));
        assert!(told.is_none() || sent.windows(5).any(|part| part == b"alice" || part == b"north"), "a secret is told");
        assert_eq!(RUNNING.lifecycle.is_draining(), was_draining, "somebody without the token has changed something");
    }
    RUNNING.lifecycle.undrain();
}
