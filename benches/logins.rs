//! What one login costs: an Allocate is parsed, its user is found, its MAC and its nonce are checked, up to the question for relay
//! sockets. By mechanism; a second of a core is so many logins.

use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, Throughput, criterion_group};
use turnserver::{
    auth::{
        directory::Directory,
        key::{LongTermKey, md5_key, sha256_key},
        mint::mint,
    },
    config::{self, Host, Settings},
    stun::{AttributeType, Class, IntegrityKey, MacAlgorithm, MessageWriter, Method, PasswordAlgorithm, TransactionId},
    turn::{
        Answer, Client, ConnectionIds, Family, FiveTuple, Policy, REPLY_LEN, Realm, RealmId, Route, Rules, Server,
        Step, Time, Transport, Unauthenticated,
    },
};

struct Anything;

impl Policy for Anything {
    fn permits(&self, _: RealmId, _: SocketAddr) -> bool {
        true
    }

    fn permits_connection(&self, _: RealmId, _: SocketAddr) -> bool {
        true
    }

    fn permits_ip(&self, _: RealmId, _: IpAddr) -> bool {
        true
    }

    fn admits(&mut self, _: Unauthenticated, _: IpAddr, _: Time) -> bool {
        true
    }
}

const REALM: &str = "example.org";
const NOW: Time = Time(1_000_000);
const TOKEN_KEY: &[u8; 32] = b"01234567890123456789012345678901";

/// A realm with a thousand users, so many secrets, and a token key.
fn settings(secrets: usize) -> Settings {
    use std::fmt::Write as _;
    let mut text = format!(
        "[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nrealm = \"{REALM}\"\nserver-name = \"{REALM}\"\n[[auth.token-key]]\n\
         kid = \"north\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n"
    );
    for user in 0..1000 {
        let _ = write!(text, "[[auth.user]]\nname = \"user{user}\"\npassword = \"password of {user}\"\n");
    }
    for secret in 0..secrets {
        let _ = write!(text, "[[auth.secret]]\nname = \"{secret}\"\nsecret = \"the {secret}th of the secrets\"\n");
    }
    config::parse(&text, "bench.toml", &Host::detect().unwrap()).unwrap().settings
}

fn rules(directory: &Directory) -> Rules {
    let realm = RealmId::DEFAULT;
    Rules {
        realms: vec![Realm {
            name: REALM.into(),
            password_algorithms: directory.offered(realm),
            user_hashes: directory.takes_hashes(realm),
            third_party: directory.third_party(realm).map(str::to_owned),
        }],
        anonymous: false,
        nonce_lifetime: Duration::from_secs(3600),
        default_lifetime: Duration::from_secs(600),
        max_lifetime: Duration::from_secs(3600),
        permission_lifetime: Duration::from_secs(300),
        channel_lifetime: Duration::from_secs(600),
        max_permissions: 100,
        max_channels: 100,
        default_family: Some(Family::V4),
        udp_relaying: true,
        tcp_relaying: false,
        max_connections: 100,
        bind_timeout: Duration::from_secs(30),
        connection_ids: ConnectionIds { worker: 0, workers: 1 },
        families: vec![Family::V4],
        software: None,
        always_fingerprint: false,
        dont_fragment: true,
        rfc3489: false,
        wide_channels: false,
        redirect: None,
        discovery: Vec::new(),
        mobility: None,
    }
}

/// Who logs in, and how.
struct Login {
    name: String,
    key: LongTermKey,
    algorithm: Option<PasswordAlgorithm>,
    token: Option<Vec<u8>>,
}

/// A server with the client of a login, and its request.
struct Gate {
    directory: Directory,
    server: Server,
    client: Client,
    reply: [u8; REPLY_LEN],
    wall: Duration,
}

impl Gate {
    fn new(settings: &Settings) -> Self {
        let directory = Directory::new(settings, false).unwrap();
        let server = Server::new(rules(&directory), Box::new(Anything), &[1; 32], [2; 32], 1);
        let (client, own) = (SocketAddr::from(([10, 1, 0, 1], 5000)), SocketAddr::from(([203, 0, 113, 1], 3478)));
        let tuple = FiveTuple { client, server: own, transport: Transport::Udp };
        let client = Client { tuple, route: Route(0), realm: RealmId::DEFAULT };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self { directory, server, client, reply: [0; REPLY_LEN], wall }
    }

