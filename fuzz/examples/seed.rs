//! Writes the seed corpora: sample messages, streams of several, and for each other target a few inputs that are nearly right or are.

use std::{fs, io, path::Path};

#[path = "../../tests/stun/mod.rs"]
mod stun;

use stun::samples;

/// Steps of the engine's exercise, by the number of each in `play.rs`.
const FIRST_STEPS: u8 = 23;
const REQUEST: u8 = 0;
const INDICATION: u8 = 8;
const CHANNEL_DATA: u8 = 10;
const FROM_PEER: u8 = 12;
const FROM_ICMP: u8 = 14;
const PASS: u8 = 15;
const CONNECTIONS: u8 = 19;
const END: u8 = 20;
const RELOAD: u8 = 21;
const CIRCUMSTANCES: u8 = 22;

const COTURN_LISTS: &str = "\x01\x00use-auth-secret\nstatic-auth-secret=north\nstatic-auth-secret=south\nrealm=example.org\n\
    denied-peer-ip=10.0.0.0-10.255.255.255\ndenied-peer-ip=2001:db8::1\nallowed-peer-ip=10.1.2.3\nalternate-server=192.0.2.9:3478\n\
    listening-ip=127.0.0.1\nlistening-ip=::1\naux-server=192.0.2.7:33478\nexternal-ip=192.0.2.7/10.0.0.5\nserver-name=x\noauth\n\
    mysql-userdb=\"host=db dbname=turn user=turn password=x connect_timeout=30\"\nprometheus-port=9641\ntotal-quota=100\n\
    max-bps=64000\nbps-capacity=0\nstale-nonce=600\n";

const COTURN_ODD: &str = "\x02\x01 -listening-port 3478 #x\nuser alice:with space:colon\nrealm = \"quoted\"\nsyslog = off\nno-udp=yes\n\
    ;cert=/nonexistent/cert.pem\nverbose=maybe\nmax-port=99999\nunknown-key=1\nproc-user=turnserver\nsimple-log\n";

