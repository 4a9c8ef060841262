//! Credentials that are missing, wrong, over, or cannot be looked up.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use turnserver::{
    auth::rest::{RestAlgorithm, RestSecret},
    stun::{AttributeType, IntegrityKey, MacAlgorithm, Method},
};

use crate::{
    client::Refused,
    common::{PASSWORD, REALM, Server, USER, client::loopback_socket, process::Process, uclient::LIMIT},
    support::{HERE, alice, await_finding, challenged, client, code, exchange, reasons, request, says},
    web::managed,
};

const SECRET: &str = "the secret of the north";

/// With a secret of time-limited credentials, and `more` in `[auth]`.
fn with_secret(more: &str) -> String {
    managed("").replace("[auth]", &format!("[auth]\nstatic-auth-secret = \"{SECRET}\"\n{more}"))
}

/// A time-limited name that ends so many seconds from now, and its password.
fn time_limited(user: &str, left: i64) -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let name = format!("{}:{user}", now.checked_add_signed(left).expect("a time"));
    let key = zeroize::Zeroizing::new(SECRET.as_bytes().to_vec());
    let secret = RestSecret { name: "first".into(), tenant: None, algorithm: RestAlgorithm::Sha1, key };
    let password = secret.password(&name).to_string();
    (name, password)
}

#[test]
fn who_never_comes_back_after_the_first_401() {
    let server = Server::start(&managed(""));
    let mut client = alice(&server);
    assert_eq!(client.knock(), Err(Refused(401)));
    let found = says(&server, HERE, "no-credentials", &["never came back with any", "iceServers", "firewall"]);
    assert_eq!((&found["count"], &found["user"]), (&1.into(), &serde_json::Value::Null));
    // Nor does another, from another port, which the first one's coming back does not hide.
    let mut other = alice(&server);
    assert_eq!(other.knock(), Err(Refused(401)));
    client.allocate().expect("an allocation");
    let left = await_finding(&server, HERE, "no-credentials", |_| true);
    assert_eq!(left["client"], format!("{HERE}:{}", other.local().port()));
    other.allocate().expect("an allocation");
    assert!(!reasons(&server, HERE).contains(&"no-credentials".to_owned()));
}

#[test]
fn a_wrong_password_and_what_it_was_compared_with() {
    let server = Server::start(&with_secret(""));
    // A client that others have written.
    let mut command = Command::new("turnutils_uclient");
    command.args(["-u", USER, "-w", "wrong", "-n", "1", "-y", "-p", &server.ipv4("udp").port().to_string(), HERE]);
    let mut tool = Process::start(command);
    let words = ["The password of \"alice\" is wrong", "the user's password in the configuration", "realm"];
    let found = says(&server, HERE, "wrong-password", &words);
    assert_eq!((&found["user"], &found["transport"]), (&USER.into(), &"udp".into()));
    tool.signal("KILL");
    assert!(tool.wait(LIMIT).is_some());

    let (name, _) = time_limited("bob", 3600);
    assert_eq!(client(&server, &name, "wrong").allocate(), Err(Refused(401)));
    says(
        &server,
        "bob",
        "wrong-password",
        &[&name, "compared with 1 secret of time-limited credentials", "ctl credentials"],
    );
    // In a session, with its own key.
    let mut carol = alice(&server);
    carol.allocate().expect("an allocation");
    let port = carol.local().port();
    carol.set_password("another");
    assert_eq!(carol.delete(), Err(Refused(401)));
    says(&server, &format!("{HERE}:{port}"), "wrong-password", &["the key of its own session"]);
}

#[test]
fn a_user_whom_nobody_knows() {
    let server = Server::start(&managed(""));
    assert_eq!(client(&server, "zoe", PASSWORD).allocate(), Err(Refused(401)));
    says(&server, "zoe", "unknown-user", &["Nobody is called \"zoe\"", "no user of the configuration", "user add"]);
    // However long the name: what is kept of it is short.
    let long = "x".repeat(500);
    assert_eq!(client(&server, &long, PASSWORD).allocate(), Err(Refused(401)));
    says(&server, &"x".repeat(64), "unknown-user", &[&format!("{}…", "x".repeat(64))]);
    // A name that nobody can have.
    let (socket, nonce) = challenged(&server);
    let nobody = request(Method::Allocate, None, |writer| {
        writer.attribute(AttributeType::USERNAME, b"\xff\xfe").attribute(AttributeType::REALM, REALM.as_bytes());
        writer.attribute(AttributeType::NONCE, &nonce).integrity(&IntegrityKey::new(MacAlgorithm::Sha1, b"any"));
    });
    assert_eq!(code(&exchange(&socket, server.ipv4("udp"), &nobody)), Some(401));
    let here = format!("{HERE}:{}", socket.local_addr().expect("an address").port());
    says(&server, &here, "unknown-user", &["Nobody is called"]);
}

