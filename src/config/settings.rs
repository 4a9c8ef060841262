//! The settings as the server uses them: typed, resolved, validated, immutable.
//!
//! Nothing here knows about TOML; [`super::load`] makes these values and every other room only reads them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;
use zeroize::Zeroizing;

use crate::auth::{
    credential::RealmId,
    rest::{RestNames, RestSecret},
    token::TokenAlgorithm,
};

/// Everything an operator can decide, resolved against this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where clients are served; at least one.
    pub listeners: Vec<Listener>,
    /// Where relayed transport addresses come from.
    pub relay: Relay,
    /// Who may use the relay.
    pub auth: Auth,
    /// Realms beside the one of `auth`; a [`RealmId`] above 0 is one more than an index of these.
    pub realms: Vec<Realm>,
    /// Where further users are kept, if anywhere.
    pub store: Option<Store>,
    /// Lifetimes of what the protocol creates.
    pub lifetimes: Lifetimes,
    /// How much one user, one allocation, one source may take.
    pub limits: Limits,
    /// Which peers may be reached.
    pub peers: Peers,
    /// Where new allocations are sent instead of being served (300), if anywhere.
    pub redirect: Option<Redirect>,
    /// NAT behaviour discovery, if it is offered.
    pub nat_discovery: Option<NatDiscovery>,
    /// Connections of clients over TCP.
    pub tcp: Tcp,
    /// What secures TLS and DTLS; there if a listener serves one of them.
    pub tls: Option<Tls>,
    /// Departures from the newest RFCs for the sake of old clients.
    pub compatibility: Compatibility,
    /// The process: threads and packet input/output.
    pub process: Process,
    /// Relaying in the kernel.
    pub offload: Offload,
    /// Where the server is watched and managed.
    pub management: Management,
    /// What is logged and how.
    pub log: Log,
}

/// One listening port with its addresses and transports (`[[listener]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Local addresses; may be unspecified (`0.0.0.0`, `::`).
    pub addresses: Vec<IpAddr>,
    /// UDP and TCP port, for what is secured, too; 0 lets the system choose (each address and transport its own; used by tests).
    pub port: u16,
    /// Serve UDP.
    pub udp: bool,
    /// Serve TCP.
    pub tcp: bool,
    /// Serve TLS over TCP; with `tcp` on the same port, told apart by the first byte.
    pub tls: bool,
    /// Serve DTLS over UDP; with `udp` on the same port, told apart by the first byte.
    pub dtls: bool,
    /// Networks of load balancers, whose TCP and TLS connections begin with a PROXY protocol header.
    pub proxies: Vec<IpNet>,
    /// The realm that clients are told here.
    pub realm: RealmId,
}

/// The relay side (`[relay]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Local addresses of relay sockets with the address that clients are told; at least one, never unspecified.
    pub addresses: Vec<RelayAddress>,
    /// How external addresses are found and judged.
    pub find_external: FindExternal,
    /// Lowest relay port (inclusive).
    pub min_port: u16,
    /// Highest relay port (inclusive).
    pub max_port: u16,
    /// `SO_RCVBUF`/`SO_SNDBUF` of each relay socket, bytes; `None` keeps the system's default.
    pub socket_buffer: Option<usize>,
    /// Family given to an Allocate without REQUESTED-ADDRESS-FAMILY (RFC 8656 §7.2 says IPv4).
    pub default_family: DefaultFamily,
    /// Relay UDP (`udp-relaying`); otherwise asking for it is forbidden.
    pub udp: bool,
    /// Relay TCP (RFC 6062, `tcp-relaying`).
    pub tcp: bool,
    /// Let allocations move to another 5-tuple of the client (RFC 8016).
    pub mobility: bool,
}

/// Who is asked what address the world sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindExternal {
    /// The relay addresses' external ones are to be found (`external-ip = "auto"`).
    pub auto: bool,
    /// STUN servers, which tell what they see (`stun-servers`).
    pub stun_servers: Vec<StunServer>,
    /// Where a cloud tells a machine about itself (`metadata-url`); `None`: nobody is asked.
    pub metadata: Option<Url>,
    /// How often all are asked again (`external-ip-interval`).
    pub interval: Duration,
}