fn main() -> io::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let directory = top.join("corpus").join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{name}.bin")), bytes)
    };
    let samples = samples::all();
    for (name, bytes) in &samples {
        put("message", name, bytes)?;
    }
    for (number, several) in samples.chunks(4).enumerate() {
        let stream: Vec<u8> = several.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        put("frame", &format!("stream-{number}"), &[&[3, 1, 7, 40], &stream[..]].concat())?;
    }

    put("proxy", "line-v4", b"PROXY TCP4 192.0.2.1 192.0.2.10 50000 3478\r\n\x16\x03\x01")?;
    put("proxy", "line-v6", b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.10 1 65535\r\n")?;
    put("proxy", "line-unknown", b"PROXY UNKNOWN whatever it is\r\n")?;
    let v2 = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", rest].concat();
    put("proxy", "binary-v4", &v2(b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x0a\xc3\x50\x0d\x96\0\x01"))?;
    put("proxy", "binary-v6", &v2(&[&b"\x21\x21\0\x26"[..], &[0x20; 38], b"\0\x01"].concat()))?;
    put("proxy", "binary-local", &v2(b"\x20\0\0\x03abc"))?;

    let hello = |session: usize, cookie: usize| {
        let (session, cookie) = (vec![1; session], vec![9; cookie]);
        let counted = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)][..], bytes].concat();
        let body =
            [&[0xFE, 0xFD][..], &[5; 32], &counted(&session)[..], &counted(&cookie)[..], &[0, 2, 0xC0, 0x2F, 1, 0]]
                .concat();
        let len = u8::try_from(body.len()).unwrap_or(u8::MAX);
        let record = [22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 7, 0, len.saturating_add(12)];
        [&record[..], &[1, 0, 0, len, 0, 0, 0, 0, 0, 0, 0, len], &body].concat()
    };
    put("dtls", "hello", &hello(0, 0))?;
    put("dtls", "hello-with-cookie", &hello(8, 16))?;
    let record = |epoch, len: u8| {
        [&[23, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 0, 0, len][..], &[7; 40][..usize::from(len)]].concat()
    };
    put("dtls", "records", &[record(0, 3), record(1, 30), record(1, 2)].concat())?;

    for (name, text) in [
        ("expiry-user", "\x001700003600:alice"),
        ("expiry", "\x001700003600"),
        ("user-expiry", "\x00alice:1700003600"),
        ("tenant", "\x001700003600:north:alice"),
        ("other-separator", "\x02alice/1700003600"),
        ("realm", "\x00bob@south.gov"),
        ("wide", "\x00\u{ff21}lice \u{e9}"),
        ("long-time", "\x0099999999999999999999:x"),
    ] {
        put("rest", name, text.as_bytes())?;
    }
    let token = |key: &[u8], seconds: u64, lifetime: u32| {
        let len = u16::try_from(key.len()).unwrap_or_default().to_be_bytes();
        [&len[..], key, &(seconds << 16).to_be_bytes(), &lifetime.to_be_bytes()].concat()
    };
    put("token", "good", &token(b"ZksjpweoixXmvn67534m", 1_700_000_000, 3600))?;
    put("token", "long-key", &token(&[7; 64], 1_699_999_990, 4))?;
    put("token", "over", &token(b"ZksjpweoixXmvn67534m", 1_600_000_000, 3600))?;
    put("token", "short-key", &token(b"short", 1_700_000_000, u32::MAX))?;

    for entry in fs::read_dir(top.join("../config"))? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Without what explains it.
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end());
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        put("toml", &name, lines.join("\n").as_bytes())?;
    }
    for entry in fs::read_dir(top.join("../tests/import"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = fs::read_to_string(&path)?;
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
            put("coturn", &name, format!("\x01\x00{}", lines.join("\n")).as_bytes())?;
        }
    }
    put("coturn", "lists", COTURN_LISTS.as_bytes())?;
    put("coturn", "odd", COTURN_ODD.as_bytes())?;

    for (name, answer) in [
        ("user-password", r#"{"password":"p"}"#),
        (
            "user-keys",
            r#"{"key":"bc807ee29df3c9ffa736523fb2c4e8ee","key-sha256":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"}"#,
        ),
        ("secrets", r#"[{"secret":"north","name":"blue"},{"secret":"x"}]"#),
        (
            "token-key",
            r#"{"key":"SEdrajMyS0pHaXV5MDk4c2RmYXFiTmpPaWF6NzE5MjM=","algorithm":"A256GCM","timestamp":0,"lifetime":0,"realm":"r"}"#,
        ),
        ("realms", r#"[{"realm":"example.org","user-quota":10,"total-quota":1000,"max-bps":500000}]"#),
        ("peer-rules", r#"{"allowed-peer-ip":["10.0.0.0/8"],"denied-peer-ip":["10.1.0.0-10.1.0.255","::1"]}"#),
        ("null", "null"),
        ("hmackey", "0xbc807ee29df3c9ffa736523fb2c4e8ee  "),
        ("ranges", "10.0.0.1\n2001:db8::/32\n10.0.0.1-10.0.0.9"),
        ("number", "12"),
    ] {
        put("answers", name, format!("example.org\0alice\0{answer}").as_bytes())?;
    }

    for (name, method, target, body) in [
        ("live", "GET", "/live", ""),
        ("metrics", "GET", "/metrics", ""),
        ("page", "GET", "/", ""),
        ("sessions", "GET", "/v1/sessions?limit=5&user=alice%40x&realm=example.org", ""),
        ("session", "GET", "/v1/sessions/00000000000000ff", ""),
        ("revoke", "DELETE", "/v1/sessions?user=alice&realm=example.org", ""),
        ("users", "GET", "/v1/users?limit=2", ""),
        ("credentials", "POST", "/v1/credentials", r#"{"user":"alice","ttl":60}"#),
        ("credentials-query", "GET", "/v1/credentials?service=turn&username=alice&ttl=60", ""),
        ("configuration", "GET", "/v1/configuration", ""),
        ("events", "GET", "/v1/events", ""),
        ("explain", "GET", "/v1/explain?user=alice&ip=192.0.2.1", ""),
        ("log-level", "PUT", "/v1/log-level", r#"{"level":"debug"}"#),
        ("drain", "POST", "/v1/drain", r#"{"timeout":1.5}"#),
        ("store", "POST", "/v1/store/changes", r#"{"realm":"example.org","user":"alice"}"#),
    ] {
        let length = body.len();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        put("management", name, format!("\x01{request}").as_bytes())?;
    }
    let browser = "GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:9641\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n\r\n";
    put("management", "browser", format!("\0{browser}").as_bytes())?;
    let operator =
        "GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-that-nobody-guesses\r\n\r\n";
    put("management", "operator", format!("\0{operator}").as_bytes())?;
    put(
        "management",
        "chunked",
        b"\x01POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{}  \r\n0\r\n\r\n",
    )?;

    // Rules, store; then steps. The first client of each user, its first peer.
    let begin = |rules: u16, store: u8| [&rules.to_be_bytes()[..], &[store]].concat();
    let call: &[u8] = &[
        FIRST_STEPS,
        0,
        0,
        2,
        INDICATION,
        0,
        0,
        0,
        0,
        20,
        CHANNEL_DATA,
        0,
        0,
        0,
        30,
        0,
        FROM_PEER,
        0,
        0,
        0,
        0,
        50,
        FROM_ICMP,
        0,
        0,
        0,
        3,
        4,
        0,
        0,
        5,
        0,
        PASS,
        2,
        1,
        PASS,
        1,
        1,
    ];
    put("engine", "call", &[&begin(0, 0), call].concat())?;
    put("engine", "call-with-store", &[&begin(0, 1), call].concat())?;
    put("engine", "call-old-clients", &[&begin(0x0018, 0), call].concat())?;
    let moves: &[u8] = &[
        FIRST_STEPS,
        0,
        0,
        0,
        REQUEST,
        2,
        0,
        0,
        REQUEST,
        2,
        0,
        1,
        0,
        2,
        0,
        0,
        0,
        0,
        0,
        0,
        CHANNEL_DATA,
        2,
        0,
        0,
        30,
        0,
        FROM_PEER,
        0,
        0,
        0,
        0,
        9,
    ];
    put("engine", "moves", &[&begin(1, 0), moves].concat())?;
    let tcp: &[u8] = &[
        REQUEST,
        2,
        0,
        0,
        3,
        0,
        0,
        0,
        0,
        0,
        REQUEST,
        2,
        0,
        0,
        3,
        0,
        0,
        0,
        0,
        0,
        REQUEST,
        2,
        0,
        2,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        REQUEST,
        2,
        0,
        4,
        0,
        0,
        0,
        0,
        0,
        0,
        CONNECTIONS,
        0,
        0,
        0,
        REQUEST,
        4,
        0,
        0,
        0,
        0,
        0,
        0,
        CONNECTIONS,
        1,
        0,
        0,
        0,
        REQUEST,
        6,
        0,
        5,
        0,
        0,
        0,
        0,
        PASS,
        1,
        1,
    ];
    put("engine", "tcp", &[&begin(0, 0), tcp].concat())?;
    let changes: &[u8] = &[
        FIRST_STEPS,
        0,
        2,
        1,
        FIRST_STEPS,
        1,
        0,
        2,
        RELOAD,
        0,
        32,
        1,
        INDICATION,
        0,
        2,
        0,
        0,
        9,
        CIRCUMSTANCES,
        0,
        0,
        END,
        1,
        0,
        RELOAD,
        0,
        0,
        0,
        CIRCUMSTANCES,
        1,
        FIRST_STEPS,
        3,
        3,
        1,
        END,
        0,
        3,
    ];
    put("engine", "changes", &[&begin(0, 1), changes].concat())
}
