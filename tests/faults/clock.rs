//! The clock on the wall, set back and forward while the server runs. Only that is set here: the clock that counts from boot cannot be.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libc::ENOMEM;
use turnserver::{
    auth::{
        key::md5_key,
        rest::{RestAlgorithm, RestSecret},
    },
    stun::{AttributeType, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId},
};

use crate::{
    call::{CHANNEL, Call, configuration},
    common::{
        REALM, Server,
        client::{Link, loopback_socket},
    },
    inject::{Call as Syscall, Faults},
};

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// Seconds since 1970, by the right clock.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(since.as_secs()).expect("a time before the sun ends")
}

/// The error that an Allocate with time-limited credentials gets, if it gets one: these are good until `expiry`.
fn allocate_until(server: &Server, expiry: i64) -> Option<u16> {
    let secret = RestSecret {
        name: "here".into(),
        tenant: None,
        algorithm: RestAlgorithm::Sha1,
        key: b"a secret of the tests".to_vec().into(),
    };
    let user = format!("{expiry}:alice");
    let key = md5_key(&user, REALM, &secret.password(&user)).expect("plain ASCII");
    let key = IntegrityKey::new(MacAlgorithm::Sha1, key.as_bytes());
    let mut socket = loopback_socket();
    let mut nonce = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let id = TransactionId(rand::random());
        let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Request, id);
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        if !nonce.is_empty() {
            writer.attribute(AttributeType::USERNAME, user.as_bytes());
            writer.attribute(AttributeType::REALM, REALM.as_bytes());
            writer.attribute(AttributeType::NONCE, &nonce);
            writer.integrity(&key);
        }
        let len = writer.finish().expect("room for a request");
        let response = socket.exchange(server.ipv4("udp"), &buffer[..len]).expect("an answer");
        let response = Message::parse(&response).expect("a STUN message");
        let error =
            response.get(AttributeType::ERROR_CODE).map(|error| u16::from(error[2]) * 100 + u16::from(error[3]));
        if !nonce.is_empty() || error != Some(401) {
            return error;
        }
        nonce = response.get(AttributeType::NONCE).expect("a nonce").to_vec();
    }
}

/// Everything that a call needs, with the nonce that it has: data, a refresh, a permission, the channel again.
fn goes_on(call: &mut Call) {
    call.exchange(b"data");
    let peer = call.peer.local_addr().expect("an address");
    call.client.succeed(Method::Refresh, |writer| {
        writer.u32(AttributeType::LIFETIME, 600);
    });
    call.client.permit(peer);
    call.client.bind(CHANNEL, peer);
    call.exchange(b"more data");
}

#[test]
fn a_clock_that_is_set_ends_no_call_and_spoils_no_nonce() {
    let faults = Faults::new();
    let server = faults.start(&configuration(2));
    let mut call = Call::new(&server);
    for ahead in [HOUR, -HOUR, YEAR, 20 * YEAR, -YEAR, -now(), -now() - YEAR, 0] {
        faults.set_clock(ahead);
        goes_on(&mut call);
        // Who comes new meanwhile, too.
        goes_on(&mut Call::new(&server));
    }
    server.stop();
}

#[test]
fn time_limited_credentials_go_by_the_clock_as_it_is() {
    let faults = Faults::new();
    let mut text = configuration(1);
    text = text.replace(
        "[[auth.user]]\nname = \"alice\"\npassword = \"secret\"\n",
        "static-auth-secret = \"a secret of the tests\"\n",
    );
    // A host without a clock of its own begins in 1970, until it has asked for the time.
    faults.set_clock(-now() + 5);
    let server = faults.start(&text);
    let expiry = now() + HOUR;
    assert_eq!(allocate_until(&server, expiry), None, "not expired in 1970");
    faults.set_clock(0);
    assert_eq!(allocate_until(&server, expiry), None);
    faults.set_clock(2 * HOUR);
    assert_eq!(allocate_until(&server, expiry), Some(401), "expired");
    faults.set_clock(0);
    assert_eq!(allocate_until(&server, expiry), None);
    server.stop();
}

#[test]
fn complaints_are_made_after_the_clock_was_set_back() {
    let faults = Faults::new();
    let server = faults.start(&configuration(1));
    let call = Call::new(&server);
    let complaints = |server: &Server| server.log().matches("cannot receive").count();
    let fails = || {
        faults.inject(Syscall::RecvMmsg, ENOMEM, 1);
        call.exchange(b"data");
    };
    fails();
    server.await_logged("cannot receive");
    faults.set_clock(-YEAR);
    // At most one in ten seconds.
    thread::sleep(Duration::from_millis(10_500));
    fails();
    crate::call::until("there is a complaint", || complaints(&server) == 2);
    server.stop();
}
