//! Listeners come and go.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    common::{PASSWORD, PATIENCE, Server, TLS, USER, ports::free_port_pair},
    support::{client, peer, reload, round_trip, strings},
    web::{get, managed},
};

fn listener(port: u16, transports: &str) -> String {
    format!("[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\ntransports = [{transports}]\n")
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn client_at(transport: &str, port: u16) -> Client {
    Client::new(transport, at(port), Some((USER, PASSWORD)))
}

/// Whether a Binding request is answered there.
fn answers(port: u16) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    let request = [[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42].as_slice(), &[9; 12]].concat();
    (0..3).any(|_| {
        let _ = socket.send_to(&request, at(port));
        socket.recv(&mut [0; 200]).is_ok()
    })
}

#[test]
fn listeners_are_added_and_removed_and_sessions_stay() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let server = Server::start(&managed(""));
    let (mut old, peer) = (client(&server, USER, PASSWORD), peer());
    old.allocate().expect("an allocation");
    old.permit(peer.1).expect("a permission");
    assert!(!answers(port));

    let added = managed(&listener(port, "\"udp\", \"tcp\""));
    assert_eq!(strings(&reload(&server, &added)["changed"]), ["listener"]);
    // Several of them, so that every worker has some.
    let mut clients: Vec<Client> = (0..6).map(|_| client_at("udp", port)).chain([client_at("tcp", port)]).collect();
    for client in &mut clients {
        client.allocate().expect("an allocation");
        client.permit(peer.1).expect("a permission");
        round_trip(client, &peer);
    }
    let listening = get(&server, "/status")["listeners"].to_string();
    assert!(listening.contains(&format!("127.0.0.1:{port}")), "{listening}");

    assert_eq!(reload(&server, &managed(""))["sessions_ended"], 0);
    assert!(!answers(port), "nobody new is served");
    assert!(TcpStream::connect(at(port)).is_err());
    let listening = get(&server, "/status")["listeners"].to_string();
    assert!(!listening.contains(&format!(":{port}")), "{listening}");
    for client in clients.iter_mut().chain([&mut old]) {
        round_trip(client, &peer);
        client.permit(peer.1).expect("requests are answered, too");
    }
    assert!(UdpSocket::bind(at(port)).is_err(), "it is open as long as it has sessions");

    // It can come back meanwhile.
    reload(&server, &added);
    assert!(answers(port));
    round_trip(&mut clients[0], &peer);
    reload(&server, &managed(""));
    clients.iter_mut().for_each(|client| client.delete().expect("to let go"));
    server.await_log(|log| log.contains("nobody has a session there any more").then_some(()));
    let deadline = Instant::now() + PATIENCE;
    while UdpSocket::bind(at(port)).is_err() {
        assert!(Instant::now() < deadline, "the port is still taken");
        std::thread::yield_now();
    }
    round_trip(&mut old, &peer);
    // And once more, on a place that was used before.
    reload(&server, &added);
    client_at("udp", port).allocate().expect("an allocation");
}

/// Ports that the system chose are told apart by their order alone.
#[test]
fn listeners_without_a_port_of_their_own_keep_theirs() {
    let with = |more: &str| format!("{}{TLS}", managed(more));
    let server = Server::start(&with(""));
    let listening = || get(&server, "/status")["listeners"].clone();
    let before = listening();
    reload(&server, &with("[lifetimes]\nchannel-lifetime = \"9m\"\n"));
    assert_eq!(listening(), before);
}

#[test]
fn what_a_listener_serves_changes() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let with = |more: &str| managed(&format!("{}{more}", listener(port, "\"udp\", \"tcp\"")));
    let server = Server::start(&with(""));
    let peer = peer();
    let mut both = [client_at("udp", port), client_at("tcp", port)];
    for client in &mut both {
        client.allocate().expect("an allocation");
        client.permit(peer.1).expect("a permission");
    }
    // Another realm for those who come.
    let south =
        "realm = \"south.gov\"\n[[realm]]\nname = \"south.gov\"\n[[realm.user]]\nname = \"u\"\npassword = \"p\"\n";
    reload(&server, &with(south));
    for transport in ["udp", "tcp"] {
        Client::new(transport, at(port), Some(("u", "p"))).allocate().expect("an allocation");
        assert!(client_at(transport, port).allocate().is_err());
    }
    both.iter_mut().for_each(|client| round_trip(client, &peer));
    // TCP alone.
    let alone = managed(&listener(port, "\"tcp\""));
    reload(&server, &alone);
    assert!(!answers(port));
    client_at("tcp", port).allocate().expect("an allocation");
    both.iter_mut().for_each(|client| round_trip(client, &peer));
}
