//! The interfaces that the program is put at.

use std::{collections::BTreeSet, fs, net::IpAddr};

use super::kernel::Mode;
use crate::{config::Settings, relay::system};

/// An interface that packets come and go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    pub(super) driver: String,
    /// The interface below it, and the VLAN there.
    vlan: Option<(String, u32, u16)>,
}

impl Target {
    /// The interface that the program is attached to, and the VLAN in which packets travel there: in the driver they have their tag,
    /// further up they do not.
    pub(super) fn at(&self, mode: Mode) -> (&str, u32, u16) {
        match (&self.vlan, mode) {
            (Some((name, index, vlan)), Mode::Native) => (name, *index, *vlan),
            _ => (&self.name, self.index, 0),
        }
    }
}

/// Why this mode is not for these interfaces.
///
/// # Errors
/// Further up than the driver, a frame whose tag the hardware has taken away looks like one that had none: where both may come in,
/// they cannot be told apart.
pub(super) fn suit(targets: &[Target], mode: Mode) -> Result<(), String> {
    let below = |target: &Target| {
        let (name, index, vlan) = target.vlan.clone().filter(|_| mode == Mode::Generic)?;
        targets.iter().any(|plain| plain.index == index).then_some((name, vlan))
    };
    let Some((target, (name, vlan))) = targets.iter().find_map(|target| Some((target, below(target)?))) else {
        return Ok(());
    };
    Err(format!(
        "generic mode cannot tell the frames of {} (VLAN {vlan} of {name}) from those of {name} itself: leave one of them out of \
         offload.interfaces, or use native mode",
        target.name
    ))
}

/// The interfaces of the configuration, or those that carry its addresses.
pub(super) fn choose(settings: &Settings) -> Result<Vec<Target>, String> {
    let wanted = &settings.offload.interfaces;
    if !wanted.is_empty() {
        return wanted.iter().map(|name| target(name)).collect();
    }
    let all = if_addrs::get_if_addrs().map_err(|error| format!("this host does not tell its interfaces: {error}"))?;
    let listening = settings.listeners.iter().filter(|listener| listener.udp).flat_map(|listener| &listener.addresses);
    let wanted: Vec<IpAddr> =
        listening.copied().chain(settings.relay.addresses.iter().map(|relay| relay.local)).collect();
    let carries = |ip: IpAddr| {
        wanted.iter().any(|wanted| *wanted == ip || wanted.is_unspecified() && wanted.is_ipv4() == ip.is_ipv4())
    };
    let names: BTreeSet<&str> =
        all.iter().filter(|entry| !entry.is_loopback() && carries(entry.ip())).map(|entry| &*entry.name).collect();
    if names.is_empty() {
        return Err("no interface but loopback carries a listening or relay address".to_owned());
    }
    names.into_iter().map(target).collect()
}

fn target(name: &str) -> Result<Target, String> {
    let index = system::interface_index(name).ok_or_else(|| format!("there is no interface {name}"))?;
    let mac = system::hardware_address(name).map_err(|error| format!("{name}: {error}"))?;
    let mac = mac.ok_or_else(|| format!("{name} is no Ethernet interface"))?;
    let vlan = vlan_below(name).and_then(|(below, vlan)| Some((below.clone(), system::interface_index(&below)?, vlan)));
    let below = vlan.as_ref().map_or(name, |(below, ..)| below);
    let driver = system::driver(below).unwrap_or_else(|_| "unknown driver".to_owned());
    Ok(Target { name: name.to_owned(), index, mac, driver, vlan })
}

/// The interface below a VLAN's, and the VLAN's number.
fn vlan_below(name: &str) -> Option<(String, u16)> {
    // Not there where no VLAN is.
    find_vlan(&fs::read_to_string("/proc/self/net/vlan/config").ok()?, name)
}

/// Lines `eth0.5         | 5  | eth0` after a head.
fn find_vlan(list: &str, name: &str) -> Option<(String, u16)> {
    list.lines().find_map(|line| {
        let mut parts = line.split('|').map(str::trim);
        let (this, number, below) = (parts.next()?, parts.next()?, parts.next()?);
        Some((below.to_owned(), number.parse().ok()?)).filter(|_| this == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_is_found_by_its_name() {
        let list = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                    eth0.5         | 5  | eth0\nwan            | 4094  | eth1\n";
        assert_eq!(find_vlan(list, "wan"), Some(("eth1".to_owned(), 4094)));
        assert_eq!(find_vlan(list, "eth0.5"), Some(("eth0".to_owned(), 5)));
        assert_eq!(find_vlan(list, "eth0"), None);
    }

    #[test]
    fn in_front_of_the_stack_a_device_and_a_vlan_on_it_do_not_go_together() {
        let plain = Target { name: "eth0".into(), index: 2, mac: [0; 6], driver: String::new(), vlan: None };
        let other = Target { name: "eth1".into(), index: 5, ..plain.clone() };
        let tagged = Target { name: "wan".into(), index: 3, vlan: Some(("eth0".into(), 2, 7)), ..plain.clone() };
        let both = [other.clone(), tagged.clone(), plain.clone()];
        assert_eq!(suit(&both, Mode::Native), Ok(()));
        assert_eq!(suit(&[other, tagged], Mode::Generic), Ok(()));
        let why = suit(&both, Mode::Generic).unwrap_err();
        assert!(why.contains("the frames of wan (VLAN 7 of eth0) from those of eth0 itself"), "{why}");
    }

    #[test]
    fn in_the_driver_the_program_is_below_a_vlan() {
        let plain = Target { name: "eth0".into(), index: 2, mac: [0; 6], driver: String::new(), vlan: None };
        let tagged = Target { name: "wan".into(), index: 3, vlan: Some(("eth0".into(), 2, 7)), ..plain.clone() };
        assert_eq!([Mode::Native, Mode::Generic].map(|mode| plain.at(mode)), [("eth0", 2, 0); 2]);
        assert_eq!([Mode::Native, Mode::Generic].map(|mode| tagged.at(mode)), [("eth0", 2, 7), ("wan", 3, 0)]);
    }
}
