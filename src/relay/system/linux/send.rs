//! Sending: sendmmsg, with runs of equal datagrams to one destination merged into one.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use libc::c_int;

use super::{
    super::{BATCH, Run, SendOptions},
    CONTROL_LEN, Control, LinuxSocket, encode_address, is_pending_icmp, set_int, zeroed,
};

/// Datagrams merged into one at the most (UDP_MAX_SEGMENTS of every kernel that merges).
const MAX_MERGED: usize = 64;
/// Bytes merged into one at the most: what one IP packet can say, with room for headers.
const MAX_MERGED_BYTES: usize = 65_000;
/// How often a message is tried while the calls end with what may be ICMP errors about earlier ones: each is reported once, by
/// whichever call comes next, and more can come in between.
const TRIES: usize = 5;
/// Slices of one datagram: header, payload, padding.
const SLICES: usize = 3;

/// One message of a sendmmsg: a run of datagrams.
#[derive(Debug, Clone, Copy)]
struct Message {
    /// Its first datagram in the run, and how many they are.
    first: usize,
    count: usize,
    /// Its first slice, and how many they are.
    slice: usize,
    slices: usize,
    /// Length of each datagram but the last, which may be shorter.
    each: usize,
    /// The last datagram so far is shorter: nothing can follow it.
    ended: bool,
    bytes: usize,
}

/// The structures that sendmmsg reads; filled anew for each run.
pub(crate) struct SendCalls {
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    messages: Vec<Message>,
    slices: Vec<libc::iovec>,
}

impl SendCalls {
    pub(crate) fn new() -> Self {
        Self {
            names: Box::new([zeroed(); BATCH]),
            controls: Box::new([[0; 20]; BATCH]),
            headers: Box::new([zeroed(); BATCH]),
            messages: Vec::with_capacity(BATCH),
            slices: Vec::with_capacity(BATCH * SLICES),
        }
    }

    /// Sends all of `run`; returns how many datagrams the system refused.
    pub(crate) fn send(&mut self, socket: &LinuxSocket, run: Run<'_>, bytes: &[u8]) -> usize {
        let (mut rest, mut refused) = (run, 0);
        while rest.len() > 0 {
            let taken = self.merge(socket, rest, bytes);
            refused += self.submit(socket, rest);
            rest = rest.after(taken);
        }
        refused
    }

    /// Makes messages of the front of `run`, as many as one call takes; returns how many datagrams they hold.
    fn merge(&mut self, socket: &LinuxSocket, run: Run<'_>, bytes: &[u8]) -> usize {
        self.messages.clear();
        self.slices.clear();
        for (at, out) in run.iter().enumerate() {
            let len = out.len();
            let follows = self.messages.last().is_some_and(|last| {
                let previous = run.get(last.first);
                !last.ended
                    && len <= last.each
                    && len > 0
                    && last.count < MAX_MERGED
                    && last.bytes + len <= MAX_MERGED_BYTES
                    && previous.to == out.to
                    && previous.options == out.options
                    && socket.merging.may_send(last.each)
            });
            if !follows {
                if self.messages.len() == BATCH {
                    return at;
                }
                let slice = self.slices.len();
                self.messages.push(Message {
                    first: at,
                    count: 0,
                    slice,
                    slices: 0,
                    each: len,
                    ended: false,
                    bytes: 0,
                });
            }
            for part in out.parts(bytes) {
                if !part.is_empty() {
                    self.slices.push(iovec(part));
                }
            }
            if let Some(message) = self.messages.last_mut() {
                message.slices = self.slices.len() - message.slice;
                message.count += 1;
                message.bytes += len;
                message.ended = len < message.each;
            }
        }
        run.len()
    }

    /// Sends the messages just made of the front of `run`; returns how many datagrams the system refused.
    fn submit(&mut self, socket: &LinuxSocket, run: Run<'_>) -> usize {
        for (at, message) in self.messages.iter().enumerate() {
            let out = run.get(message.first);
            let merged = (message.count > 1).then_some(message.each);
            let slices = &mut self.slices[message.slice..message.slice + message.slices];
            let header = &mut self.headers[at].msg_hdr;
            fill_header(header, &mut self.names[at], &mut self.controls[at], slices, out.to, out.options, merged);
        }
        let (mut sent, mut refused, mut tries) = (0, 0, 0);
        while sent < self.messages.len() {
            // SAFETY: headers from `sent` on were just filled and point into boxes and vectors owned by `self`, whose slices
            // point into the batch and the run; all outlive the call. The kernel only reads them, but for the lengths that it
            // writes to the headers.
            #[allow(clippy::cast_possible_truncation)] // at most 32
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[sent..].as_mut_ptr(),
                    (self.messages.len() - sent) as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            if let Ok(accepted @ 1..) = usize::try_from(result) {
                sent += accepted;
                tries = 0;
                continue;
            }
            // The first message was refused, or an ICMP error about an earlier one is reported.
            let error = io::Error::last_os_error();
            tries += 1;
            if tries < TRIES && (is_pending_icmp(&error) || error.kind() == io::ErrorKind::Interrupted) {
                continue;
            }
            refused += self.refused(socket, self.messages[sent], run, &error);
            sent += 1;
            tries = 0;
        }
        refused
    }

