//! Users known to a service, which this file is: it checks signatures with a computation of its own.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use sha2::Sha256;
use turnserver::auth::{
    key::sha256_key,
    store::{RealmOptions, Stores, TokenAlgorithm, Unavailable},
};

use crate::{
    client::Refused,
    common::{PATIENCE, tls::Authority},
    logins::{log_in, server},
    store_settings, text, wait_until,
};

const SECRET: &str = "a secret of the service";

/// What the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    Hangs,
    Fails,
    Redirects,
    Babbles,
}

pub(crate) struct Service {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    /// A service over plain HTTP, or over TLS with a certificate and its key.
    pub(crate) fn start(tls: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, connections) = (Arc::new(Mutex::new(Manner::Answers)), Arc::new(AtomicUsize::new(0)));
        let config = tls.map(|(certificate, key)| {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
        });
        let service = Self { address, manner: manner.clone(), connections: connections.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (stream, manner, config) = (stream.unwrap(), manner.clone(), config.clone());
                thread::spawn(move || match config {
                    Some(config) => {
                        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &manner);
                    }
                    None => serve(stream, &manner),
                });
            }
        });
        service
    }

    fn does(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub(crate) fn table(&self, more: &str) -> String {
        format!("type = \"http\"\nurl = \"http://{}/turn?v=1\"\nsecret = \"{SECRET}\"\n{more}", self.address)
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: impl Read + Write, manner: &Mutex<Manner>) {
    let mut stream = BufReader::new(stream);
    while let Some((start, headers, body)) = request(&mut stream) {
        let manner = *manner.lock().unwrap();
        let (status, answer) = match manner {
            Manner::Hangs => loop {
                thread::park();
            },
            Manner::Fails => ("503 Service Unavailable", "null".to_owned()),
            Manner::Redirects => ("302 Found", "null".to_owned()),
            Manner::Babbles => ("200 OK", "{\"password\":\"hunter2\",\"colour\":1}".to_owned()),
            Manner::Answers => match refusal(&start, &headers, &body) {
                Some(status) => (status, "null".to_owned()),
                None => ("200 OK", answer(&serde_json::from_slice(&body).unwrap()).to_string()),
            },
        };
        let length = answer.len();
        let head = format!("HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: {length}\r\n\r\n");
        if stream
            .get_mut()
            .write_all(format!("{head}{answer}").as_bytes())
            .and_then(|()| stream.get_mut().flush())
            .is_err()
        {
            return;
        }
    }
}

/// The first line, the headers and the body of a request; `None` if the connection has ended.
fn request(stream: &mut impl BufRead) -> Option<(String, HashMap<String, String>, Vec<u8>)> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let start = line()?;
    let mut headers = HashMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some((start, headers, body))
}

/// The status for a request that is not as it should be.
fn refusal(start: &str, headers: &HashMap<String, String>, body: &[u8]) -> Option<&'static str> {
    let timestamp = &headers["turnserver-timestamp"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = headers["turnserver-signature"].strip_prefix("sha256=").unwrap();
    let signature: Vec<u8> =
        (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&[timestamp.as_bytes(), b".", body].concat());
    if mac.verify_slice(&signature).is_err() || now.abs_diff(timestamp.parse().unwrap()) > 60 {
        return Some("401 Unauthorized");
    }
    let is_right = start == "POST /turn?v=1 HTTP/1.1" && headers["content-type"] == "application/json";
    (!is_right).then_some("400 Bad Request")
}

