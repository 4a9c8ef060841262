//! The choice whether and how the kernel relays, made once, at start.

use std::{fmt, fs, io, sync::Arc, time::Duration};

use super::{
    interfaces::{self, Choice, Target},
    kernel::{Attached, Kernel, Mode},
    layout::{Interface, PORT_LISTENER, PORT_RELAY, Ports},
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
    pub(super) fn instant(&self, time: Time, now: Time) -> Duration {
        privileges::monotonic() + time.since(now)
    }
}

/// Starts what the configuration asks for, and gives up what it takes, whatever comes of it.
///
/// # Errors
/// What was asked for by name cannot be had; in words for the operator.
pub(in super::super) fn start(
    settings: &Settings,
    endpoints: &[Endpoint],
    privileges: Privileges,
) -> Result<(Option<Arc<Offload>>, OffloadReport), String> {
    let mode = settings.offload.mode;
    let asked: Option<&'static [Mode]> = match mode {
        OffloadMode::Off => return Ok((None, OffloadReport::Off)),
        OffloadMode::Auto => None,
        OffloadMode::Native => Some(&[Mode::Native]),
        OffloadMode::Generic => Some(&[Mode::Generic]),
    };
    let (settings, endpoints) = (settings.clone(), endpoints.to_vec());
    let tried = privileges.run(move || try_all(&settings, &endpoints, asked));
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
) -> Result<(Offload, OffloadReport), String> {
    let Choice { targets, left_out } = interfaces::choose(settings)?;
    let (first, why) = first_choice(&targets);
    let (modes, mut why) = match (asked, first) {
        (Some(modes), _) => (modes, None),
        (None, Mode::Native) => (&[Mode::Native, Mode::Generic][..], why),
        (None, Mode::Generic) => (&[Mode::Generic][..], why),
    };
    let mut kernel = Kernel::load(settings.offload.channels).map_err(|error| cannot_load(&error))?;
    kernel.set_ports(&ports(settings, endpoints))?;
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
                return Ok((Offload { kernel, _attached: attached }, report));
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
    let mut attached = Vec::new();
    let mut devices = Vec::new();
    for target in targets {
        let (name, index, vlan) = target.at(mode);
        let entry =
            |vlan| Interface { device: index, vlan, mode: mode as u8, reserved: 0, mac: target.mac, reserved2: [0; 2] };
        kernel.set_interface(target.index, &entry(vlan))?;
        if devices.contains(&index) {
            continue;
        }
        devices.push(index);
        if index != target.index {
            kernel.set_interface(index, &entry(0))?;
        }
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
const NEEDED: &str =
    "the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed (systemd/offload.conf gives them)";

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