    /// A message was refused: merged datagrams are tried one by one. Returns how many are lost.
    fn refused(&mut self, socket: &LinuxSocket, message: Message, run: Run<'_>, error: &io::Error) -> usize {
        if message.count == 1 {
            return 1;
        }
        let mut slice = message.slice;
        let mut lost = 0;
        for out in run.after(message.first).iter().take(message.count) {
            let count = out.slices();
            let slices = &mut self.slices[slice..slice + count];
            lost += usize::from(send_slices(socket, slices, out.to, out.options).is_err());
            slice += count;
        }
        // Where not one of them could be sent by itself, merging was not what was refused: the interface may be gone for a while.
        if lost < message.count {
            socket.merging.refused(message.each, error);
        }
        lost
    }
}

/// A slice for the kernel to read.
pub(super) fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

pub(super) fn fill_header(
    header: &mut libc::msghdr,
    name: &mut libc::sockaddr_storage,
    control: &mut Control,
    slices: &mut [libc::iovec],
    to: SocketAddr,
    options: SendOptions,
    merged: Option<usize>,
) {
    header.msg_namelen = encode_address(to, name);
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_iov = slices.as_mut_ptr();
    header.msg_iovlen = slices.len();
    header.msg_flags = 0;
    header.msg_control = ptr::null_mut();
    header.msg_controllen = 0;
    let mut used = 0;
    if options.tos != 0 {
        let value = c_int::from(options.tos).to_ne_bytes();
        let (level, kind) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = put_control(control, used, level, kind, &value);
    }
    match options.from {
        // in_pktinfo and in6_pktinfo: only the local address is given.
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            used = put_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            used = put_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(each) = merged {
        // Merged datagrams are at most as long as `Merging` allows, which is a u16.
        let each = u16::try_from(each).unwrap_or(u16::MAX);
        used = put_control(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, &each.to_ne_bytes());
    }
    if used > 0 {
        header.msg_control = ptr::from_mut(control).cast();
        header.msg_controllen = used;
    }
}

/// Appends a control message at byte `at`; returns where the next one goes.
fn put_control(control: &mut Control, at: usize, level: c_int, kind: c_int, data: &[u8]) -> usize {
    // SAFETY: CMSG_LEN and CMSG_SPACE are arithmetic on the length.
    #[allow(clippy::cast_possible_truncation)] // at most 20
    let (len, space) = unsafe { (libc::CMSG_LEN(data.len() as u32), libc::CMSG_SPACE(data.len() as u32) as usize) };
    assert!(at + space <= CONTROL_LEN, "three control messages of at most 40 bytes fit 160");
    let message = libc::cmsghdr { cmsg_len: len as usize, cmsg_level: level, cmsg_type: kind };
    // SAFETY: the assertion says that the message lies inside `control`; `at` is a multiple of the alignment, as CMSG_SPACE is.
    unsafe {
        let place = ptr::from_mut(control).cast::<u8>().add(at).cast::<libc::cmsghdr>();
        place.write(message);
        ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(place), data.len());
    }
    at + space
}

/// Sends one datagram.
pub(crate) fn send_one(socket: &LinuxSocket, bytes: &[u8], to: SocketAddr, options: SendOptions) -> io::Result<()> {
    send_slices(socket, &mut [iovec(bytes)], to, options)
}

fn send_slices(
    socket: &LinuxSocket,
    slices: &mut [libc::iovec],
    to: SocketAddr,
    options: SendOptions,
) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if options.dont_fragment {
        set_fragmentation(fd, to, Fragmentation::Forbidden)?;
    }
    let (mut name, mut control) = (zeroed(), [0; 20]);
    let mut header = zeroed();
    fill_header(&mut header, &mut name, &mut control, slices, to, options, None);
    let mut result = Ok(());
    for _ in 0..TRIES {
        // SAFETY: `header` points to locals and to `slices`, which outlive the call, as what the slices point to does.
        let sent = unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT) };
        result = if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        match &result {
            Err(error) if is_pending_icmp(error) => {}
            _ => break,
        }
    }
    if options.dont_fragment {
        set_fragmentation(fd, to, Fragmentation::Allowed)?;
    }
    result
}

/// Whether datagrams may be fragmented.
#[derive(Clone, Copy)]
enum Fragmentation {
    Allowed,
    Forbidden,
}

fn set_fragmentation(fd: RawFd, to: SocketAddr, rule: Fragmentation) -> io::Result<()> {
    match (to, rule) {
        (SocketAddr::V4(_), Fragmentation::Allowed) => {
            set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
        }
        // DF=1 without believing the path MTU that the kernel remembers: the network is to decide.
        (SocketAddr::V4(_), Fragmentation::Forbidden) => {
            set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        (SocketAddr::V6(_), rule) => {
            let forbidden = matches!(rule, Fragmentation::Forbidden);
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, c_int::from(forbidden))
        }
    }
}
