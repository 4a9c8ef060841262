//! DTLS 1.2 by OpenSSL. The only place that knows it.
//!
//! rustls has no DTLS. OpenSSL takes RSA and ECDSA chains, and its `DTLSv1_listen` begins an association in the middle, after a
//! cookie exchange of which it has kept nothing; the `openssl` crate does not offer that function, so it is declared here.
//!
//! Datagrams pass through a [`Wire`], which the crate makes a BIO of: each read takes one datagram, each write is one.

#![allow(unsafe_code)]

use std::{
    ptr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use foreign_types::ForeignTypeRef;
use libc::{c_int, c_void, timeval};
use openssl::{
    error::ErrorStack,
    pkey::{Id, PKey, Private},
    ssl::{
        AlpnError, ErrorCode, NameType, SniError, Ssl, SslCipherRef, SslContext, SslContextBuilder, SslMethod,
        SslOptions, SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion, select_next_proto,
    },
    stack::Stack,
    x509::{X509, store::X509StoreBuilder},
};

use super::{Broken, Handshake, Read, Wire};
use crate::{config::settings, relay::tls};

// SAFETY: as OpenSSL 1.1.1 and later declare them (openssl/ssl.h, openssl/bio.h). The address is a `BIO_ADDR`, which only OpenSSL
// looks into.
unsafe extern "C" {
    fn DTLSv1_listen(ssl: *mut openssl_sys::SSL, client: *mut c_void) -> c_int;
    fn BIO_ADDR_new() -> *mut c_void;
    fn BIO_ADDR_free(address: *mut c_void);
}

/// `DTLS_CTRL_GET_TIMEOUT` and `DTLS_CTRL_HANDLE_TIMEOUT`, behind `DTLSv1_get_timeout` and `DTLSv1_handle_timeout`.
const GET_TIMEOUT: c_int = 73;
const HANDLE_TIMEOUT: c_int = 74;
/// `SSL_CTRL_CHAIN_CERT`, behind `SSL_CTX_add1_chain_cert`.
const CHAIN_CERT: c_int = 89;

/// The longest datagram of a handshake: any path takes it, IPv6 and a tunnel or two included (RFC 8200 §5: 1280 with headers).
const HANDSHAKE_MTU: u32 = 1200;
/// Ephemeral keys and authenticated encryption only, as in TLS here (BCP 195; RFC 8489 §6.2.3).
const SUITES: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

/// What the suites add to a record: a nonce of 8 bytes (RFC 5288 §3) and a tag of 16; no nonce (RFC 7905 §2) and a tag.
const AES_GCM_ADDS: usize = 8 + 16;
const CHACHA20_ADDS: usize = 16;

/// The names of ALPN (RFC 7443 §2), each after its length.
const PROTOCOLS: &[u8] = b"\x09stun.turn\x12stun.nat-discovery";

/// What DTLS is spoken with, one for all workers, so that a client may resume its session on any of them. It keeps no
/// sessions: clients do, in tickets that only this process can read.
pub(in crate::relay) struct Context {
    /// For clients that name no host that there is a certificate for.
    first: SslContext,
    /// The contexts know these weakly.
    _all: Arc<Contexts>,
}

/// By certificate, with its names; filled when all are made.
type Contexts = OnceLock<Vec<(Vec<String>, SslContext)>>;

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// A certificate with its chain and key, as OpenSSL has them.
struct Certified {
    names: Vec<String>,
    chain: Vec<X509>,
    key: PKey<Private>,
}

impl Context {
    /// # Errors
    /// What OpenSSL does not like about the certificates.
    pub(in crate::relay) fn new(settings: &settings::Tls) -> Result<Self, String> {
        let mut certified = Vec::with_capacity(settings.certificates.len());
        for certificate in &settings.certificates {
            let read = || -> Result<Certified, ErrorStack> {
                Ok(Certified {
                    names: certificate.names.clone(),
                    chain: certificate.chain.iter().map(|der| X509::from_der(der)).collect::<Result<_, _>>()?,
                    key: PKey::private_key_from_der(certificate.key.0.secret_der())?,
                })
            };
            certified.push(read().map_err(|error| format!("{}: {error}", certificate.cert.display()))?);
        }
        let all: Arc<Contexts> = Arc::default();
        let mut contexts = Vec::with_capacity(certified.len());
        for (at, certificate) in settings.certificates.iter().enumerate() {
            let context = context(settings, &certified, at, Arc::downgrade(&all))
                .map_err(|error| format!("{}: {error}", certificate.cert.display()))?;
            contexts.push((certificate.names.clone(), context));
        }
        let Some((_, first)) = contexts.first() else { return Err("there is no certificate".to_owned()) };
        let first = first.clone();
        // Set once, here.
        let _ = all.set(contexts);
        Ok(Self { first, _all: all })
    }

    /// Begins an association with a client whose ClientHello, in this datagram, has proved its address.
    pub(super) fn begin(&self, wire: &Wire, hello: &[u8]) -> Result<Association, String> {
        let begin = || -> Result<SslStream<Wire>, ErrorStack> {
            let mut ssl = Ssl::new(&self.first)?;
            ssl.set_mtu(HANDSHAKE_MTU)?;
            ssl.set_accept_state();
            SslStream::new(ssl, wire.clone())
        };
        let stream = begin().map_err(|error| error.to_string())?;
        let address = Address::new();
        wire.load(hello);
        // SAFETY: both pointers are valid and not null, and nobody else uses them during the call. OpenSSL reads and writes through
        // the BIO that `SslStream` has made, which lives as long as the stream, and writes the address that it was given.
        let listened = unsafe {
            openssl_sys::ERR_clear_error();
            DTLSv1_listen(stream.ssl().as_ptr(), address.0)
        };
        if listened == 1 { Ok(Association { stream, added: AES_GCM_ADDS }) } else { Err(ErrorStack::get().to_string()) }
    }
}

/// Where `DTLSv1_listen` writes the client's address, which is not known to it here.
struct Address(*mut c_void);

impl Address {
    fn new() -> Self {
        // SAFETY: takes nothing; null, for lack of memory, is ruled out below.
        let address = unsafe { BIO_ADDR_new() };
        // Without memory for 28 bytes the process would have been ended by its own allocator long before.
        assert!(!address.is_null(), "out of memory");
        Self(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        // SAFETY: came from `BIO_ADDR_new`, and is freed once.
        unsafe { BIO_ADDR_free(self.0) };
    }
}

/// What clients get who are shown this certificate. Where others of another kind of key (ECDSA, RSA) stand for one of its names,
/// or at least for any, OpenSSL chooses what the client can check.
fn context(
    settings: &settings::Tls,
    certified: &[Certified],
    at: usize,
    all: Weak<Contexts>,
) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::dtls_server())?;
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_cipher_list(SUITES)?;
    builder.set_options(
        SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_QUERY_MTU
            | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Tickets of clients that have shown a certificate are refused without one.
    builder.set_session_id_context(b"turn")?;
    // `hello.rs` has checked it, or the ClientHello would not have come here.
    builder.set_cookie_verify_cb(|_, _| true);
    builder.set_alpn_select_callback(|_, offered| select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL));
    builder.set_servername_callback(move |ssl, _| {
        let asked = ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
        let (Some(host), Some(all)) = (asked, all.upgrade()) else { return Ok(()) };
        let named =
            all.get().into_iter().flatten().find(|(names, _)| names.iter().any(|name| tls::covers(name, &host)));
        named.map_or(Ok(()), |(_, context)| ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL))
    });
    if let Some(clients) = &settings.clients {
        verify_clients(&mut builder, clients)?;
    }
    let kind = |certified: &Certified| certified.key.id();
    let mut kinds: Vec<Id> = Vec::new();
    let own = &certified[at];
    let shares_a_name = |other: &&Certified| other.names.iter().any(|name| own.names.contains(name));
    let others = certified.iter().filter(shares_a_name).chain(certified);
    for certified in std::iter::once(own).chain(others) {
        if !kinds.contains(&kind(certified)) {
            kinds.push(kind(certified));
            add(&mut builder, certified)?;
        }
    }
    Ok(builder.build())
}

