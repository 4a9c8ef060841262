//! The program and its tables in the kernel. Cold: what is done here is a few system calls per change.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::{ProgramError, Xdp, XdpFlags},
};

use super::{
    layout::{Channel, Count, Door, DoorKey, Flow, FlowKey, Interface, Ports},
    report::OffloadCounts,
    slots::{Slot, Slots},
};

/// Compiled by build.rs from `bpf/relay.bpf.c`.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/relay.bpf.o"));

/// Its name in there.
const NAME: &str = "turn_relay";

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Native,
    Generic,
}

impl Mode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> XdpFlags {
        match self {
            Self::Native => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

/// The program in the kernel. It is detached, and all of it gone, when this is dropped, or when the process ends in any way.
pub(super) struct Kernel {
    ebpf: Ebpf,
    tables: Mutex<Tables>,
}

struct Tables {
    ports: Array<MapData, Ports>,
    places: HashMap<MapData, FlowKey, u32>,
    flows: Array<MapData, Flow>,
    counts: PerCpuArray<MapData, Count>,
    events: PerCpuArray<MapData, u64>,
    slots: Slots,
    /// Channels for which there was no room.
    refused: u64,
}

/// A channel that the kernel relays.
#[derive(Debug)]
pub(super) struct Relayed {
    slot: Slot,
    flows: [Flow; 2],
    /// What was counted when it was last asked.
    seen: [Count; 2],
}

impl Kernel {
    /// Loads the program with room for so many channels; it runs nowhere yet.
    pub(super) fn load(channels: u32) -> Result<Self, String> {
        let mut loader = EbpfLoader::new();
        for table in ["PLACES", "FLOWS", "COUNTS"] {
            loader.set_max_entries(table, 2 * channels);
        }
        // The program uses nothing of the kernel that would differ between kernels.
        let mut ebpf = loader.btf(None).load(PROGRAM).map_err(|error| because(&error))?;
        program(&mut ebpf)?.load().map_err(|error| because(&error))?;
        let tables = Tables {
            ports: Array::try_from(table(&mut ebpf, "PORTS")?).map_err(|error| because(&error))?,
            places: HashMap::try_from(table(&mut ebpf, "PLACES")?).map_err(|error| because(&error))?,
            flows: Array::try_from(table(&mut ebpf, "FLOWS")?).map_err(|error| because(&error))?,
            counts: PerCpuArray::try_from(table(&mut ebpf, "COUNTS")?).map_err(|error| because(&error))?,
            events: PerCpuArray::try_from(table(&mut ebpf, "EVENT_COUNTS")?).map_err(|error| because(&error))?,
            slots: Slots::new(channels),
            refused: 0,
        };
        Ok(Self { ebpf, tables: Mutex::new(tables) })
    }

    /// Tells the program which ports are this server's.
    pub(super) fn set_ports(&self, ports: &Ports) -> Result<(), String> {
        self.lock().ports.set(0, ports, 0).map_err(|error| because(&error))
    }

    /// Tells the program by which way packets come to an interface.
    pub(super) fn set_door(&mut self, key: &DoorKey, door: &Door) -> Result<(), String> {
        let table = self.ebpf.map_mut("DOORS").ok_or("the program has no table DOORS")?;
        let mut table: HashMap<_, DoorKey, Door> = HashMap::try_from(table).map_err(|error| because(&error))?;
        table.insert(key, door, 0).map_err(|error| because(&error))
    }

    /// Tells the program how an interface is reached, by its index.
    pub(super) fn set_interface(&mut self, index: u32, interface: &Interface) -> Result<(), String> {
        let table = self.ebpf.map_mut("INTERFACES").ok_or("the program has no table INTERFACES")?;
        let mut table: HashMap<_, u32, Interface> = HashMap::try_from(table).map_err(|error| because(&error))?;
        table.insert(index, interface, 0).map_err(|error| because(&error))
    }

    /// Puts the program at an interface.
    pub(super) fn attach(&mut self, index: u32, mode: Mode) -> Result<Attached, io::Error> {
        let program = program(&mut self.ebpf).map_err(io::Error::other)?;
        let link = program.attach_to_if_index(index, mode.flags()).map_err(|error| match error {
            ProgramError::SyscallError(error) => error.io_error,
            other => io::Error::other(because(&other)),
        })?;
        program.take_link(link).map(Attached).map_err(|error| io::Error::other(because(&error)))
    }

    #[cfg(test)]
    pub(super) fn descriptor(&mut self) -> std::os::fd::OwnedFd {
        use std::os::fd::AsFd;
        let program = program(&mut self.ebpf).unwrap();
        program.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // What a panic can leave behind is a flow with its deadline.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry that means nothing and removes it, to see whether that is allowed.
    pub(super) fn try_writing(&self) -> io::Result<()> {
        let nobody = std::net::SocketAddr::from(([0; 4], 0));
        let channel = Channel {
            number: crate::stun::ChannelNumber(0),
            client: nobody,
            server: nobody,
            relay: nobody,
            peer: nobody,
            hairpin: false,
        };
        let key = channel.flows(0)[0].key;
        let mut tables = self.lock();
        let written = tables.places.insert(key, 0, 0).and_then(|()| tables.places.remove(&key));
        written.map_err(|error| match error {
            MapError::SyscallError(error) => error.io_error,
            other => io::Error::other(because(&other)),
        })
    }

    /// Begins to relay a channel until `deadline`. What was counted in its place for the channel before and has not been asked
    /// for comes back, too. `None` if there is no room.
    pub(super) fn put(&self, channel: &Channel, deadline: Duration) -> Option<(Relayed, [Count; 2])> {
        let mut tables = self.lock();
        let (slot, before) = tables.slots.take(Instant::now())?;
        let seen = tables.counts(slot).unwrap_or(before);
        let late = difference(seen, before);
        let relayed = Relayed { slot, flows: channel.flows(nanoseconds(deadline)), seen };
        let written = tables.write(&relayed).and_then(|()| {
            let mut entries = relayed.flows.iter().zip(slot.places());
            entries.try_for_each(|(flow, place)| tables.places.insert(flow.key, place, 0))
        });
        if written.is_ok() {
            return Some((relayed, late));
        }
        // What was late is counted with this place's next channel.
        tables.end(Relayed { seen: before, ..relayed });
        None
    }

    /// Counts a channel for which there was no room.
    pub(super) fn count_refused(&self) {
        self.lock().refused += 1;
    }

    /// Sets another deadline.
    pub(super) fn set_deadline(&self, relayed: &mut Relayed, deadline: Duration) {
        for flow in &mut relayed.flows {
            flow.deadline = nanoseconds(deadline);
        }
        // A place that has been written once can be written again; if not, the old deadline holds.
        let _ = self.lock().write(relayed);
    }

    /// What was relayed since the last time: to the peer, to the client.
    pub(super) fn read(&self, relayed: &mut Relayed) -> [Count; 2] {
        self.lock().read(relayed)
    }

    /// Stops relaying a channel; returns what was relayed since the last time.
    pub(super) fn end(&self, mut relayed: Relayed) -> [Count; 2] {
        let mut tables = self.lock();
        tables.stop(&mut relayed);
        let counted = tables.read(&mut relayed);
        tables.rest(relayed);
        counted
    }

    /// Stops relaying a channel without asking what was relayed, which [`Kernel::late`] will say.
    pub(super) fn abandon(&self, relayed: Relayed) {
        self.lock().end(relayed);
    }

    /// What was relayed for channels that have ended and has not been asked for.
    pub(super) fn late(&self) -> [Count; 2] {
        let tables = self.lock();
        let mut sum = [Count::default(); 2];
        for (slot, seen) in tables.slots.resting() {
            let late = difference(tables.counts(slot).unwrap_or(seen), seen);
            for (sum, late) in sum.iter_mut().zip(late) {
                sum.packets += late.packets;
                sum.bytes += late.bytes;
            }
        }
        sum
    }

    /// Why packets were passed up.
    pub(super) fn events(&self) -> OffloadCounts {
        let tables = self.lock();
        let sum = |at| tables.events.get(&at, 0).map_or(0, |values| values.iter().sum::<u64>());
        let mut counts = OffloadCounts { no_room: tables.refused, ..OffloadCounts::default() };
        let passed = counts.passed.iter_mut().map(|(_, packets)| packets);
        for (count, at) in passed.chain([&mut counts.lost]).zip(0..) {
            *count = sum(at);
        }
        counts
    }
}

impl Tables {
    fn write(&mut self, relayed: &Relayed) -> Result<(), MapError> {
        let mut entries = relayed.flows.iter().zip(relayed.slot.places());
        entries.try_for_each(|(flow, place)| self.flows.set(place, flow, 0))
    }

    fn counts(&self, slot: Slot) -> Result<[Count; 2], MapError> {
        let mut sums = [Count::default(); 2];
        for (sum, place) in sums.iter_mut().zip(slot.places()) {
            for count in self.counts.get(&place, 0)?.iter() {
                sum.packets += count.packets;
                sum.bytes += count.bytes;
            }
        }
        Ok(sums)
    }

    fn read(&self, relayed: &mut Relayed) -> [Count; 2] {
        // Where it cannot be read it is read later.
        let now = self.counts(relayed.slot).unwrap_or(relayed.seen);
        difference(now, std::mem::replace(&mut relayed.seen, now))
    }

    /// Ends the flows: at once by their deadlines, then by their names, unless those lead to another channel by now.
    fn stop(&mut self, relayed: &mut Relayed) {
        for flow in &mut relayed.flows {
            flow.deadline = 0;
        }
        let _ = self.write(relayed);
        for (flow, place) in relayed.flows.iter().zip(relayed.slot.places()) {
            if self.places.get(&flow.key, 0).is_ok_and(|found| found == place) {
                let _ = self.places.remove(&flow.key);
            }
        }
    }

    fn rest(&mut self, relayed: Relayed) {
        self.slots.give_back((relayed.slot, relayed.seen), Instant::now());
    }

    fn end(&mut self, mut relayed: Relayed) {
        self.stop(&mut relayed);
        self.rest(relayed);
    }
}

/// The program at an interface; it is taken away when this is dropped.
#[derive(Debug)]
pub(super) struct Attached(#[allow(dead_code, reason = "held for its end")] aya::programs::xdp::XdpLink);

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, String> {
    let program = ebpf.program_mut(NAME).ok_or("the program is not in its file")?;
    program.try_into().map_err(|error: ProgramError| because(&error))
}

fn table(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, String> {
    ebpf.take_map(name).ok_or_else(|| format!("the program has no table {name}"))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn difference(now: [Count; 2], before: [Count; 2]) -> [Count; 2] {
    let less = |at: usize| Count {
        packets: now[at].packets.wrapping_sub(before[at].packets),
        bytes: now[at].bytes.wrapping_sub(before[at].bytes),
    };
    [less(0), less(1)]
}

/// An error with all its causes, on one line.
fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    // The verifier tells the way first, and what was wrong at its end, before its statistics and the error of the call.
    let told = |line: &&str| {
        let line = line.trim();
        !(line.is_empty()
            || line.starts_with(':')
            || ["processed ", "verification time", "stack depth"].iter().any(|start| line.starts_with(start)))
    };
    let first = text.lines().next().unwrap_or_default();
    match text.lines().skip(1).filter(told).last() {
        Some(last) => format!("{first} … {last}"),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error(
        "the BPF_PROG_LOAD syscall returned Permission denied. Verifier output: 0: R1=ctx()\n63: r2 += r1\nR2 has pointer with unsupported alu operation\nprocessed 64 insns\n"
    )]
    struct Refused(#[source] io::Error);

    #[test]
    fn of_the_verifier_the_line_is_told_that_says_what_was_wrong() {
        let told = because(&Refused(io::Error::from_raw_os_error(libc::EACCES)));
        assert!(told.ends_with("… R2 has pointer with unsupported alu operation"), "{told}");
    }
}