/// A STUN server, by name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// `allocation-default-address-family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultFamily {
    /// IPv4, as RFC 8656 §7.2 requires.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// The family on which the client reached the server.
    Keep,
}

/// One local relay address and what the world sees of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// Address that relay sockets bind.
    pub local: IpAddr,
    /// Address that clients are told; equal to `local` unless `external-ip` maps it.
    pub external: IpAddr,
}

/// Who may (`[auth]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// REALM of the long-term credential mechanism.
    pub realm: String,
    /// Serve anyone without credentials.
    pub anonymous: bool,
    /// Static users.
    pub users: Vec<User>,
    /// What else lets users in.
    pub mechanisms: Mechanisms,
    /// What its users may take in place of what `[limits]` says; only a store has these.
    pub limits: Option<RealmLimits>,
    /// How long allocations outlive the credential that they were made with (`expiry-grace`).
    pub expiry_grace: Duration,
    /// What clients are told to reach this server by, beside credentials; empty: what the listeners and relay addresses say.
    pub uris: Vec<String>,
    /// Nonce lifetime (`stale-nonce`).
    pub stale_nonce: Duration,
}

/// What lets users into a realm who have no account in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// Secrets that time-limited credentials are made with; any of them will do, so that they can be changed one by one.
    pub secrets: Vec<RestSecret>,
    /// The form of the user names of such credentials.
    pub rest: RestNames,
    /// Keys that access tokens are encrypted with (RFC 7635).
    pub token_keys: Vec<TokenKey>,
    /// What authorization servers call this one; the realm if `None`.
    pub server_name: Option<String>,
}

/// A key of access tokens (`[[auth.token-key]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Its id, which clients send as USERNAME.
    pub kid: String,
    /// What tokens are encrypted with.
    pub algorithm: TokenAlgorithm,
    /// The key, at least as long as the algorithm needs.
    pub key: Secret<Zeroizing<Vec<u8>>>,
}

/// A further realm (`[[realm]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// Its name.
    pub name: String,
    /// Static users.
    pub users: Vec<User>,
    /// What else lets users in.
    pub mechanisms: Mechanisms,
    /// Peer rules in place of `[peers]`.
    pub peers: Option<Peers>,
    /// What its users may take in place of what `[limits]` says.
    pub limits: Option<RealmLimits>,
    /// Clients of some listener are told this realm; otherwise it is chosen by the user's name, or by what proves the user.
    pub announced: bool,
}

/// A static account (`[[auth.user]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User name as written; OpaqueString is applied by the auth room.
    pub name: String,
    /// What proves the user.
    pub secret: UserSecret,
}

/// What an account was configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSecret {
    /// A password; all keys derive from it.
    Password(Secret<Zeroizing<String>>),
    /// Keys computed beforehand for exactly this realm.
    Keys {
        /// MD5(name ":" realm ":" password).
        md5: Secret<Zeroizing<[u8; 16]>>,
        /// SHA-256(name ":" realm ":" password), if given.
        sha256: Option<Secret<Zeroizing<[u8; 32]>>>,
    },
}

/// A value that never shows in logs, errors or debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(pub T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Users and secrets that are kept elsewhere (`[store]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where.
    pub backend: StoreBackend,
    /// Connections at a time.
    pub connections: u32,
    /// What its guard holds it to.
    pub limits: StoreLimits,
}

/// Where users are kept (`type`). URLs hold passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreBackend {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgresql(Secret<Url>),
    /// A MySQL or MariaDB database.
    Mysql(Secret<Url>),
    /// A Redis database.
    Redis(Secret<Url>),
    /// A service that is asked by POST.
    Http(HttpStore),
}

impl StoreBackend {
    /// Its name as written in the file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgresql(_) => "postgresql",
            Self::Mysql(_) => "mysql",
            Self::Redis(_) => "redis",
            Self::Http(_) => "http",
        }
    }
}

