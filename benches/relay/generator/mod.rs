//! The load generator: a process of its own, on processors of its own, the same for every server.
//!
//! One thread does everything without ever waiting: it sends what is due, takes what has come, and counts the time in
//! which there was neither as headroom. All UDP clients share one socket: each has an address of its own, which the socket
//! names in each datagram (IP_PKTINFO), so that a batch of one system call serves 64 clients. To the server they are 64
//! different clients.

mod clients;
mod control;
mod dtls;
mod load;
mod streams;
mod tls;
mod traffic;

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::job::{HELD_LOSS, Job, Limit, LoadResult, Outcome, Task, Workload};
use crate::measure::Subject;
use crate::options::Path;
use crate::system::{self, DatagramOptions, Receiver, Sender};
use clients::Clients;
use control::{Control, Goal};
use load::Load;

/// The port of peers.
const PEER_PORT: u16 = 9;

/// Transactions that wait for their answers while load is prepared.
const SETUP_IN_FLIGHT: usize = 48;

/// A fixed-rate run is repeated at half the rate until the server holds it, so often at most.
const HALVINGS: u32 = 4;

/// A run that is not valid is repeated, so often in all.
const ATTEMPTS: u32 = 3;

/// Does a job and prints its outcome.
#[allow(clippy::print_stdout, reason = "the outcome goes to the process that asked")]
pub(crate) fn main(job: &str) -> Result<(), Box<dyn std::error::Error>> {
    let job: Job = serde_json::from_str(job)?;
    if let Some(namespace) = &job.namespace {
        system::enter_namespace(namespace)?;
    }
    let outcome = perform(&job).unwrap_or_else(|error| Outcome::Failed(error.to_string()));
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn perform(job: &Job) -> io::Result<Outcome> {
    wait_until_up(job)?;
    let subject = Subject::new(job.server_pid, job.server_cpus.clone(), job.filled)?;
    match job.task {
        Task::Load { workload, rate, seconds, latency } => {
            let mut load = prepare(job, subject, workload, latency)?;
            let mut result = run(&mut load, rate, seconds)?;
            for halving in 1..=HALVINGS {
                if latency || result.loss() <= HELD_LOSS {
                    break;
                }
                let slower = run(&mut load, rate >> halving, seconds)?;
                if slower.relayed > 0 {
                    result = slower;
                }
            }
            Ok(Outcome::Load(result))
        }
        Task::Search { workload, rate, seconds } => {
            let mut load = prepare(job, subject, workload, false)?;
            search(&mut load, rate, seconds)
        }
        Task::Memory { allocations } => {
            let mut control = Control::new(allocations);
            let mut clients = Clients::udp(job, DatagramOptions::default())?;
            // One first, so that what a server sets up once is not counted.
            let peer = SocketAddrV4::new(job.peer, PEER_PORT);
            establish(&mut control, &mut clients, 0..1, |_| peer)?;
            std::thread::sleep(Duration::from_millis(300));
            let before = subject.resident()?;
            establish(&mut control, &mut clients, 1..allocations, |_| peer)?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(Outcome::Memory { allocations: allocations - 1, before, after: subject.resident()? })
        }
        Task::Churn { seconds, in_flight } => churn(job, &subject, seconds, in_flight),
    }
}

/// Runs at one rate; again if the run was not valid, so that a busy moment of the machine does not make the result.
fn run(load: &mut Load, rate: u64, seconds: f64) -> io::Result<LoadResult> {
    let mut result = load.run(rate, seconds)?;
    for _ in 1..ATTEMPTS {
        if result.invalid.is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        let again = load.run(rate, seconds)?;
        if again.invalid.is_none() || again.loss() < result.loss() {
            result = again;
        }
    }
    Ok(result)
}

/// Waits until the server answers a Binding request.
fn wait_until_up(job: &Job) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut clients = Clients::udp(job, DatagramOptions::default())?;
    let mut answered = false;
    while !answered {
        if Instant::now() > deadline {
            return Err(io::Error::other("the server does not answer Binding requests"));
        }
        clients.send(0, &control::binding_request());
        clients.flush();
        std::thread::sleep(Duration::from_millis(50));
        clients.receive(|_, _, _| answered = true);
    }
    Ok(())
}