/// Adds a certificate with its chain and key, beside those of other kinds.
fn add(builder: &mut SslContextBuilder, certified: &Certified) -> Result<(), ErrorStack> {
    let Some((own, chain)) = certified.chain.split_first() else { return Ok(()) };
    builder.set_certificate(own)?;
    builder.set_private_key(&certified.key)?;
    for certificate in chain {
        // SAFETY: both pointers are valid; with 1 OpenSSL takes a reference of its own to the certificate, and adds it to the chain
        // of the one that was set last.
        let added = unsafe {
            openssl_sys::SSL_CTX_ctrl(builder.as_ptr(), CHAIN_CERT, 1, certificate.as_ptr().cast::<c_void>())
        };
        if added != 1 {
            return Err(ErrorStack::get());
        }
    }
    builder.check_private_key()
}

fn verify_clients(builder: &mut SslContextBuilder, clients: &settings::ClientCa) -> Result<(), ErrorStack> {
    let (mut store, mut names) = (X509StoreBuilder::new()?, Stack::new()?);
    for root in &clients.roots {
        let root = X509::from_der(root)?;
        names.push(root.subject_name().to_owned()?)?;
        store.add_cert(root)?;
    }
    builder.set_cert_store(store.build());
    builder.set_client_ca_list(names);
    let required = if clients.required { SslVerifyMode::FAIL_IF_NO_PEER_CERT } else { SslVerifyMode::empty() };
    builder.set_verify(SslVerifyMode::PEER | required);
    Ok(())
}

