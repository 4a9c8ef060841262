//! What is counted: per allocation, and in total per worker.

/// Application data relayed in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Datagrams; data of TCP allocations have none.
    pub packets: u64,
    /// Bytes of application data, without STUN or ChannelData headers.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one datagram.
    pub(super) const fn count(&mut self, bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Bytes of a stream.
    pub(super) const fn stream(bytes: u64) -> Self {
        Self { packets: 0, bytes }
    }

    /// Adds another count.
    pub const fn add(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Declares the drop reasons with their names.
macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why something was dropped in silence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Drop { $($(#[$doc])* $name,)* }

        impl Drop {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A short name, as in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drops! {
    /// The first byte belongs to no protocol that is served (RFC 7983).
    NotServed => "not-served",
    /// A STUN message that does not parse (RFC 8489 §6.3).
    Malformed => "malformed",
    /// A method, class or indication that a server does not take.
    Unexpected => "unexpected",
    /// An indication or ChannelData on a 5-tuple without an allocation.
    NoAllocation => "no-allocation",
    /// A peer's datagram for a client whose connection is gone and that has not come back with its ticket.
    ClientAway => "client-away",
    /// ChannelData on a channel that is not bound.
    NoChannel => "no-channel",
    /// A Send indication, or a peer's datagram or connection, without a permission.
    NoPermission => "no-permission",
    /// A peer that the policy refuses.
    PeerRefused => "peer-refused",
    /// A Send indication without a peer or data, or with a peer that cannot be reached from this allocation.
    BadIndication => "bad-indication",
    /// An unauthenticated answer that the source's rate limit held back.
    RateLimited => "rate-limited",
    /// A datagram beyond a limit of bandwidth.
    Bandwidth => "bandwidth",
    /// A datagram beyond a limit of datagrams per second.
    PacketRate => "packet-rate",
    /// Data after the bytes of the month were used up.
    MonthUsedUp => "month-used-up",
    /// A datagram larger than can be relayed in a message.
    TooLong => "too-long",
    /// The system refused to send the datagram.
    SendFailed => "send-failed",
    /// A slow TCP client's queue was full, or the data in it too old.
    QueueFull => "queue-full",
    /// A peer's connection when its allocation has as many as it may, or its client does not read.
    TooManyConnections => "too-many-connections",
    /// Data for another worker's client while too much waited for that worker.
    WorkerBusy => "worker-busy",
    /// An ICMP error that is not forwarded (RFC 8656 §11.5).
    Icmp => "icmp",
}

/// What one worker has done since it started.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Allocations made.
    pub allocations: u64,
    /// Data from clients to peers, of ended allocations and of living ones; of TCP, what ended connections have relayed.
    pub to_peers: Traffic,
    /// Data from peers to clients.
    pub to_clients: Traffic,
    /// Requests answered with success.
    pub successes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    drops: [u64; Drop::ALL.len()],
}

impl Totals {
    /// Counts one drop.
    pub const fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] = self.drops[reason as usize].wrapping_add(1);
    }

    /// How much was dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.allocations += other.allocations;
        self.to_peers.add(other.to_peers);
        self.to_clients.add(other.to_clients);
        self.successes += other.successes;
        self.errors += other.errors;
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, more)| *sum += more);
    }
}
