//! RFC 8656 §12.4 to §12.6: ChannelData.

use crate::setup::{Peer, Session, connected, server};
use crate::wire::{channel_data, padded_channel_data};

fn bound(session: Session) -> (Session, Peer, std::net::SocketAddr) {
    let (mut session, peer, relayed) = connected(session);
    session.bind(0x4000, peer.address);
    (session, peer, relayed)
}

#[test]
fn r8656_12_4_01_12_5_01_02_data_of_a_bound_peer_come_as_channel_data() {
    // The client checks length field and padding: over TCP it must be there and zero.
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = bound(session);
        for length in [0, 1, 2, 3, 4, 5, 6, 7, 8, 1200, 9000, session.longest_data()] {
            let data: Vec<u8> = (0..length).map(|place| (place * 3 + length) as u8).collect();
            peer.send(&data, relayed);
            let (number, received) = session.channel();
            assert!(number == 0x4000 && received == data, "{length} bytes");
        }
    }
}

#[test]
fn r8656_12_5_01_channel_data_also_after_a_send_indication() {
    let server = server(&[]);
    let (mut session, peer, relayed) = bound(Session::udp(&server));
    session.send_to(peer.address, b"by Send");
    assert_eq!(peer.receive(), (b"by Send".to_vec(), relayed));
    peer.send(b"back", relayed);
    assert_eq!(session.channel(), (0x4000, b"back".to_vec()));
}

#[test]
fn r8656_12_5_03_12_6_06_over_udp_with_and_without_padding() {
    let server = server(&[]);
    let (mut session, peer, relayed) = bound(Session::udp(&server));
    for length in 0..9usize {
        let data = vec![7; length];
        for message in [channel_data(0x4000, &data), padded_channel_data(0x4000, &data)] {
            session.send(&message);
            assert_eq!(peer.receive(), (data.clone(), relayed));
        }
    }
}

#[test]
fn r8656_12_6_01_numbers_that_are_no_channels_are_discarded() {
    let server = server(&[]);
    let (mut session, peer, _) = bound(Session::udp(&server));
    for number in [0x5000, 0x5FFF, 0x6000, 0x7FFF, 0x8000, 0xBFFF, 0xC000, 0xFFFF] {
        session.relays_nothing(&peer, &channel_data(number, b"data"));
    }
    assert!(session.fence().is_empty());
}

#[test]
fn r8656_12_6_02_a_datagram_shorter_than_it_claims_is_discarded() {
    let server = server(&[]);
    let (mut session, peer, _) = bound(Session::udp(&server));
    let message = channel_data(0x4000, b"eight by");
    for length in 0..message.len() {
        session.relays_nothing(&peer, &message[..length]);
    }
    session.relays_nothing(&peer, &[0x40, 0, 0xFF, 0xFF, 1, 2, 3]);
}

#[test]
fn r8656_12_6_03_messages_on_a_stream_stay_aligned() {
    let server = server(&[]);
    let (mut session, peer, relayed) = bound(Session::tcp(&server));
    let mut stream = Vec::new();
    for length in [1usize, 3, 0, 5, 2, 7, 1201, 4] {
        stream.extend(padded_channel_data(0x4000, &vec![length as u8; length]));
    }
    session.send(&stream);
    for length in [1usize, 3, 0, 5, 2, 7, 1201, 4] {
        assert_eq!(peer.receive(), (vec![length as u8; length], relayed));
    }
    assert!(session.fence().is_empty());
}

#[test]
fn r8656_12_6_03_whatever_the_padding_of_a_stream_holds() {
    let server = server(&[]);
    let (mut session, peer, relayed) = bound(Session::tcp(&server));
    let mut message = channel_data(0x4000, b"12345");
    message.extend([0xFF; 3]);
    session.send(&message);
    session.send(&padded_channel_data(0x4000, b"next"));
    assert_eq!(peer.receive(), (b"12345".to_vec(), relayed));
    assert_eq!(peer.receive(), (b"next".to_vec(), relayed));
}

#[test]
fn r8656_12_6_04_an_unbound_channel_is_discarded() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = bound(session);
        session.relays_nothing(&peer, &padded_channel_data(0x4001, b"data"));
        assert!(session.fence().is_empty());
    }
}

#[test]
fn r8656_12_6_06_the_peer_gets_the_data_and_nothing_else() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = bound(session);
        for length in [1, 2, 3, 4, 5, 1199, 1200, 9001, session.longest_data()] {
            let data: Vec<u8> = (0..length).map(|place| (place * 11 + length) as u8).collect();
            session.send(&padded_channel_data(0x4000, &data));
            let (received, from) = peer.receive();
            assert!(from == relayed && received == data, "{length} bytes");
        }
    }
}

#[test]
fn r8656_12_6_07_length_0_makes_an_empty_datagram() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = bound(session);
        session.send(&[0x40, 0, 0, 0]);
        assert_eq!(peer.receive(), (Vec::new(), relayed));
    }
}

#[test]
fn channel_data_keep_their_order_in_both_directions() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = bound(session);
        for round in 0..50u32 {
            for count in 0..20u32 {
                session.send(&padded_channel_data(0x4000, &(round * 20 + count).to_be_bytes()));
            }
            for count in 0..20u32 {
                assert_eq!(peer.receive().0, (round * 20 + count).to_be_bytes());
            }
            for count in 0..20u32 {
                peer.send(&(round * 20 + count).to_be_bytes(), relayed);
            }
            for count in 0..20u32 {
                assert_eq!(session.channel().1, (round * 20 + count).to_be_bytes());
            }
        }
    }
}
