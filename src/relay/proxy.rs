//! The PROXY protocol, versions 1 and 2: how a load balancer tells whose connection it passes on. Bytes to values; nothing
//! here decides whom to believe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header taken: addresses, and what a balancer has to say besides (which is skipped).
pub const LONGEST: usize = 2048;

/// Longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The balancer's own (a health check), or one that it knows nothing about.
    Itself,
    /// A client's.
    Client {
        /// Where the client comes from.
        client: SocketAddr,
        /// Where it has connected to.
        server: SocketAddr,
    },
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Partial,
    /// A header of so many bytes.
    Whole(Origin, usize),
    /// No header.
    Malformed,
}

/// Takes the header off the beginning of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, LINE_START) {
        line(bytes)
    } else if begins(bytes, SIGNATURE) {
        binary(bytes).unwrap_or(Parsed::Partial)
    } else {
        Parsed::Malformed
    }
}

/// Whether `bytes` begin with `start`, or are the beginning of it.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

/// Version 1: one line of text.
fn line(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Parsed::Partial } else { Parsed::Malformed };
    };
    let text = std::str::from_utf8(&bytes[LINE_START.len()..end]).ok().and_then(|text| text.strip_suffix('\r'));
    text.and_then(origin).map_or(Parsed::Malformed, |origin| Parsed::Whole(origin, end + 1))
}

/// `TCP4 192.0.2.1 192.0.2.10 50000 3478`, the same with `TCP6`, or `UNKNOWN` and anything.
fn origin(text: &str) -> Option<Origin> {
    let mut words = text.split(' ');
    let ipv4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        "UNKNOWN" => return Some(Origin::Itself),
        _ => return None,
    };
    let mut ip = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == ipv4);
    let (client, server) = (ip()?, ip()?);
    let mut port = || words.next()?.parse::<u16>().ok();
    let (client_port, server_port) = (port()?, port()?);
    words.next().is_none().then(|| between((client, client_port), (server, server_port)))
}

/// Version 2. `None` if there is more to come.
fn binary(bytes: &[u8]) -> Option<Parsed> {
    let [version_and_command, family_and_protocol, high, low] = *bytes.get(SIGNATURE.len()..)?.first_chunk()?;
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Some(Parsed::Malformed),
    };
    if len > LONGEST {
        return Some(Parsed::Malformed);
    }
    let rest = bytes.get(FIXED..len)?;
    let origin = match family_and_protocol {
        _ if local => Some(Origin::Itself),
        0x00 => Some(Origin::Itself),
        0x11 => addresses::<4>(rest),
        0x21 => addresses::<16>(rest),
        _ => None,
    };
    Some(origin.map_or(Parsed::Malformed, |origin| Parsed::Whole(origin, len)))
}

/// Two addresses and two ports in network order; what follows is skipped.
fn addresses<const N: usize>(bytes: &[u8]) -> Option<Origin>
where
    Ip: From<[u8; N]>,
{
    let (client, rest) = bytes.split_first_chunk::<N>()?;
    let (server, rest) = rest.split_first_chunk::<N>()?;
    let [a, b, c, d] = *rest.first_chunk()?;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    Some(between((Ip::from(*client).0, ports[0]), (Ip::from(*server).0, ports[1])))
}

/// An address of either family, from its bytes.
struct Ip(IpAddr);

impl From<[u8; 4]> for Ip {
    fn from(bytes: [u8; 4]) -> Self {
        Self(Ipv4Addr::from(bytes).into())
    }
}

impl From<[u8; 16]> for Ip {
    fn from(bytes: [u8; 16]) -> Self {
        Self(Ipv6Addr::from(bytes).into())
    }
}