/// A service that knows the users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpStore {
    /// Where it is asked.
    pub url: Secret<Url>,
    /// What requests are signed with.
    pub secret: Secret<Zeroizing<String>>,
    /// File of the certificates that vouch for it, and these; `None` for those that the system trusts.
    pub ca: Option<(PathBuf, Vec<CertificateDer<'static>>)>,
}

/// What a store is held to, and how long its answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// A question that is not answered within this time has failed.
    pub timeout: Duration,
    /// Questions that may wait at a time.
    pub max_questions: usize,
    /// Answers kept of each kind, found and not found apart.
    pub cache_entries: usize,
    /// For how long an answer is kept.
    pub cache_time: Duration,
    /// For how long it is kept that there is nothing.
    pub negative_cache_time: Duration,
    /// After so many failures in a row the store is left alone for a while.
    pub max_failures: u32,
    /// The longest such while.
    pub max_pause: Duration,
}

/// Lifetimes (`[lifetimes]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// Lifetime of an allocation that asks for none or less (RFC 8656 §3.2: 600 s).
    pub default_allocate: Duration,
    /// Longest lifetime granted (`max-allocate-lifetime`, RFC 8656 §7.2: 3600 s recommended).
    pub max_allocate: Duration,
    /// Permission lifetime (RFC 8656 §9: 300 s).
    pub permission: Duration,
    /// Channel binding lifetime (RFC 8656 §12: 600 s).
    pub channel: Duration,
    /// How long a reserved port (EVEN-PORT with R) waits for its Allocate (RFC 8656 §7.2: at least 30 s).
    pub reservation: Duration,
    /// How long a peer may take to accept the connection of a Connect (RFC 6062 §5.2: at least 30 s).
    pub connect: Duration,
    /// How long a peer connection waits for its ConnectionBind (RFC 6062 §5.2: 30 s).
    pub connection_bind: Duration,
}

/// Quotas and limits (`[limits]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of all realms together.
    pub total: HolderLimits,
    /// Of a realm and what is in it.
    pub realm: RealmLimits,
    /// How much of what flows into a bandwidth or packet bucket may come at once (`burst`).
    pub burst: Duration,
    /// New allocations per second and source prefix; `None` is unlimited.
    pub allocation_rate: Option<u32>,
    /// Where counts are kept that outlive the process; there if bytes per month are limited.
    pub state_directory: Option<PathBuf>,
    /// Permissions per allocation.
    pub permissions_per_allocation: usize,
    /// Channels per allocation.
    pub channels_per_allocation: usize,
    /// Peer connections per TCP allocation (RFC 6062).
    pub connections_per_allocation: usize,
    /// Errors before authentication per second and source prefix, 401 above all; `None` is unlimited.
    pub unauthorized_rate: Option<u32>,
    /// Binding answers per second and source prefix; `None` is unlimited.
    pub binding_rate: Option<u32>,
    /// Length in bits of an IPv4 source prefix.
    pub ipv4_prefix: u8,
    /// Length in bits of an IPv6 source prefix.
    pub ipv6_prefix: u8,
}

/// The limits of one realm and of each that is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RealmLimits {
    /// Of the realm as a whole.
    pub realm: HolderLimits,
    /// Of each tenant (a key id inside time-limited user names).
    pub tenant: HolderLimits,
    /// Of each user.
    pub user: HolderLimits,
    /// Of each allocation.
    pub allocation: HolderLimits,
}

/// What one holder may take: an allocation, a user, a tenant, a realm, or all together. `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HolderLimits {
    /// Allocations; all of them unless those that are not used are counted apart. Not of an allocation.
    pub allocations: Option<u32>,
    /// Allocations that are not used, which are then counted apart. Not of an allocation.
    pub unused: Option<u32>,
    /// Application data in each direction, bits per second.
    pub bits_per_second: Option<u64>,
    /// Datagrams in each direction per second.
    pub packets_per_second: Option<u32>,
    /// Peers that get a permission, channel or connection anew, per second.
    pub new_peers_per_second: Option<u32>,
    /// Application data in both directions together, bytes per calendar month (UTC). Not of an allocation.
    pub bytes_per_month: Option<u64>,
}

