//! Data through relayed addresses: from one of the server's to another, and to a socket of this host.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rand::RngExt;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{
    Finding,
    client::{Client, Failure, Source},
    link::unspecified,
    session::{Allocated, PathReport, millis},
    special, words,
};
use crate::{
    stun::{AttributeType, ChannelNumber, Method},
    turn::Transport,
};

/// Data are sent so often, since they may be lost.
const TRIES: u32 = 4;
/// How long each of them may take.
const PATIENCE: Duration = Duration::from_millis(600);
/// The channel of data between two relayed addresses, and the first of data to this host.
const CHANNELS: [ChannelNumber; 2] = [ChannelNumber(0x4000), ChannelNumber(0x4001)];

/// A permission is for an address; servers whose rules look at the port, too, find none of their own here.
const DISCARD: u16 = 9;

/// What stopped a try.
enum Stop {
    /// The server does not allow the peer.
    Forbidden,
    /// Something else went wrong.
    Failed(Finding),
}

fn data() -> [u8; 32] {
    rand::rng().random()
}

async fn permit(client: &mut Client, peer: SocketAddr, channel: Option<ChannelNumber>) -> Result<(), Stop> {
    let method = if channel.is_some() { Method::ChannelBind } else { Method::CreatePermission };
    let about = if channel.is_some() { "channel" } else { "permission" };
    let reply = client.request(method, |writer| {
        if let Some(ChannelNumber(number)) = channel {
            let [high, low] = number.to_be_bytes();
            writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
        }
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    });
    let reply = reply.await.map_err(|failure| broken(about, &failure))?;
    match reply.error() {
        None => Ok(()),
        Some((403, _)) => Err(Stop::Forbidden),
        Some(error) => Err(Stop::Failed(words::refused(about, method, &error, None))),
    }
}

fn broken(about: &str, failure: &Failure) -> Stop {
    Stop::Failed(words::not_answered(about, Transport::Tcp, failure))
}

/// From the first allocation by a channel to the second, and back from there by an indication.
pub(super) async fn between(report: &mut PathReport, first: &mut Allocated, second: &mut Allocated) {
    const ABOUT: &str = "relay";
    match exchange(first, second).await {
        Ok(Some((time, seen))) => {
            report.milliseconds.relay = Some(millis(time));
            let what = format!("from {} to {} and back in {} ms", first.relayed, second.relayed, millis(time));
            report.say(Finding::ok(ABOUT, format!("{what}, by permission, channel and indication")));
            if seen != first.relayed {
                let what = format!("what was sent from {} arrives from {seen}", first.relayed);
                let remedy = "let the server know the address that it is seen from (external-ip)";
                report.say(Finding::warning(ABOUT, what, remedy));
            }
        }
        Ok(None) => {
            let what = format!("nothing comes from {} to {}", first.relayed, second.relayed);
            let remedy = "two clients of this server do not hear each other: set external-ip to its public address, and \
                          let the network send what is for that address back (hairpin)";
            report.say(Finding::error(ABOUT, what, remedy));
        }
        Err(Stop::Forbidden) => {
            let what = format!("the server refuses its own relayed address {} as a peer (403)", second.relayed.ip());
            let remedy = "two clients of this server do not hear each other: allow it (coturn: allowed-peer-ip)";
            report.say(Finding::warning(ABOUT, what, remedy));
        }
        Err(Stop::Failed(finding)) => report.say(finding),
    }
}

async fn exchange(first: &mut Allocated, second: &mut Allocated) -> Result<Option<(Duration, SocketAddr)>, Stop> {
    permit(&mut first.client, second.relayed, None).await?;
    permit(&mut second.client, first.relayed, None).await?;
    permit(&mut first.client, second.relayed, Some(CHANNELS[0])).await?;
    for _ in 0..TRIES {
        let (there, back, begun) = (data(), data(), Instant::now());
        let failed = |failure: Failure| broken("relay", &failure);
        first.client.send_on(CHANNELS[0], &there).await.map_err(failed)?;
        let arrived = second.client.await_data(&there, begun + PATIENCE).await.map_err(failed)?;
        let Some(Source::Peer(seen)) = arrived else { continue };
        second.client.send_to(first.relayed, &back).await.map_err(failed)?;
        let returned = first.client.await_data(&back, Instant::now() + PATIENCE).await.map_err(failed)?;
        if returned == Some(Source::Channel(CHANNELS[0])) {
            return Ok(Some((begun.elapsed(), seen)));
        }
    }
    Ok(None)
}

