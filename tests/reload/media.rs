//! Media run through reloads of everything that can change, and nothing is lost.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    common::{PASSWORD, Server, USER, ports::free_port_pair},
    support::{client, peer_at, reload},
    web::managed,
};

/// Sends numbered datagrams to a peer that sends them back, and expects every one of them in order.
fn run(mut client: Client, stop: &AtomicBool, arrived: &AtomicU64) {
    // The address that is relayed from has others in front of it.
    let (socket, address) = peer_at(Ipv4Addr::new(127, 0, 0, 2));
    client.permit(address).expect("a permission");
    let echo = thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if len == 1 {
                return;
            }
            socket.send_to(&buffer[..len], from).expect("to answer");
        }
    });
    let (mut sent, mut received, mut next) = (0_u64, 0_u64, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        // Like a call: a packet every few milliseconds, several on their way.
        client.send(address, &[sent.to_be_bytes().as_slice(), &[0; 160]].concat());
        sent += 1;
        let asks = sent % 50 == 0;
        // A request passes over what comes before its answer: nothing may be on its way then.
        while sent > received + if asks { 0 } else { 5 } {
            assert_eq!(client.receive()[..8], received.to_be_bytes());
            received += 1;
            arrived.fetch_add(1, Ordering::Relaxed);
        }
        if asks {
            client.permit(address).expect("a permission");
        }
        next += Duration::from_millis(4);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    while received < sent {
        assert_eq!(client.receive()[..8], received.to_be_bytes());
        received += 1;
    }
    client.send(address, &[0]);
    echo.join().expect("the peer");
}

#[test]
fn nothing_is_lost_while_everything_changes() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let server = Server::start(&managed(""));
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients: Vec<Client> = ["udp", "udp", "udp", "tcp"]
        .map(|transport| {
            let mut client = Client::new(transport, server.ipv4(transport), Some((USER, PASSWORD)));
            client.allocate().expect("an allocation");
            client
        })
        .into();
    thread::scope(|scope| {
        let running: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| run(client, &stop, &arrived))).collect();
        for round in 0..12 {
            let user = format!("[[auth.user]]\nname = \"user-{round}\"\npassword = \"p\"\n");
            let key = "[[auth.user]]\nname = \"old\"\nkey = \"0123456789abcdef0123456789abcdef\"\n";
            let realm = "[[realm]]\nname = \"south.gov\"\nstatic-auth-secret = \"the secret of the south\"\n";
            let listener = format!("[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\n");
            let limits = format!("[limits]\nuser-quota = {}\nmax-bps = \"{}Mbit/s\"\n", 10 + round, 20 + round);
            let tcp = format!("[tcp]\nidle-timeout = \"{}s\"\n", 60 + round);
            let more = [user.as_str(), key, realm, &listener, &limits, &tcp];
            let some: String =
                more.iter().enumerate().filter(|(at, _)| (round >> (at % 3)) & 1 == 0).map(|(_, text)| *text).collect();
            let relay = format!("[relay]\nexternal-ip = \"198.51.100.{}/127.0.0.1\"\n", 1 + round % 3);
            let answer = reload(&server, &managed(&some).replace("[relay]\n", &relay));
            assert_eq!((&answer["sessions_ended"], &answer["complete"]), (&0.into(), &true.into()));
            let before = arrived.load(Ordering::Relaxed);
            while arrived.load(Ordering::Relaxed) < before + 40 && running.iter().all(|client| !client.is_finished()) {
                thread::sleep(Duration::from_millis(1));
            }
            if round % 3 != 1 {
                let mut new = client(&server, if round & 1 == 0 { USER } else { "user-1" }, PASSWORD);
                let _ = new.allocate().is_ok_and(|_| new.delete().is_ok());
            }
        }
        stop.store(true, Ordering::Relaxed);
        for client in running {
            client.join().expect("every datagram, in order");
        }
    });
}
