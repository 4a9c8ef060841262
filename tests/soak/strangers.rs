//! Who comes without being let in: wrong passwords, handshakes that are not finished, connections that say nothing, junk.

use std::{io::Write, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::{
    caller::{Account, Caller},
    common::dtls,
    wire::allocate,
    world::{Way, World},
};

pub(crate) fn knock(world: &World, rng: &mut StdRng) {
    world.attempt("strangers came", || {
        let way = Way::any(rng);
        let mut caller = Caller::open(world, way, &Account { user: "alice".into(), password: "guessed".into() });
        caller.fail(&allocate, 401);
        world.abandon(caller.0.client);

        // A ClientHello without a cookie; now and then one with it, and no more.
        let mut half = dtls::prepare(&world.folder, world.udp_socket(world.address(Way::Dtls4)));
        half.get_mut().lose = rng.random_range(0..2)..usize::MAX;
        half.do_handshake().expect_err("a handshake without an answer");

        // Half a message, or nothing, until the server has had enough.
        let way = if rng.random() { Way::Tcp4 } else { Way::Tls4 };
        let mut silent = world.tcp_stream(world.address(way));
        if rng.random() {
            silent.write_all(&[0x16, 3, 1, 0, 200, 1, 0][..rng.random_range(1..7)]).expect("writing to the server");
        }

        let socket = world.udp_socket(world.address(Way::Udp4));
        let junk: Vec<u8> = (0..rng.random_range(0..300)).map(|_| rng.random()).collect();
        socket.send(&junk).expect("sending junk");
        world.idle(Duration::from_millis(rng.random_range(500..1500)));
    });
}