#[test]
fn a_credential_that_is_over_and_by_how_much() {
    let server = Server::start(&with_secret("expiry-grace = \"1h\"\n"));
    let (name, password) = time_limited("alice", -7_300);
    assert_eq!(client(&server, &name, &password).allocate(), Err(Refused(401)));
    let words = ["is over", "it ended 2 hours before it was shown", "clock", "timedatectl"];
    let found = says(&server, USER, "expired", &words);
    assert_eq!(found["user"], name.as_str());
    // Right, and in its grace: nothing new is made with it.
    let (name, password) = time_limited("bob", -300);
    assert_eq!(client(&server, &name, &password).allocate(), Err(Refused(401)));
    says(&server, "bob", "expired", &["it ended 5 minutes before it was shown"]);
}

#[test]
fn access_tokens_that_are_refused_and_that_nobody_asked_for() {
    let shown: &dyn Fn(&mut turnserver::stun::MessageWriter<'_>) = &|writer| {
        writer.attribute(AttributeType::ACCESS_TOKEN, &[1; 60]);
    };
    let server = Server::start(&managed(""));
    assert_eq!(client(&server, "north", PASSWORD).allocate_with(shown), Err(Refused(420)));
    says(&server, "north", "unexpected-token", &["access token (420)", "[[auth.token-key]]"]);
    drop(server);
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let tokens = format!("[[auth.token-key]]\nkid = \"north\"\nkey = \"{key}\"\n[peers]");
    let server = Server::start(&managed("").replace("[peers]", &tokens));
    assert_eq!(client(&server, "north", PASSWORD).allocate_with(shown), Err(Refused(401)));
    says(&server, "north", "bad-token", &["access token was refused", "server-name", "clocks"]);
}

#[test]
fn a_client_that_goes_on_with_a_stale_nonce() {
    let server = Server::start(&managed(""));
    let address = server.ipv4("udp");
    let (socket, nonce) = challenged(&server);
    // Another client's nonce is as good as an old one.
    let (_, others) = challenged(&server);
    let stale = request(Method::Refresh, Some(&others), |_| {});
    assert_eq!(code(&exchange(&socket, address, &stale)), Some(438));
    let here = format!("{HERE}:{}", socket.local_addr().expect("an address").port());
    says(&server, &here, "stale-nonce", &["its nonce is stale (438), and has not come back"]);
    for _ in 0..3 {
        assert_eq!(code(&exchange(&socket, address, &stale)), Some(438));
    }
    let found = says(&server, &here, "stale-nonce", &["4 times", "goes on without the new one", "NAT"]);
    assert_eq!(found["count"], 4);
    // It is over when it comes in.
    assert_eq!(code(&exchange(&socket, address, &request(Method::Refresh, Some(&nonce), |_| {}))), Some(437));
    assert!(!reasons(&server, &here).contains(&"stale-nonce".to_owned()));
}

#[test]
fn credentials_that_are_not_whole() {
    let server = Server::start(&managed(""));
    let key = IntegrityKey::new(MacAlgorithm::Sha1, b"any");
    let request = request(Method::Allocate, None, |writer| {
        writer.attribute(AttributeType::REALM, REALM.as_bytes()).integrity(&key);
    });
    assert_eq!(code(&exchange(&loopback_socket(), server.ipv4("udp"), &request)), Some(400));
    says(&server, HERE, "bad-credentials", &["(400)", "missing or contradict", "USERNAME, REALM and NONCE"]);
}

/// A store that answers the requests of each connection with this status, and questions about users with this.
fn store(status: &'static str, user: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((HERE, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some(body) = body(&mut stream) {
                    let answer = if body["question"] == "user" { user } else { "null" };
                    let length = answer.len();
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
                    if stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The body of the next request of a connection.
fn body(stream: &mut impl BufRead) -> Option<serde_json::Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.to_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().ok()?,
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn a_store_that_cannot_be_asked_or_does_not_know_or_knows_another_password() {
    for (status, user, error, reason, words) in [
        ("503 Busy", "null", 500, "store-unavailable", "could not be asked about \"zoe\" (500)"),
        ("200 OK", "null", 401, "unknown-user", "the store of users does not know it"),
        ("200 OK", "{\"password\": \"hero\"}", 401, "wrong-password", "compared with what the store of users knows"),
    ] {
        let (url, secret) = (store(status, user), "0123456789abcdef0123456789abcdef");
        let store = format!("[store]\ntype = \"http\"\nurl = \"http://{url}/\"\nsecret = \"{secret}\"\n");
        let server = Server::start(&format!("{}{store}", managed("")));
        assert_eq!(client(&server, "zoe", PASSWORD).allocate(), Err(Refused(error)));
        says(&server, HERE, reason, &[words, "\"zoe\""]);
    }
}
