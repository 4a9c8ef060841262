//! Servers that are made up: clouds' metadata, STUN servers that say what they are told to, and broken ones.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use turnserver::stun::{AttributeType, Class, ErrorCode, Message, MessageWriter};

/// A request as a metadata service sees it: method, target, headers in lower case.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether it is a GET of this.
    pub(crate) fn gets(&self, target: &str) -> bool {
        self.method == "GET" && self.target == target
    }
}

/// Serves what the function makes of requests, 404 where that is nothing, until the test ends. Returns the base URL.
pub(crate) fn metadata(answer: impl Fn(&Request) -> Option<String> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(&stream, &*answer));
        }
    });
    base
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Request) -> Option<String>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    });
    let request = Request { method, target, headers: headers.collect() };
    let (status, body) = answer(&request).map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
    let mut stream = stream;
    // Whoever has gone away wants no answer.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}

/// A STUN server that sees everybody at an address that may be changed.
pub(crate) struct Stun {
    pub(crate) address: SocketAddr,
    pub(crate) says: Arc<Mutex<IpAddr>>,
}

impl Stun {
    pub(crate) fn new(says: &str) -> Self {
        let says = Arc::new(Mutex::new(says.parse().expect("an address")));
        let told = Arc::clone(&says);
        let address = udp(move |request, from, writer| {
            let _ = request;
            let seen = SocketAddr::new(*told.lock().expect("the address"), from.port());
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, seen);
            Class::Success
        });
        Self { address, says }
    }
}

/// A server that answers Binding as it should, and Allocate with an error and nothing that belongs to it.
pub(crate) fn bare_challenge() -> SocketAddr {
    udp(|request, from, writer| {
        if request.method() == 1 {
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from);
            return Class::Success;
        }
        writer.error_code(ErrorCode::Unauthenticated);
        Class::Error
    })
}

/// Answers requests over UDP until the test ends.
fn udp(answer: impl Fn(&Message<'_>, SocketAddr, &mut MessageWriter<'_>) -> Class + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let Ok(request) = Message::parse(&buffer[..len]) else { continue };
            // The class stands first, and is known last.
            let mut scratch = [0; 512];
            let mut writer = MessageWriter::response(&mut scratch, request.head(), Class::Success);
            let class = answer(&request, from, &mut writer);
            let mut out = [0; 512];
            let mut writer = MessageWriter::response(&mut out, request.head(), class);
            answer(&request, from, &mut writer);
            let len = writer.finish().expect("room");
            let _ = socket.send_to(&out[..len], from);
        }
    });
    address
}