/// An IPv4-mapped address is its IPv4 address.
fn between(client: (IpAddr, u16), server: (IpAddr, u16)) -> Origin {
    let address = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
    Origin::Client { client: address(client), server: address(server) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(client: &str, server: &str) -> Origin {
        Origin::Client { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    #[test]
    fn lines_name_both_ends() {
        for (line, origin) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.10 50000 3478\r\n", client("192.0.2.1:50000", "192.0.2.10:3478")),
            ("PROXY TCP6 2001:db8::1 2001:db8::10 1 65535\r\n", client("[2001:db8::1]:1", "[2001:db8::10]:65535")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.10 1 2\r\n", client("192.0.2.1:1", "192.0.2.10:2")),
            ("PROXY UNKNOWN\r\n", Origin::Itself),
            ("PROXY UNKNOWN ffff::1 whatever it is\r\n", Origin::Itself),
        ] {
            let bytes = [line.as_bytes(), b"\x16\x03\x01"].concat();
            assert_eq!(parse(&bytes), Parsed::Whole(origin, line.len()), "{line}");
            for part in 0..line.len() {
                assert_eq!(parse(&bytes[..part]), Parsed::Partial, "{part} bytes of {line}");
            }
        }
    }

    #[test]
    fn lines_that_are_not_exact_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.10 50000 3478\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 50000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 50000 3478 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 50000 65536\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.10 50000 3478\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::10 50000 3478\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.10 50000 3478\r\n",
            "PROXY TCP4 example.org 192.0.2.10 50000 3478\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.10 50000 3478\r\n",
            "PROXY \r\n",
            "PROXX TCP4",
            "GET / HTTP/1.1\r\n",
            "\0\x01\0\0",
        ] {
            assert_eq!(parse(line.as_bytes()), Parsed::Malformed, "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE));
        assert_eq!(parse(endless.as_bytes()), Parsed::Malformed);
    }

    #[test]
    fn binary_headers_name_both_ends_and_more_is_skipped() {
        let ipv4 = [192, 0, 2, 1, 192, 0, 2, 10, 0xC3, 0x50, 0x0D, 0x96];
        let mut ipv6 = [0; 36];
        (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 3, 4);
        let more = [&ipv4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let known = client("192.0.2.1:50000", "192.0.2.10:3478");
        for (header, origin) in [
            (v2(0x21, 0x11, &ipv4), known),
            (v2(0x21, 0x11, &more), known),
            (v2(0x21, 0x21, &ipv6), client("[::1]:3", "[::2]:4")),
            (v2(0x21, 0x00, b""), Origin::Itself),
            (v2(0x21, 0x00, b"anything"), Origin::Itself),
            (v2(0x20, 0x11, &ipv4), Origin::Itself),
            (v2(0x20, 0x00, b""), Origin::Itself),
        ] {
            let bytes = [&header[..], b"\x00\x01"].concat();
            assert_eq!(parse(&bytes), Parsed::Whole(origin, header.len()), "{header:02x?}");
            for part in 0..header.len() {
                assert_eq!(parse(&bytes[..part]), Parsed::Partial, "{part} bytes of {header:02x?}");
            }
        }
    }

    #[test]
    fn binary_headers_of_other_kinds_are_refused() {
        let addresses = [0; 36];
        for header in [
            v2(0x11, 0x11, &addresses),
            v2(0x22, 0x11, &addresses),
            v2(0x21, 0x12, &addresses),
            v2(0x21, 0x31, &[0; 216]),
            v2(0x21, 0x11, &addresses[..11]),
            v2(0x21, 0x21, &addresses[..35]),
            v2(0x20, 0x00, &[0; LONGEST]),
        ] {
            assert_eq!(parse(&header), Parsed::Malformed, "{header:02x?}");
        }
    }

    proptest! {
        /// Nothing panics, nothing is taken beyond what there is, and more bytes never change what was decided.
        #[test]
        fn any_bytes(start in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let start = [&b""[..], LINE_START, b"PROXY TCP4 ", SIGNATURE][start];
            let bytes = [start, &bytes].concat();
            let whole = parse(&bytes);
            if let Parsed::Whole(_, len) = whole {
                prop_assert!(len <= bytes.len() && len <= LONGEST);
            }
            for part in 0..bytes.len() {
                let earlier = parse(&bytes[..part]);
                prop_assert!(earlier == Parsed::Partial || earlier == whole);
            }
        }

        /// What a balancer writes is read.
        #[test]
        fn what_is_written_is_read(
            ips in any::<([u8; 4], [u8; 4])>(), ports in any::<(u16, u16)>(), after in prop::collection::vec(any::<u8>(), 0..9)
        ) {
            let ends = (SocketAddr::from((ips.0, ports.0)), SocketAddr::from((ips.1, ports.1)));
            let line = format!("PROXY TCP4 {} {} {} {}\r\n", ends.0.ip(), ends.1.ip(), ports.0, ports.1).into_bytes();
            let rest = [&ips.0[..], &ips.1, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat();
            let origin = Origin::Client { client: ends.0, server: ends.1 };
            for header in [line, v2(0x21, 0x11, &rest)] {
                prop_assert_eq!(parse(&[&header[..], &after].concat()), Parsed::Whole(origin, header.len()));
            }
        }
    }
}