/// One client's keys and numbers. All its calls take what the wire has been loaded with, and leave what is to be sent on it.
#[derive(Debug)]
pub(super) struct Association {
    stream: SslStream<Wire>,
    /// What encryption adds to a record.
    added: usize,
}

impl Association {
    /// Goes on with the handshake.
    pub(super) fn handshake(&mut self) -> Handshake {
        forget_errors();
        match self.stream.accept() {
            Ok(()) => {
                let suite = self.stream.ssl().current_cipher().map_or("", SslCipherRef::name);
                self.added = if suite.contains("CHACHA20") { CHACHA20_ADDS } else { AES_GCM_ADDS };
                Handshake::Done
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Handshake::Unfinished,
            Err(error) => Handshake::Failed(broken(&error)),
        }
    }

    /// Takes one message.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Read {
        forget_errors();
        match self.stream.ssl_read(into) {
            Ok(len) => Read::Message(len),
            Err(error) if error.code() == ErrorCode::WANT_READ => Read::Nothing,
            Err(_) => Read::Closed,
        }
    }

    /// The shortest that a record of the client can be after the handshake.
    pub(super) const fn shortest_record(&self) -> usize {
        self.added
    }

    /// Makes a record of a message; whether it could.
    pub(super) fn write(&mut self, message: &[u8]) -> bool {
        forget_errors();
        self.stream.ssl_write(message).is_ok_and(|len| len == message.len())
    }

    /// When the last flight of messages is to be sent again, if it is not answered before.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let mut left = timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the stream's pointer is valid; this control writes one `timeval`, which there is room for.
        let running = unsafe {
            openssl_sys::SSL_ctrl(self.stream.ssl().as_ptr(), GET_TIMEOUT, 0, ptr::from_mut(&mut left).cast::<c_void>())
        };
        let seconds = u64::try_from(left.tv_sec).unwrap_or(0);
        let micros = u64::try_from(left.tv_usec).unwrap_or(0);
        (running == 1).then(|| Duration::from_secs(seconds) + Duration::from_micros(micros))
    }

    /// Sends the last flight again if its time has come; false if that was tried often enough.
    pub(super) fn retransmit(&mut self) -> bool {
        forget_errors();
        // SAFETY: the stream's pointer is valid; this control takes no argument.
        unsafe { openssl_sys::SSL_ctrl(self.stream.ssl().as_ptr(), HANDLE_TIMEOUT, 0, ptr::null_mut()) >= 0 }
    }

    /// Says goodbye (close_notify).
    pub(super) fn close(&mut self) {
        forget_errors();
        // An association that has failed cannot, and is gone either way.
        let _ = self.stream.shutdown();
    }
}

/// OpenSSL's reasons for alerts that were received are this and the alert's number.
const ALERT_OFFSET: i32 = 1000;

/// What OpenSSL says of a handshake: its reason alone, as the rest is about its own insides.
fn broken(error: &openssl::ssl::Error) -> Broken {
    let last = error.ssl_error().and_then(|stack| stack.errors().last());
    let Some(last) = last else { return Broken { alert: None, error: error.to_string() } };
    let alert = u8::try_from(last.reason_code() - ALERT_OFFSET).ok();
    Broken { alert, error: last.reason().map_or_else(|| last.to_string(), str::to_owned) }
}

/// OpenSSL takes what an earlier call has left in the thread's queue for the error of this one.
fn forget_errors() {
    // SAFETY: takes nothing, and touches nothing but this thread's queue.
    unsafe { openssl_sys::ERR_clear_error() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_alpn_are_those_of_tls() {
        let counted = tls::PROTOCOLS.map(|name| [&[u8::try_from(name.len()).unwrap()], name].concat());
        assert_eq!(PROTOCOLS, counted.concat());
    }
}
