//! The choice whether and how the kernel relays, made once, at start.

use std::{fmt, fs, io, sync::Arc, time::Duration};

use super::{
    hold::Gate,
    interfaces::{self, Choice, Target},
    kernel::{Attached, Kernel, Mode},
    layout::{Door, DoorKey, Interface, PORT_LISTENER, PORT_RELAY, Ports},
    mirror::traffic,
    privileges::{self, Privileges},
    report::{OffloadCounts, OffloadReport},
};
use crate::{
    config::{Settings, settings::OffloadMode},
    relay::Endpoint,
    turn::{Time, Totals, Transport},
};

/// The kernel's part of the relay.
pub(in super::super) struct Offload {
    pub(super) kernel: Kernel,
    pub(super) gate: Gate,
    /// One moment by the kernel's clock and by this program's, which go on alike.
    moment: (Duration, Time),
    /// Taken away before the program itself.
    _attached: Vec<Attached>,
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").finish_non_exhaustive()
    }
}

impl Offload {
    /// Why packets were passed up.
    pub(in super::super) fn counts(&self) -> OffloadCounts {
        self.kernel.events()
    }

    /// Adds what was relayed for channels in the moment when they ended. To be called once, when all have.
    pub(in super::super) fn count_late(&self, totals: &mut Totals) {
        let [to_peers, to_clients] = self.kernel.late().map(traffic);
        totals.count_kernel(to_peers, to_clients);
    }

    /// The kernel's time of `time`.
    pub(super) fn instant(&self, time: Time) -> Duration {
        let (kernel, here) = self.moment;
        kernel + time.since(here)
    }
}

/// One moment by both clocks. What passes between the two looks makes deadlines early, never late; of some looks the closest is taken.
fn moment(now: impl Fn() -> Time) -> (Duration, Time) {
    let look = |_| {
        let (before, time) = (privileges::monotonic(), now());
        (privileges::monotonic() - before, (before, time))
    };
    (0..8).map(look).min().map_or_else(|| (privileges::monotonic(), now()), |(_, moment)| moment)
}

/// Starts what the configuration asks for, and gives up what it takes, whatever comes of it. `now` is the clock of the workers.
///
/// # Errors
/// What was asked for by name cannot be had; in words for the operator.
pub(in super::super) fn start(
    settings: &Settings,
    endpoints: &[Endpoint],
    privileges: Privileges,
    now: impl Fn() -> Time + Send + 'static,
) -> Result<(Option<Arc<Offload>>, OffloadReport), String> {
    let mode = settings.offload.mode;
    let asked: Option<&'static [Mode]> = match mode {
        OffloadMode::Off => return Ok((None, OffloadReport::Off)),
        OffloadMode::Auto => None,
        OffloadMode::Native => Some(&[Mode::Native]),
        OffloadMode::Generic => Some(&[Mode::Generic]),
    };
    let (settings, endpoints) = (settings.clone(), endpoints.to_vec());
    let tried = privileges.run(move || try_all(&settings, &endpoints, asked, now));
    match tried.unwrap_or_else(|| Err("the thread that has the privileges for it has failed".to_owned())) {
        Ok((offload, report)) => Ok((Some(Arc::new(offload)), report)),
        Err(why) => {
            // CAP_BPF may have been kept to write to tables.
            privileges::give_up_all();
            if mode == OffloadMode::Auto { Ok((None, OffloadReport::Unavailable(why))) } else { Err(why) }
        }
    }
}

/// What [`start`] would try, as far as can be told without touching an interface.
pub(in super::super) fn plan(settings: &Settings) -> OffloadReport {
    if settings.offload.mode == OffloadMode::Off {
        return OffloadReport::Off;
    }
    let tried = interfaces::choose(settings).and_then(|Choice { targets, left_out }| {
        Kernel::load(1).map_err(|error| cannot_load(&error))?;
        let asked = match settings.offload.mode {
            OffloadMode::Native => Some(Mode::Native),
            OffloadMode::Generic => Some(Mode::Generic),
            OffloadMode::Auto | OffloadMode::Off => None,
        };
        let (mode, why) = asked.map_or_else(|| first_choice(&targets), |mode| (mode, None));
        interfaces::suit(&targets, mode)?;
        let interfaces = targets.iter().map(|target| format!("{} ({})", target.name, target.driver)).collect();
        Ok(OffloadReport::On { mode: mode.name(), interfaces, why: together([why, left_out]) })
    });
    tried.unwrap_or_else(OffloadReport::Unavailable)
}

/// The mode to try first, and why, where that needs a word.
fn first_choice(targets: &[Target]) -> (Mode, Option<String>) {
    match targets.iter().find(|target| target.driver == "veth") {
        // What the program sends there natively arrives only if the other end is prepared for it.
        Some(veth) => (Mode::Generic, Some(format!("{} is one end of a veth pair", veth.name))),
        None => (Mode::Native, None),
    }
}

