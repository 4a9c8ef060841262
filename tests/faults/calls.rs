//! System calls that fail for a while.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::{EADDRNOTAVAIL, EINVAL, EIO, EMFILE, ENETDOWN, ENFILE, ENOBUFS, ENOMEM, EPERM};
use turnserver::stun::{AttributeType, ChannelNumber, Class, MessageWriter, Method, TransactionId};

use crate::{
    call::{CHANNEL, Call, allocate_error, configuration, metric, until},
    common::{
        PATIENCE, Server,
        client::{TurnClient, channel_data, loopback_peer, loopback_socket},
    },
    inject::{Call as Syscall, Faults},
};

/// Anything that has an answer, as bytes.
fn binding() -> Vec<u8> {
    let mut buffer = [0; 64];
    let writer = MessageWriter::new(&mut buffer, Method::Binding, Class::Request, TransactionId(rand::random()));
    let len = writer.finish().expect("room for a request");
    buffer[..len].to_vec()
}

/// One line of a kind in ten seconds.
fn few_lines(log: &str, message: &str, since: Instant) {
    let (lines, most) = (log.matches(message).count(), 1 + since.elapsed().as_secs() / 10);
    assert!((1..=most).contains(&(lines as u64)), "{lines} lines `{message}`:\n{log}");
}

#[test]
fn what_has_come_is_received_when_receiving_works_again() {
    let (faults, start) = (Faults::new(), Instant::now());
    let server = faults.start(&configuration(1));
    let call = Call::new(&server);
    for error in [ENOMEM, ENOBUFS, EIO] {
        // One request, which nobody repeats; and one datagram of a client, and of a peer.
        let socket = loopback_socket();
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        faults.inject(Syscall::RecvMmsg, error, 3);
        socket.send_to(&binding(), server.ipv4("udp")).expect("to send");
        let answer = socket.recv(&mut [0; 200]);
        assert!(answer.is_ok(), "a request is not answered after error {error}: {answer:?}");
        assert_eq!(faults.failed(Syscall::RecvMmsg), 3);
        faults.inject(Syscall::RecvMmsg, error, 3);
        call.exchange(b"after receiving has failed");
        assert_eq!(faults.failed(Syscall::RecvMmsg), 3);
    }
    few_lines(&server.stop(), "cannot receive", start);
}

#[test]
fn what_cannot_be_sent_is_lost_alone_and_counted() {
    const LOST: u64 = 20;
    let faults = Faults::new();
    let server = faults.start(&configuration(1));
    let call = Call::new(&server);
    let dropped = || metric(&server, "turn_drops_total{reason=\"send-failed\"}");
    for error in [ENOBUFS, ENOMEM, EPERM, ENETDOWN, EINVAL] {
        let before = dropped();
        for sends in [Syscall::SendMmsg, Syscall::SendMsg] {
            faults.inject(sends, error, i32::MAX);
        }
        let data = channel_data(CHANNEL, b"lost");
        for _ in 0..LOST {
            call.client.socket.send_to(&data, call.client.server).expect("to send");
        }
        until("everything is counted", || dropped() == before + LOST);
        for sends in [Syscall::SendMmsg, Syscall::SendMsg] {
            faults.heal(sends);
        }
        call.exchange(b"when sending works again");
    }
}

#[test]
fn what_was_merged_before_an_outage_is_merged_after_it() {
    const BURST: u64 = 16;
    const OUTAGE: u64 = 5;
    let faults = Faults::new();
    let mut server = faults.start(&configuration(1));
    let call = Call::new(&server);
    // The server is held still while a burst comes, so that most of it is received at once.
    let burst = |server: &mut Server| {
        server.signal("STOP");
        for _ in 0..BURST {
            call.client.socket.send_to(&channel_data(CHANNEL, &[7; 1000]), call.client.server).expect("to send");
        }
        server.signal("CONT");
    };
    let merges = |server: &mut Server| {
        let (before, start) = (faults.merged(), Instant::now());
        while faults.merged() == before {
            assert!(start.elapsed() < PATIENCE, "nothing is merged");
            burst(server);
            (0..BURST).for_each(|_| assert_eq!(call.peer.recv(&mut [0; 2000]).expect("a burst"), 1000));
        }
    };
    merges(&mut server);
    // The address is gone for a while.
    for sends in [Syscall::SendMmsg, Syscall::SendMsg] {
        faults.inject(sends, EINVAL, i32::MAX);
    }
    (0..OUTAGE).for_each(|_| burst(&mut server));
    let dropped = || metric(&server, "turn_drops_total{reason=\"send-failed\"}");
    until("everything is counted", || dropped() == OUTAGE * BURST);
    for sends in [Syscall::SendMmsg, Syscall::SendMsg] {
        faults.heal(sends);
    }
    merges(&mut server);
}

