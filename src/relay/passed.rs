//! Listening sockets that were opened before this process was started (socket activation). Those that match a configured
//! listener by transport and address are used in the place of sockets of our own.
//!
//! Each worker needs a UDP socket of its own, over which the kernel spreads clients (SO_REUSEPORT), and no more can be opened here
//! beside one that another user has opened. So the workers that there are passed sockets for read them; all others only send from
//! them. TCP has no such trouble: any worker may accept any connection.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Socket, Type};

use super::{
    listeners::Pane,
    start::StartError,
    system::{self, Io},
};

/// Sockets by address.
#[derive(Debug, Default)]
pub struct PassedSockets {
    sockets: Vec<(String, Socket)>,
    /// UDP addresses that were found among them so far.
    udp_ports: usize,
}

impl PassedSockets {
    /// Sockets by the names that they were given.
    pub fn new(sockets: impl IntoIterator<Item = (String, Socket)>) -> Self {
        Self { sockets: sockets.into_iter().collect(), udp_ports: 0 }
    }

    /// Takes those for this address.
    fn take(&mut self, kind: Type, address: SocketAddr, workers: usize) -> Result<Vec<Socket>, StartError> {
        let wanted = |(_, socket): &mut (_, Socket)| address_of(socket) == Some(address) && is_a(socket, kind);
        let (names, sockets): (Vec<_>, Vec<_>) = self.sockets.extract_if(.., wanted).unzip();
        let refuse = |name: &str, fault: &str| {
            let transport = if kind == Type::DGRAM { "UDP" } else { "TCP" };
            Err(StartError::Passed(format!("the passed socket {name} ({transport} {address}) {fault}")))
        };
        for (name, socket) in names.iter().zip(&sockets) {
            if kind == Type::STREAM && !listens(socket) {
                return refuse(name, "does not listen: write Accept=no in its .socket unit");
            }
            if address.is_ipv6() && !socket.only_v6()? {
                return refuse(name, "takes IPv4, too: write BindIPv6Only=ipv6-only in its .socket unit");
            }
            socket.set_nonblocking(true)?;
        }
        match names.first() {
            Some(name) if sockets.len() > workers => {
                let fault = format!("is one of {} for {workers} workers: some would be read by nobody", sockets.len());
                refuse(name, &fault)
            }
            _ => Ok(sockets),
        }
    }

    /// The UDP sockets of this address, one for each worker; none if none was passed.
    pub(super) fn udp(
        &mut self,
        address: SocketAddr,
        workers: usize,
        io: Io,
        buffer: Option<usize>,
    ) -> Result<Vec<Pane>, StartError> {
        let sockets = self.take(Type::DGRAM, address, workers)?;
        if sockets.is_empty() {
            return Ok(Vec::new());
        }
        if sockets.len() < workers {
            tracing::warn!(
                %address, sockets = sockets.len(), workers,
                "fewer sockets were passed than there are workers: the others serve no UDP client of this address; repeat \
                 ListenDatagram= with ReusePort=yes in the .socket unit, once for each worker"
            );
        }
        // Addresses begin with different workers, so that single sockets do not all fall to the first.
        let first = self.udp_ports;
        self.udp_ports += 1;
        let of_worker = |worker: usize| {
            let at = (worker + workers - first % workers) % workers;
            let socket = sockets[at % sockets.len()].try_clone()?;
            system::adopt_udp(&socket, address, io, buffer)?;
            Ok(Pane { socket: socket.into(), receives: at < sockets.len() })
        };
        (0..workers).map(of_worker).collect::<io::Result<_>>().map_err(StartError::System)
    }

    /// The TCP listeners of this address, one for each worker; none if none was passed.
    pub(super) fn tcp(&mut self, address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, StartError> {
        let sockets = self.take(Type::STREAM, address, workers)?;
        let clones = sockets.iter().cycle().take(if sockets.is_empty() { 0 } else { workers });
        clones.map(|socket| Ok(socket.try_clone()?.into())).collect::<io::Result<_>>().map_err(StartError::System)
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(self) -> Result<(), StartError> {
        let Some((name, socket)) = self.sockets.first() else { return Ok(()) };
        let what = match address_of(socket) {
            Some(address) if is_a(socket, Type::DGRAM) => format!("UDP {address}"),
            Some(address) if is_a(socket, Type::STREAM) => format!("TCP {address}"),
            _ => "neither UDP nor TCP".to_owned(),
        };
        Err(StartError::Passed(format!(
            "the passed socket {name} ({what}) is none of the configured listeners: correct its .socket unit, or listening-ip, \
             listening-port and transports"
        )))
    }
}

fn address_of(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn is_a(socket: &Socket, kind: Type) -> bool {
    socket.r#type().is_ok_and(|found| found == kind)
}

fn listens(socket: &Socket) -> bool {
    #[cfg(target_os = "linux")]
    return socket.is_listener().unwrap_or(false);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        true
    }
}
