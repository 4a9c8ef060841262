//! The web page of management in a real headless Chromium: what it shows while sessions run, who sees it, what it does by keyboard,
//! and what its test of the server says.
//!
//! `browser/manage.mjs` drives the browser and prints one JSON object; what it must say is asserted here.

mod client;
mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use client::{Client, Refused};
use common::browser::browse;
use common::ports::peer_socket;
use common::{LOOPBACK, PASSWORD, Server, TLS, USER};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A user whose name is markup.
const MARKUP: &str = "<img src=x onerror=alert(1)>";
/// Between two rounds of traffic.
const ROUND: Duration = Duration::from_millis(50);

/// Management with a token on a port that the system chooses; clients over IPv4.
fn configuration() -> String {
    let ipv4 = LOOPBACK.replace(r#"["127.0.0.1", "::1"]"#, r#""127.0.0.1""#);
    let secret = "realm = \"example.org\"\nstatic-auth-secret = \"the secret of the north\"";
    let user = format!("[[auth.user]]\nname = \"{MARKUP}\"\npassword = \"{PASSWORD}\"\n[peers]");
    let management = format!("[management]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\ntoken = \"{TOKEN}\"\n");
    let tls = TLS.replace(r#"["127.0.0.1", "::1"]"#, r#""127.0.0.1""#);
    format!("{}{tls}{management}", ipv4.replace("realm = \"example.org\"", secret).replace("[peers]", &user))
}

/// Where the page is.
fn url(server: &Server) -> String {
    let address = server.await_logged("management")["address"].take();
    format!("http://{}/", address.as_str().expect("an address"))
}

fn client(server: &Server, transport: &str, user: &str) -> Client {
    Client::new(transport, server.ipv4(transport), Some((user, PASSWORD)))
}

/// While `browse` runs, a client relays data both ways, another sends to a peer without permission, and somebody tries passwords.
fn with_traffic<T>(server: &Server, browse: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let peer = peer_socket(LOCALHOST);
    let at: SocketAddr = peer.local_addr().expect("an address");
    let mut allowed = client(server, "udp", USER);
    let relayed = allowed.allocate().expect("an allocation");
    let mut other = client(server, "tcp", MARKUP);
    other.allocate().expect("an allocation");
    let served = server.ipv4("udp");
    let over = &over;
    let round = move || {
        while !over.load(Ordering::Relaxed) {
            // Other browsers may come first, for longer than a permission lasts.
            allowed.permit(at).expect("a permission");
            allowed.send(at, &[0; 1000]);
            peer.send_to(&[0; 1000], relayed).expect("to send");
            other.send(at, b"unheard");
            let mut stranger = Client::new("udp", served, Some((USER, "wrong")));
            assert_eq!(stranger.allocate(), Err(Refused(401)));
            thread::sleep(ROUND);
        }
    };
    thread::scope(|scope| {
        scope.spawn(round);
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(browse));
        over.store(true, Ordering::Relaxed);
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn is_quiet(result: &Value) {
    assert_eq!(result["complaints"], json!([]), "{result:#}");
    assert_eq!(result["elsewhere"], json!([]), "{result:#}");
    assert!(result["policy"].as_str().is_some_and(|policy| policy.starts_with("default-src 'none';")), "{result:#}");
}

#[test]
fn it_shows_what_goes_on_in_light_and_dark_and_on_a_phone() {
    let server = Server::start(&configuration());
    let given = json!({ "url": url(&server), "token": TOKEN, "sessions": 2 });
    let result = with_traffic(&server, || browse("manage.mjs", "overview", &given, None));
    is_quiet(&result);
    assert_eq!((&result["state"], &result["moves"]), (&"ready".into(), &true.into()), "{result:#}");
    assert_eq!(result["refused"], "That is not the token.");
    assert!(result["label"].as_str().is_some_and(|label| label.starts_with("Throughput: ")), "{result:#}");
    // A name stays a name.
    let users = result["users"].as_array().expect("users");
    assert!(users.contains(&USER.into()) && users.contains(&MARKUP.into()) && users.len() == 2, "{result:#}");
    assert_eq!(result["images"], 0, "{result:#}");
    let facts = result["facts"].as_str().expect("facts");
    for fact in ["Certificates", "cert.pem", "Relay ports", &server.ipv4("tls").to_string()] {
        assert!(facts.contains(fact), "{fact}: {result:#}");
    }
    // The token is kept by this tab alone.
    assert_eq!(result["stored"], json!([["turnserver-token"], [], ""]), "{result:#}");
    let views = result["views"].as_array().expect("views");
    assert!(views.len() == 6 && views.iter().all(|view| view["scrolls"] == 0), "{result:#}");
    let of = |scheme: &str, key: &str| {
        views.iter().find(|view| view["colorScheme"] == scheme).map(|view| view[key].clone()).expect("a view")
    };
    assert_ne!(of("light", "ground"), of("dark", "ground"), "{result:#}");
    assert_ne!(of("light", "ink"), of("dark", "ink"), "{result:#}");
}

#[test]
fn sessions_are_found_and_ended_by_keyboard() {
    let server = Server::start(&configuration());
    let mut clients: Vec<Client> = (0..17).map(|_| client(&server, "udp", USER)).collect();
    clients.push(client(&server, "tcp", MARKUP));
    for client in &mut clients {
        client.allocate().expect("an allocation");
    }
    clients[17].permit("127.0.0.9:9".parse().expect("an address")).expect("a permission");
    // Small and capital letters are the same.
    let given = json!({ "url": url(&server), "token": TOKEN, "search": "IMG SRC" });
    let result = browse("manage.mjs", "sessions", &given, None);
    is_quiet(&result);
    assert_eq!(result["pages"], json!([["1 to 15", 15], ["16 to 18", 3], ["1 to 15", 15]]), "{result:#}");
    assert_eq!(result["found"], json!([MARKUP]), "{result:#}");
    let button = format!("Disconnect {MARKUP} at {}", clients[17].local());
    assert_eq!((&result["button"], &result["back"]), (&button.clone().into(), &button.into()), "{result:#}");
    assert_ne!(result["outline"], "none", "the focus is seen: {result:#}");
    let about = result["about"].as_str().expect("words");
    assert!(about.contains("127.0.0.9") && about.contains("Expires in"), "{result:#}");
    let question = result["question"].as_str().expect("a question");
    assert!(question.contains(MARKUP) && question.contains("over TCP"), "{result:#}");
    // Escape has changed nothing; afterwards the focus is where one goes on.
    assert_eq!((&result["still"], &result["after"]), (&1.into(), &"sessions-search".into()), "{result:#}");
    let log = server.await_log(|log| log.contains("\"reason\":\"disconnected\"").then(|| log.to_owned()));
    assert_eq!(log.matches("session ends").count(), 1, "{log}");
}

#[test]
fn its_test_says_what_works_and_what_does_not() {
    let server = Server::start(&configuration());
    // A port that nobody answers on, as long as this holds it.
    let silent = peer_socket(LOCALHOST);
    let given = json!({
        "url": url(&server),
        "token": TOKEN,
        "credentials": [[USER, PASSWORD], [USER, "wrong"]],
        "nobody": format!("turn:{}?transport=tcp", silent.local_addr().expect("an address")),
    });
    let authority = server.folder().join("ca.pem");
    let result = browse("manage.mjs", "test", &given, Some(&authority));
    is_quiet(&result);
    let (udp, tcp, tls) = (server.ipv4("udp"), server.ipv4("tcp"), server.ipv4("tls"));
    let uris = json!([
        format!("stun:{udp}"),
        format!("turn:{udp}?transport=udp"),
        format!("turn:{tcp}?transport=tcp"),
        format!("turns:turn.example.org:{}?transport=tcp", tls.port()),
    ]);
    assert_eq!(result["uris"], uris, "{result:#}");
    // With credentials that the server has made, and with a user's own.
    for run in [&result["runs"][0], &result["runs"][1]] {
        assert_eq!(run["summary"], "Relaying works over UDP, TCP and TLS.", "{result:#}");
        for transport in ["UDP", "TCP", "TLS"] {
            let outcome = &run["results"][transport];
            let words = outcome["words"].as_str().expect("words");
            assert_eq!(outcome["verdict"], "good", "{result:#}");
            assert!(words.starts_with("Relayed at 127.0.0.1:") && words.contains("Data pass from one"), "{result:#}");
        }
        assert_eq!(run["results"]["STUN"]["verdict"], "good", "{result:#}");
    }
    let wrong = &result["runs"][2];
    assert_eq!(wrong["summary"], "It does not work over UDP, TCP and TLS.", "{result:#}");
    for transport in ["UDP", "TCP", "TLS"] {
        let words = wrong["results"][transport]["words"].as_str().expect("words");
        assert!(words.contains("refuses the user name or the password (401)"), "{result:#}");
    }
    let nobody = result["runs"][3]["results"]["TCP"]["words"].as_str().expect("words");
    assert!(
        nobody.contains("gets nowhere with 127.0.0.1")
            && nobody.contains("(701)")
            && nobody.contains("nothing listens on this port"),
        "{result:#}"
    );
    let senseless = result["runs"][4]["note"].as_str().expect("a note");
    assert!(senseless.contains("is no URI of a STUN or TURN server"), "{result:#}");
}

/// The server listens on all addresses, and the page is reached by a name, over plain HTTP.
#[test]
fn its_test_goes_where_the_page_is() {
    let everywhere = configuration().replacen("listening-ip = \"127.0.0.1\"", "listening-ip = \"0.0.0.0\"", 1);
    let server =
        Server::start(&everywhere.replace("socket = \"off\"", "socket = \"off\"\nhost-names = \"turn.example.org\""));
    let given = json!({
        "url": url(&server).replace("127.0.0.1", "turn.example.org"),
        "token": TOKEN,
        "credentials": [],
        "nobody": "stun:127.0.0.1:9",
    });
    let result = browse("manage.mjs", "test", &given, Some(&server.folder().join("ca.pem")));
    assert_eq!(result["elsewhere"], json!([]), "{result:#}");
    let uri =
        |transport: &str| format!("turn:turn.example.org:{}?transport={transport}", server.ipv4(transport).port());
    let uris = result["uris"].as_array().expect("uris");
    assert!(uris.contains(&uri("udp").into()) && uris.contains(&uri("tcp").into()), "{result:#}");
    // For UDP, Chromium looks names up in a way that does not know the name that it was given for this test.
    for transport in ["TCP", "TLS"] {
        assert_eq!(result["runs"][0]["results"][transport]["verdict"], "good", "{result:#}");
    }
}

/// The certificate is of an authority that the browser does not know, and a test says so as far as a browser tells.
#[test]
fn its_test_says_that_a_certificate_may_not_be_trusted() {
    let server = Server::start(&configuration());
    let given = json!({ "url": url(&server), "token": TOKEN, "credentials": [], "nobody": "stun:127.0.0.1:9" });
    let result = browse("manage.mjs", "test", &given, None);
    let run = &result["runs"][0];
    assert_eq!(run["summary"], "Relaying works over UDP and TCP. It does not work over TLS.", "{result:#}");
    let words = run["results"]["TLS"]["words"].as_str().expect("words");
    assert!(words.contains("does not trust the certificate"), "{result:#}");
}

#[test]
fn without_a_token_it_shows_what_is_open_and_says_what_is_missing() {
    let server = Server::start(&configuration().replace(&format!("token = \"{TOKEN}\""), ""));
    let result = browse("manage.mjs", "locked", &json!({ "url": url(&server) }), None);
    assert_eq!((&result["elsewhere"], &result["asked"]), (&json!([]), &0.into()), "{result:#}");
    for place in ["sessions", "events", "test"] {
        assert!(result[place].as_str().is_some_and(|text| text.contains("token")), "{place}: {result:#}");
    }
    assert!(result["sessions"].as_str().is_some_and(|text| text.contains("token-file in [management]")), "{result:#}");
}

/// Not even a page that has the token manages the server from another origin.
#[test]
fn pages_of_other_sites_do_not_manage_the_server() {
    let server = Server::start(&configuration());
    let result = browse("manage.mjs", "foreign", &json!({ "url": url(&server), "token": TOKEN }), None);
    assert_eq!(result["outcomes"], json!(["opaque", "refused", "refused"]), "{result:#}");
    let statuses = result["statuses"].as_array().expect("statuses");
    assert!(statuses.contains(&json!(["POST", "/v1/drain", 403])), "{result:#}");
    assert!(statuses.iter().all(|status| status[2] == 403), "{result:#}");
    assert!(result["form"].as_str().is_some_and(|text| text.contains("a page of another site")), "{result:#}");
    assert!(!server.log().contains("draining"));
}