/// Peer rules on top of the built-in ones (`[peers]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// `allowed-peer-ip`.
    pub allowed: Vec<IpNet>,
    /// `denied-peer-ip`.
    pub denied: Vec<IpNet>,
}

/// Redirection of authenticated Allocate requests (`[redirect]`, RFC 8489 §10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// ALTERNATE-SERVER candidates, taken in turn; at least one.
    pub servers: Vec<AlternateServer>,
    /// How many of 100 requests are redirected.
    pub share: u8,
}

/// Another server (`[[redirect.server]]`, or one of `alternate-server`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlternateServer {
    /// Its address.
    pub address: SocketAddr,
    /// It serves UDP.
    pub udp: bool,
    /// It serves TCP.
    pub tcp: bool,
    /// It serves TLS.
    pub tls: bool,
    /// It serves DTLS.
    pub dtls: bool,
    /// How often it has its turn, in relation to the others; 0 never.
    pub weight: u32,
    /// ALTERNATE-DOMAIN: the name in its certificate.
    pub domain: Option<String>,
}

impl AlternateServer {
    /// Whether it serves UDP, TCP, TLS, DTLS.
    #[must_use]
    pub const fn transports(&self) -> [bool; 4] {
        [self.udp, self.tcp, self.tls, self.dtls]
    }
}

impl Default for AlternateServer {
    /// For every transport, with a weight of 1.
    fn default() -> Self {
        let address = SocketAddr::from(([0; 4], 0));
        Self { address, udp: true, tcp: true, tls: true, dtls: true, weight: 1, domain: None }
    }
}

/// NAT behaviour discovery on two addresses and two ports (`[nat-discovery]`, RFC 5780). The listeners include all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatDiscovery {
    /// Primary and alternate address; one pair for each family, at least one.
    pub pairs: Vec<[MappedAddress; 2]>,
    /// The port that clients know.
    pub primary_port: u16,
    /// The other one.
    pub alternate_port: u16,
    /// Offered over TCP as well as over UDP.
    pub tcp: bool,
}

impl NatDiscovery {
    /// The four transport addresses of each family, as the world sees them.
    pub fn external(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        let ports = [self.primary_port, self.alternate_port];
        self.pairs.iter().flatten().flat_map(move |address| ports.map(|port| SocketAddr::new(address.external, port)))
    }
}

/// An address of this host and what the world sees of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedAddress {
    /// The address that sockets bind.
    pub local: IpAddr,
    /// The address that clients are told; equal to `local` unless `external-ip` maps it.
    pub external: IpAddr,
}

/// TCP connections from clients (`[tcp]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// A connection without an allocation and without a message that is answered for this long is closed.
    pub idle_timeout: Duration,
    /// A message begun but not completed within this time closes the connection.
    pub message_timeout: Duration,
    /// Connections in total.
    pub max_connections: usize,
    /// Connections per source prefix.
    pub max_connections_per_ip: usize,
    /// Bytes of memory queued towards one slow client before the oldest data are dropped.
    pub queue_bytes: usize,
    /// Age at which queued data are dropped.
    pub queue_age: Duration,
}

/// What secures TLS and DTLS (`[tls]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// What the server proves itself with; at least one. The first is for clients that name no host that another one has.
    pub certificates: Vec<Certificate>,
    /// The lowest version spoken.
    pub min_version: TlsVersion,
    /// Who vouches for clients, if they are to show certificates.
    pub clients: Option<ClientCa>,
    /// A handshake that takes longer ends the connection.
    pub handshake_timeout: Duration,
    /// Unfinished handshakes in total; beyond them the oldest give way.
    pub max_handshakes: usize,
}