/// From a socket of this host to the relayed address, and back by a channel.
pub(super) async fn outside(report: &mut PathReport, allocated: &mut Allocated, server: IpAddr, transport: Transport) {
    const ABOUT: &str = "peer";
    let relayed = allocated.relayed;
    let mapped = allocated.mapped.filter(|mapped| mapped.is_ipv4() == relayed.is_ipv4());
    let Some(mapped) = mapped else {
        return report.say(Finding::skipped(ABOUT, "this host's address of the relayed family is not known"));
    };
    match echo(allocated, mapped.ip()).await {
        Ok(Some(time)) => {
            report.milliseconds.peer = Some(millis(time));
            report.say(Finding::ok(ABOUT, format!("from this host to {relayed} and back in {} ms", millis(time))));
        }
        // Servers take nothing from themselves, and do not always say so before.
        Ok(None) if [server, relayed.ip()].contains(&mapped.ip()) => {
            let what = format!("nothing arrives from this host, whose address {} is the server's own", mapped.ip());
            report.say(Finding::skipped(ABOUT, format!("{what}; probe from elsewhere")));
        }
        Ok(None) => {
            let what = format!("what this host sends to {relayed} does not arrive");
            let remedy = "open the UDP ports min-port..max-port in the server's firewall, and see that external-ip is its \
                          public address";
            // Where only streams get out, it may be this host's network.
            let finding = match transport {
                Transport::Udp | Transport::Dtls => Finding::error(ABOUT, what, remedy),
                Transport::Tcp | Transport::Tls => Finding::warning(ABOUT, what, remedy),
            };
            report.say(finding);
        }
        Err(Stop::Forbidden) if special(mapped.ip()).is_some() => {
            let what = format!("the server refuses the address of this host, {}, as a peer (403)", mapped.ip());
            report.say(Finding::skipped(ABOUT, format!("{what}, as it should with special ones")));
        }
        Err(Stop::Forbidden) => {
            let what = format!("the server refuses the address of this host, {}, as a peer (403)", mapped.ip());
            report.say(Finding::warning(
                ABOUT,
                what,
                "see its peer rules, if clients at such addresses should be reached",
            ));
        }
        Err(Stop::Failed(finding)) => report.say(finding),
    }
}

async fn echo(allocated: &mut Allocated, mapped: IpAddr) -> Result<Option<Duration>, Stop> {
    let (relayed, client) = (allocated.relayed, &mut allocated.client);
    permit(client, SocketAddr::new(mapped, DISCARD), None).await?;
    let failed = |failure: Failure| broken("peer", &failure);
    let mut buffer = [0; 2048];
    for channel in (CHANNELS[1].0..).take(TRIES as usize).map(ChannelNumber) {
        // Each on a port of its own: a server refuses its own ports, and this may be one of them.
        let local = |error: std::io::Error| Stop::Failed(Finding::skipped("peer", format!("no socket here: {error}")));
        let socket = UdpSocket::bind(unspecified(relayed)).await.map_err(local)?;
        let (there, back, begun) = (data(), data(), Instant::now());
        // Where there is no way, nothing arrives either.
        let _ = socket.send_to(&there, relayed).await;
        let arrived = client.await_data(&there, begun + PATIENCE).await.map_err(failed)?;
        let Some(Source::Peer(peer)) = arrived else { continue };
        match permit(client, peer, Some(channel)).await {
            Err(Stop::Forbidden) => continue,
            bound => bound?,
        }
        client.send_on(channel, &back).await.map_err(failed)?;
        let until = Instant::now() + PATIENCE;
        while let Ok(Ok((len, _))) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            if buffer[..len] == back {
                return Ok(Some(begun.elapsed()));
            }
        }
    }
    Ok(None)
}