fn answer(question: &Value) -> Value {
    match question["question"].as_str().unwrap() {
        "user" if question["realm"] == "north.gov" && question["user"] == "gorst" => {
            json!({"password": "hero"})
        }
        "secrets" if question["realm"] == "north.gov" => json!([{"secret": "logen", "name": "blue"}, {"secret": "x"}]),
        "token-key" if question["kid"] == "union" => json!({"key": "YWJj", "algorithm": "A128GCM", "lifetime": 60}),
        "realms" => json!([{"realm": "north.gov", "max-bps": 1000, "total-quota": 0}]),
        "peer-rules" => json!({"denied-peer-ip": ["10.0.0.0/8"]}),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn a_service_is_asked_for_everything_over_few_connections() {
    let service = Service::start(None);
    let stores = Stores::open(&store_settings(&service.table(""))).unwrap();
    let gorst = stores.user("north.gov", "gorst").await.unwrap().unwrap();
    let key = sha256_key("gorst", "north.gov", "hero").unwrap();
    assert_eq!(gorst.sha256.as_ref().unwrap().as_bytes(), key.as_bytes());
    assert!(stores.user("crinna.org", "gorst").await.unwrap().is_none());
    let secrets = stores.secrets("north.gov").await.unwrap();
    assert_eq!((secrets[0].name.as_deref(), secrets[0].value.as_str()), (Some("blue"), "logen"));
    assert_eq!((secrets[1].name.as_deref(), secrets.len()), (None, 2));
    let token = stores.token_key("union").await.unwrap().unwrap();
    assert_eq!((token.key.as_slice(), token.algorithm), (b"abc".as_slice(), TokenAlgorithm::A128Gcm));
    assert_eq!(token.lifetime, Some(Duration::from_secs(60)));
    assert!(stores.token_key("other").await.unwrap().is_none());
    let realm = RealmOptions {
        realm: "north.gov".to_owned(),
        max_bytes_per_second: Some(1_000),
        total_quota: None,
        user_quota: None,
    };
    assert_eq!(*stores.realms().await.unwrap(), [realm]);
    assert_eq!(stores.peer_rules("r").await.unwrap().denied, ["10.0.0.0/8".parse().unwrap()]);
    assert!(stores.secrets("r").await.unwrap().is_empty());
    // One for the probe at the start, at most, and one for one question after the other.
    assert!(service.connections.load(Ordering::Relaxed) <= 2);
}

#[tokio::test]
async fn a_service_with_another_secret_refuses() {
    let service = Service::start(None);
    let table = service.table("").replace(SECRET, "another secret, just as long");
    let stores = Stores::open(&store_settings(&table)).unwrap();
    wait_until("an outage", async || stores.counts().outages == 1).await;
    assert_eq!(stores.user("north.gov", "gorst").await.unwrap_err(), Unavailable::Resting);
}

#[tokio::test]
async fn a_service_may_fail_and_hang_and_recover() {
    let service = Service::start(None);
    let more = "timeout = \"500ms\"\ncache-entries = 0\nmax-failures = 1\nmax-pause = \"500ms\"\n";
    let stores = Stores::open(&store_settings(&service.table(more))).unwrap();
    wait_until("a user", async || matches!(stores.user("north.gov", "gorst").await, Ok(Some(_)))).await;
    for (manner, expected) in [
        (Manner::Fails, Unavailable::Failed),
        (Manner::Redirects, Unavailable::Failed),
        (Manner::Hangs, Unavailable::TimedOut),
    ] {
        service.does(manner);
        let start = Instant::now();
        assert_eq!(stores.user("north.gov", "gorst").await.unwrap_err(), expected, "{manner:?}");
        assert_eq!(stores.user("north.gov", "gorst").await.unwrap_err(), Unavailable::Resting, "{manner:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{manner:?}");
        service.does(Manner::Answers);
        wait_until("the store is well again", async || !stores.counts().resting).await;
        assert!(stores.user("north.gov", "gorst").await.unwrap().is_some(), "{manner:?}");
    }
    service.does(Manner::Babbles);
    assert_eq!(stores.user("north.gov", "gorst").await.unwrap_err(), Unavailable::Malformed);
    assert!(!stores.counts().resting);
}

#[tokio::test]
async fn a_service_over_tls_is_trusted_by_the_authority_that_is_given() {
    let (ours, other) = (Authority::new(), Authority::new());
    let service = Service::start(Some(ours.issue(&["localhost"])));
    let folder = tempfile::tempdir().unwrap();
    for (authority, is_trusted) in [(&ours, true), (&other, false)] {
        let file = folder.path().join(format!("{is_trusted}.pem"));
        fs::write(&file, authority.pem()).unwrap();
        let url = format!("https://localhost:{}/turn?v=1", service.address.port());
        let table = format!("type = \"http\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nca = {:?}\n", text(&file));
        let stores = Stores::open(&store_settings(&table)).unwrap();
        if is_trusted {
            assert!(stores.user("north.gov", "gorst").await.unwrap().is_some());
        } else {
            wait_until("an outage", async || stores.counts().outages == 1).await;
        }
    }
}

/// Clients log in with what the service says, and are refused fast while it fails.
#[test]
fn users_of_a_service_log_in() {
    let service = Service::start(None);
    let server = server(&service.table("timeout = \"1s\"\ncache-entries = 0\nmax-failures = 1\nmax-pause = \"1s\"\n"));
    assert_eq!(log_in(&server, "udp", "gorst", "hero"), Ok(()));
    assert_eq!(log_in(&server, "tcp", "gorst", "villain"), Err(Refused(401)));
    assert_eq!(log_in(&server, "tcp", "nobody", "hero"), Err(Refused(401)));
    for manner in [Manner::Fails, Manner::Hangs, Manner::Redirects, Manner::Babbles] {
        service.does(manner);
        let began = Instant::now();
        assert_eq!(log_in(&server, "udp", "gorst", "hero"), Err(Refused(500)), "{manner:?}");
        assert!(began.elapsed() < PATIENCE / 4, "{manner:?} after {:?}", began.elapsed());
        assert_eq!(log_in(&server, "udp", "own", "of the configuration"), Ok(()), "{manner:?}");
        service.does(Manner::Answers);
        let deadline = Instant::now() + PATIENCE;
        while log_in(&server, "tcp", "gorst", "hero").is_err() {
            assert!(Instant::now() < deadline, "{manner:?}");
        }
    }
    server.stop();
}