fn try_all(
    settings: &Settings,
    endpoints: &[Endpoint],
    asked: Option<&[Mode]>,
    now: impl Fn() -> Time,
) -> Result<(Offload, OffloadReport), String> {
    let Choice { targets, left_out } = interfaces::choose(settings)?;
    let (first, why) = first_choice(&targets);
    let (modes, mut why) = match (asked, first) {
        (Some(modes), _) => (modes, None),
        (None, Mode::Native) => (&[Mode::Native, Mode::Generic][..], why),
        (None, Mode::Generic) => (&[Mode::Generic][..], why),
    };
    let mut kernel = Kernel::load(settings.offload.channels).map_err(|error| cannot_load(&error))?;
    let ports = ports(settings, endpoints);
    kernel.set_ports(&ports)?;
    let [v4, v6] = [true, false].map(|ipv4| settings.relay.addresses.iter().any(|relay| relay.local.is_ipv4() == ipv4));
    let families = [(v4 || serves(endpoints, true), "ipv4"), (v6 || serves(endpoints, false), "ipv6")];
    let families = families.into_iter().filter_map(|(used, family)| used.then_some(family));
    let mut failed = String::new();
    for mode in modes {
        match attach(&mut kernel, &targets, *mode) {
            Ok(attached) => {
                // As workers will.
                privileges::finish_loading();
                kernel.try_writing().map_err(|error| format!("the program's tables cannot be written to: {error}"))?;
                // Last: nothing of this host is changed for what then fails.
                let_loopback_route(families)?;
                let interfaces = targets.iter().map(|target| target.at(*mode).0.to_owned()).collect();
                let report = OffloadReport::On { mode: mode.name(), interfaces, why: together([why, left_out]) };
                return Ok((
                    Offload { kernel, gate: Gate::new(ports), moment: moment(now), _attached: attached },
                    report,
                ));
            }
            Err(error) => {
                why = Some(error.clone());
                failed = error;
            }
        }
    }
    Err(failed)
}

/// Words about the choice.
fn together(words: [Option<String>; 2]) -> Option<String> {
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn serves(endpoints: &[Endpoint], ipv4: bool) -> bool {
    endpoints.iter().any(|endpoint| endpoint.transport == Transport::Udp && endpoint.address.is_ipv4() == ipv4)
}

/// Puts the program at all interfaces, or at none.
fn attach(kernel: &mut Kernel, targets: &[Target], mode: Mode) -> Result<Vec<Attached>, String> {
    interfaces::suit(targets, mode)?;
    for target in targets {
        let (_, device, vlan) = target.at(mode);
        let mode = mode as u8;
        kernel.set_interface(target.index, &Interface { device, vlan, mode, reserved: 0 })?;
        kernel.set_door(&DoorKey { device, vlan, reserved: 0 }, &Door { mac: target.mac, mode, reserved: 0 })?;
    }
    let mut attached = Vec::new();
    let mut devices = Vec::new();
    for target in targets {
        let (name, index, _) = target.at(mode);
        if devices.contains(&index) {
            continue;
        }
        devices.push(index);
        let link = kernel.attach(index, mode).map_err(|error| cannot_attach(name, mode, &error))?;
        attached.push(link);
    }
    Ok(attached)
}

fn cannot_attach(name: &str, mode: Mode, error: &io::Error) -> String {
    let mode = mode.name();
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => format!(
            "{name} has another XDP program already: take it away (`ip link set dev {name} xdp off` if nothing needs it), or leave \
             {name} out of offload.interfaces"
        ),
        Some(libc::EOPNOTSUPP) => format!("the driver of {name} knows no XDP in {mode} mode"),
        Some(libc::EPERM) => format!("attaching to {name} is not permitted: {NEEDED}"),
        _ => format!("the program cannot be attached to {name} in {mode} mode: {error}"),
    }
}

/// What it takes.
const NEEDED: &str = "the capabilities CAP_BPF and CAP_NET_ADMIN are needed (systemd/offload.conf gives them)";

fn cannot_load(error: &str) -> String {
    if privileges::are_there() {
        format!("the kernel refuses the program (which takes Linux 5.15 or later): {error}")
    } else {
        NEEDED.to_owned()
    }
}

/// What every port may be.
fn ports(settings: &Settings, endpoints: &[Endpoint]) -> Box<Ports> {
    let mut ports = Box::new(Ports([0; 65_536]));
    for port in settings.relay.min_port..=settings.relay.max_port {
        ports.0[usize::from(port)] |= PORT_RELAY;
    }
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.transport == Transport::Udp) {
        ports.0[usize::from(endpoint.address.port())] |= PORT_LISTENER;
    }
    ports
}

/// The program asks for routes as if its packets came from the loopback interface, as this host's own do, and the kernel tells them
/// only for interfaces that forward. Loopback may: nothing comes from there but from this host. If it cannot be had for one family,
/// the others are left as they were.
fn let_loopback_route(families: impl Iterator<Item = &'static str>) -> Result<(), String> {
    let mut changed = Vec::new();
    for family in families {
        let file = format!("/proc/sys/net/{family}/conf/lo/forwarding");
        // A sandbox may hide it; where it is 0 everything is passed up, and counted as forwarding-off.
        if !fs::read_to_string(&file).is_ok_and(|value| value.trim() == "0") {
            continue;
        }
        if let Err(error) = fs::write(&file, "1") {
            // What could be written can be written again.
            changed.iter().for_each(|file| drop(fs::write(file, "0")));
            return Err(format!(
                "net.{family}.conf.lo.forwarding is 0 and cannot be set ({error}): run `sysctl -w net.{family}.conf.lo.forwarding=1`"
            ));
        }
        changed.push(file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread};

    use super::*;

    #[test]
    fn a_stall_between_two_looks_at_the_clocks_makes_no_deadline_late() {
        let (start, looks) = (privileges::monotonic(), Cell::new(0));
        // Its zero is `start`; all looks but one are slow.
        let clock = || {
            looks.set(looks.get() + 1);
            let stall = Duration::from_millis(if looks.get() == 3 { 0 } else { 30 });
            thread::sleep(stall);
            let time = Time(0) + (privileges::monotonic() - start);
            thread::sleep(stall);
            time
        };
        let (kernel, here) = moment(clock);
        let zero = kernel.checked_sub(here.since(Time(0))).unwrap();
        assert!(zero <= start + Duration::from_millis(1), "late by {:?}", zero - start);
        assert!(zero + Duration::from_millis(20) > start, "early by {:?}", start - zero);
    }
}