/// A certificate with its chain and key, as read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// File of the chain.
    pub cert: PathBuf,
    /// File of the private key.
    pub pkey: PathBuf,
    /// The certificate and what leads to its root, in DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key that belongs to the certificate.
    pub key: Secret<Arc<PrivateKeyDer<'static>>>,
    /// DNS names in it, in lower case; a first label `*` stands for any one label.
    pub names: Vec<String>,
}

/// Who vouches for clients (`client-ca`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// File of the root certificates.
    pub file: PathBuf,
    /// The root certificates, in DER.
    pub roots: Vec<CertificateDer<'static>>,
    /// Refuse clients without a certificate.
    pub required: bool,
}

/// A version of TLS (`min-version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// Switches for old clients (`[compatibility]`), all off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compatibility {
    /// Answer Binding requests without the magic cookie (`rfc3489`).
    pub rfc3489: bool,
    /// Accept channel numbers 0x5000–0x7FFF (`rfc5766-channel-numbers`).
    pub rfc5766_channel_numbers: bool,
}

/// The process (`[process]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; at least one.
    pub workers: usize,
    /// Pin each worker to a processor of its own (`pin-workers`).
    pub pin_workers: bool,
    /// How datagrams cross the system boundary.
    pub udp_io: UdpIo,
    /// `SO_RCVBUF`/`SO_SNDBUF` of listeners, bytes; `None` keeps the system's default.
    pub listener_buffer: Option<usize>,
    /// How long a busy worker gathers datagrams before it handles them together; `None` handles each as it comes.
    pub gather: Option<Duration>,
    /// Send SOFTWARE in responses (`software-attribute`).
    pub software_attribute: bool,
    /// Add FINGERPRINT to every response, not only where the request had one (`fingerprint`).
    pub fingerprint: bool,
    /// How long sessions may go on after SIGTERM; `None` ends them at once.
    pub drain_timeout: Option<Duration>,
    /// What new clients get while the server drains and there is no other server to name.
    pub drain_error: DrainError,
}

/// `drain-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainError {
    /// 486 (Allocation Quota Reached).
    Quota,
    /// 508 (Insufficient Capacity).
    Capacity,
}

/// Management (`[management]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    /// Where HTTP is served.
    pub listen: Option<Access<SocketAddr>>,
    /// The Unix socket, for whoever may open it.
    pub socket: Option<Access<PathBuf>>,
    /// What HTTP clients show to be let in.
    pub token: Option<Secret<Zeroizing<String>>>,
    /// `/metrics` and `/status` for everybody who reaches the listener.
    pub public_metrics: bool,
    /// Metrics also by the names that coturn gives them.
    pub coturn_metrics: bool,
    /// The page for operators.
    pub web_page: bool,
    /// Names of this host that browsers reach management by; addresses and localhost go without.
    pub host_names: Vec<String>,
}

impl Management {
    /// Whether any of it was asked for.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.listen.as_ref().is_some_and(|listen| listen.required)
            || self.socket.as_ref().is_some_and(|socket| socket.required)
    }
}

/// A place where management is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access<T> {
    /// The place.
    pub at: T,
    /// It was asked for: a server that cannot have it does not start. Otherwise it does without.
    pub required: bool,
}

/// How datagrams cross the system boundary (`udp-io`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpIo {
    /// Batched system calls and merged datagrams, as far as the system has them.
    Auto,
    /// Batched system calls where the system has them, without merging datagrams.
    Batched,
    /// One portable call per datagram.
    Portable,
}

/// Relaying in the kernel (`[offload]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offload {
    /// Whether and how.
    pub mode: OffloadMode,
    /// Names of the interfaces; empty for those that carry listening and relay addresses.
    pub interfaces: Vec<String>,
    /// Channels that the kernel has room for.
    pub channels: u32,
}

/// How the kernel relays (`mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadMode {
    /// Not at all.
    Off,
    /// In the interfaces' drivers where those can do it well, in front of the kernel's stack otherwise, or not at all.
    Auto,
    /// In the interfaces' drivers.
    Native,
    /// In front of the kernel's stack.
    Generic,
}

impl OffloadMode {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Logging (`[log]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter: a level, or `module=level` pairs.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Shape of a log line (`format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