    /// What the worker does with an Allocate; whether it gets as far as relay sockets.
    fn admits(&mut self, message: &[u8]) -> bool {
        let Self { directory, server, client, reply, wall } = self;
        let mut step = server.from_client(client, message, Answer::Unasked, reply, NOW);
        if let Step::Authenticate(query) = step {
            let credentials = directory.find(&query, *wall);
            let answer = Answer::Known { credentials: &credentials, more: false };
            step = server.from_client(client, message, answer, reply, NOW);
        }
        matches!(step, Step::Allocate(_))
    }

    fn request(&mut self, login: &Login) -> Vec<u8> {
        let challenge = allocate(|_| {});
        assert!(!self.admits(&challenge));
        let challenge = turnserver::stun::Message::parse(&self.reply[..reply_len(&self.reply)]).unwrap();
        let get = |attribute| challenge.get(attribute).unwrap();
        let (nonce, offered) = (get(AttributeType::NONCE), get(AttributeType::PASSWORD_ALGORITHMS));
        allocate(|writer| {
            writer.attribute(AttributeType::USERNAME, login.name.as_bytes());
            writer.attribute(AttributeType::REALM, REALM.as_bytes());
            writer.attribute(AttributeType::NONCE, nonce);
            if let Some(algorithm) = login.algorithm {
                writer.attribute(AttributeType::PASSWORD_ALGORITHMS, offered);
                writer.attribute(AttributeType::PASSWORD_ALGORITHM, &algorithm.encode());
            }
            if let Some(token) = &login.token {
                writer.attribute(AttributeType::ACCESS_TOKEN, token);
            }
            let mac = if login.algorithm.is_some() { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 };
            writer.integrity(&IntegrityKey::new(mac, login.key.as_bytes()));
        })
    }
}

/// The length of the message at the beginning of a buffer.
fn reply_len(reply: &[u8]) -> usize {
    20 + usize::from(u16::from_be_bytes([reply[2], reply[3]]))
}

fn allocate(attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Request, TransactionId([1; 12]));
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    attributes(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

fn with_password(name: &str, password: &str, algorithm: Option<PasswordAlgorithm>) -> Login {
    let key = match algorithm {
        Some(PasswordAlgorithm::Sha256) => sha256_key(name, REALM, password),
        _ => md5_key(name, REALM, password),
    };
    Login { name: name.to_owned(), key: key.unwrap(), algorithm, token: None }
}

/// A time-limited login by the last of the secrets.
fn time_limited(settings: &Settings, wall: Duration) -> Login {
    let mechanisms = &settings.auth.mechanisms;
    let secret = mechanisms.secrets.last().unwrap();
    let minted = mint(secret, &mechanisms.rest, "alice", Duration::from_secs(3600), wall).unwrap();
    with_password(&minted.username, &minted.password, None)
}

fn with_token(wall: Duration) -> Login {
    let (mac_key, nonce) = ([7; 20], [3; 12]);
    let mut block = [&[0, 20], &mac_key[..], &(wall.as_secs() << 16).to_be_bytes(), &3600u32.to_be_bytes()].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, TOKEN_KEY).unwrap());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(REALM), &mut block).unwrap();
    let token = Some([&[0, 12], &nonce[..], &block].concat());
    Login { name: "north".to_owned(), key: LongTermKey::Token(mac_key.into()), algorithm: None, token }
}

fn logins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("login");
    group.throughput(Throughput::Elements(1));
    for secrets in [1, 8, 32] {
        let settings = settings(secrets);
        let mut gate = Gate::new(&settings);
        let mut cases = vec![(format!("time-limited, {secrets} secrets"), time_limited(&settings, gate.wall), true)];
        if secrets == 1 {
            let password = "password of 500";
            cases.extend([
                ("password, MD5 and SHA-1".to_owned(), with_password("user500", password, None), true),
                (
                    "password, SHA-256".to_owned(),
                    with_password("user500", password, Some(PasswordAlgorithm::Sha256)),
                    true,
                ),
                ("access token".to_owned(), with_token(gate.wall), true),
                ("wrong password".to_owned(), with_password("user500", "guess", None), false),
                ("unknown user".to_owned(), with_password("nobody", "guess", None), false),
            ]);
        }
        for (name, login, good) in cases {
            let request = gate.request(&login);
            assert_eq!(gate.admits(&request), good, "{name}");
            group.bench_function(name, |bencher| bencher.iter(|| gate.admits(black_box(&request))));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = logins
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