/// Allocates, and binds a channel to each client's peer.
fn establish(
    control: &mut Control,
    clients: &mut Clients,
    range: std::ops::Range<usize>,
    peer_of: impl Fn(&Control) -> SocketAddrV4,
) -> io::Result<()> {
    control.perform(clients, range.clone(), Goal::Allocate, SETUP_IN_FLIGHT)?;
    let peer = peer_of(control);
    for client in range.clone() {
        control.set_peer(client, peer);
    }
    control.perform(clients, range, Goal::Bind, SETUP_IN_FLIGHT)
}

/// Opens sockets, allocations and channels for a workload.
fn prepare(job: &Job, subject: Subject, workload: Workload, stamps: bool) -> io::Result<Load> {
    let options = DatagramOptions { gro: job.receiver_gro, stamps };
    let count = if workload.path == Path::RelayToRelay { 2 * workload.flows } else { workload.flows };
    let mut clients = match workload.path {
        Path::Udp | Path::RelayToRelay => Clients::udp(job, options)?,
        Path::Tcp => Clients::tcp(job, count)?,
        Path::Tls => Clients::tls(job, count)?,
        Path::Dtls => Clients::dtls(job, count)?,
    };
    let socket = UdpSocket::bind((job.peer, 0))?;
    socket.set_nonblocking(true)?;
    system::set_options(&socket, options)?;
    let peer = v4(&socket)?;

    let mut control = Control::new(count);
    control.perform(&mut clients, 0..count, Goal::Allocate, SETUP_IN_FLIGHT)?;
    for client in 0..count {
        let other = if workload.path == Path::RelayToRelay { control.relayed(client ^ 1) } else { peer };
        control.set_peer(client, other);
    }
    control.perform(&mut clients, 0..count, Goal::Bind, SETUP_IN_FLIGHT)?;
    let relayed = (0..count).map(|client| control.relayed(client)).collect();
    let peer = load::Peer { socket, sender: Sender::new(), receiver: Receiver::new(options.gro) };
    Ok(Load::new(subject, workload, job, clients, peer, relayed, stamps))
}

fn v4(socket: &UdpSocket) -> io::Result<SocketAddrV4> {
    match socket.local_addr()? {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(_) => Err(io::Error::other("an IPv6 address")),
    }
}

/// Doubles the rate until it is no longer held, then bisects to 4 %.
fn search(load: &mut Load, rate: u64, seconds: f64) -> io::Result<Outcome> {
    let (mut low, mut high, mut rate) = (0, None, rate);
    let mut best: Option<LoadResult> = None;
    let mut limit = Limit::Server;
    for _ in 0..14 {
        std::thread::sleep(Duration::from_millis(100));
        let result = run(load, rate, seconds)?;
        if result.held() && result.invalid.is_none() {
            low = rate;
            best = Some(result);
        } else {
            limit = if result.invalid.is_some() { Limit::Generator } else { Limit::Server };
            high = Some(rate);
        }
        match high {
            None => rate *= 2,
            Some(high) if high - low <= high / 25 => break,
            Some(high) => rate = u64::midpoint(low, high),
        }
    }
    Ok(Outcome::Search { pps: low, limit, run: best })
}

/// Counts how often clients can come, bind a channel, and go.
fn churn(job: &Job, subject: &Subject, seconds: f64, in_flight: usize) -> io::Result<Outcome> {
    let mut control = Control::new(control::CHURN_CLIENTS);
    let mut clients = Clients::udp(job, DatagramOptions::default())?;
    for client in 0..control::CHURN_CLIENTS {
        control.set_peer(client, SocketAddrV4::new(job.peer, PEER_PORT));
    }
    control.churn(&mut clients, Duration::from_millis(300), in_flight)?;
    let before = subject.read()?;
    let counted = control.churn(&mut clients, Duration::from_secs_f64(seconds), in_flight)?;
    let spent = subject.spent(before, subject.read()?);
    Ok(Outcome::Churn(crate::job::ChurnResult {
        seconds: counted.elapsed.as_secs_f64(),
        cycles: counted.cycles,
        retransmissions: counted.retransmissions,
        cycles_per_busy_second: counted.cycles as f64 / (spent.busy_ns as f64 / 1e9),
        process_ns_per_cycle: spent.process_ns as f64 / counted.cycles.max(1) as f64,
        headroom: counted.idle.as_secs_f64() / counted.elapsed.as_secs_f64(),
    }))
}