#[test]
fn an_allocation_without_a_socket_is_refused_and_gives_back_what_it_took() {
    let (faults, start) = (Faults::new(), Instant::now());
    let server = faults.start(&configuration(1).replace("[limits]", "[limits]\nuser-quota = 2"));
    let call = Call::new(&server);
    let used = || metric(&server, "turn_relay_ports_used{address=\"127.0.0.1\",protocol=\"udp\"}");
    assert_eq!(used(), 1);
    let cases = [
        (Syscall::Socket, EMFILE),
        (Syscall::Socket, ENFILE),
        (Syscall::Socket, ENOBUFS),
        (Syscall::Socket, ENOMEM),
        (Syscall::Bind, ENOMEM),
        (Syscall::Bind, ENOBUFS),
        (Syscall::Bind, EADDRNOTAVAIL),
    ];
    for (syscall, error) in cases {
        let mut client = TurnClient::new(loopback_socket(), server.ipv4("udp"));
        faults.inject_at(0, syscall, error, 1);
        assert_eq!(allocate_error(&mut client), Some(508), "{syscall:?} {error}");
        assert_eq!((faults.failed(syscall), used()), (1, 1), "{syscall:?} {error}");
        call.exchange(b"others go on");
        assert_eq!(allocate_error(&mut client), None, "the place in the quota was given back: {syscall:?} {error}");
        client.delete();
    }
    few_lines(&server.stop(), "cannot open a relay socket", start);
}

#[test]
fn connections_are_accepted_again_within_a_second() {
    let faults = Faults::new();
    let server = faults.start(&configuration(1));
    let call = Call::new(&server);
    for error in [EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM] {
        faults.inject(Syscall::Accept, error, 3);
        let start = Instant::now();
        let mut stream = TcpStream::connect(server.ipv4("tcp")).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.write_all(&binding()).expect("to send");
        call.exchange(b"datagrams go on");
        stream.read_exact(&mut [0; 20]).expect("an answer over TCP");
        let taken = start.elapsed();
        assert_eq!(faults.failed(Syscall::Accept), 3);
        // Three pauses of 100 ms; the rest is for a busy machine.
        assert!(taken < Duration::from_secs(3), "error {error}: {taken:?}");
    }
}

#[test]
fn icmp_errors_about_one_clients_peers_cost_the_others_nothing() {
    const CALLS: usize = 200;
    let faults = Faults::new();
    let server = faults.start(&configuration(1));
    let call = Call::new(&server);
    // Each datagram to a port that nobody has comes back as an error, and as a message to the client.
    let mut flooder = TurnClient::new(loopback_socket(), server.ipv4("udp"));
    flooder.allocate();
    let nobody: Vec<SocketAddr> = (0..8).map(|_| loopback_peer().local_addr().expect("an address")).collect();
    for (number, peer) in (0x4000..).zip(&nobody) {
        flooder.bind(ChannelNumber(number), *peer);
    }
    let (over, address) = (AtomicBool::new(false), server.ipv4("udp"));
    let flood = |socket: &UdpSocket| {
        let mut sent = 0u64;
        while !over.load(Ordering::Relaxed) {
            for number in 0x4000..0x4008 {
                let data = channel_data(ChannelNumber(number), b"to nobody");
                sent += u64::from(socket.send_to(&data, address).is_ok());
            }
            // As fast as the server takes it would only be a question of whose datagrams the kernel drops.
            thread::sleep(Duration::from_micros(500));
        }
        sent
    };
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&flooder.socket));
        for number in 0..CALLS {
            call.exchange(format!("call {number}").as_bytes());
        }
        over.store(true, Ordering::Relaxed);
        flood.join().expect("the flood")
    });
    assert!(sent >= 100, "{sent} datagrams were no flood");
    // They did come back, in Data indications with the attribute ICMP.
    let mut buffer = [0; 200];
    let len = flooder.socket.recv(&mut buffer).expect("an error");
    let message = turnserver::stun::Message::parse(&buffer[..len]).expect("a STUN message");
    assert!(message.get(AttributeType::ICMP).is_some());
    // The one who sent them can still be called.
    let peer = loopback_peer();
    flooder.bind(ChannelNumber(0x4100), peer.local_addr().expect("an address"));
    flooder.socket.send_to(&channel_data(ChannelNumber(0x4100), b"and now"), flooder.server).expect("to send");
    assert_eq!(peer.recv(&mut buffer).expect("data"), 7);
}
