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

/// Where the program is to be put.
pub(super) struct Choice {
    pub(super) targets: Vec<Target>,
    /// A word about interfaces that carry addresses and cannot have it.
    pub(super) left_out: Option<String>,
}

/// The interfaces of the configuration, or those that carry its addresses.
pub(super) fn choose(settings: &Settings) -> Result<Choice, String> {
    let wanted = &settings.offload.interfaces;
    if !wanted.is_empty() {
        let named = |name: &String| target(name)?.ok_or_else(|| format!("{name} is no Ethernet interface"));
        return Ok(Choice { targets: wanted.iter().map(named).collect::<Result<_, _>>()?, left_out: None });
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
    leave_out(names.into_iter().map(|name| Ok((name, target(name)?))).collect::<Result<_, String>>()?)
}

/// Does without those that are no Ethernet interfaces (tunnels like wg0, tun0 and ppp0), if there are others.
fn leave_out(found: Vec<(&str, Option<Target>)>) -> Result<Choice, String> {
    let others: Vec<&str> = found.iter().filter(|(_, target)| target.is_none()).map(|(name, _)| *name).collect();
    let left_out = match others[..] {
        [] => None,
        [one] => Some(format!("{one} is no Ethernet interface")),
        _ => Some(format!("{} are no Ethernet interfaces", others.join(", "))),
    };
    let targets: Vec<Target> = found.into_iter().filter_map(|(_, target)| target).collect();
    if targets.is_empty() {
        return Err(left_out.unwrap_or_else(|| "there is no interface".to_owned()));
    }
    Ok(Choice { targets, left_out: left_out.map(|words| format!("without the program: {words}")) })
}

/// What is to be known of an interface; `None` if it is no Ethernet interface.
fn target(name: &str) -> Result<Option<Target>, String> {
    let index = system::interface_index(name).ok_or_else(|| format!("there is no interface {name}"))?;
    let mac = system::hardware_address(name).map_err(|error| format!("{name}: {error}"))?;
    let Some(mac) = mac else { return Ok(None) };
    let vlan = vlan_below(name).and_then(|(below, vlan)| Some((below.clone(), system::interface_index(&below)?, vlan)));
    let below = vlan.as_ref().map_or(name, |(below, ..)| below);
    let driver = system::driver(below).unwrap_or_else(|_| "unknown driver".to_owned());
    Ok(Some(Target { name: name.to_owned(), index, mac, driver, vlan }))
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
    fn a_tunnel_that_carries_an_address_is_left_out_with_a_word() {
        let ethernet = Target { name: "eth0".into(), index: 2, mac: [0; 6], driver: String::new(), vlan: None };
        let plain = leave_out(vec![("eth0", Some(ethernet.clone()))]).unwrap();
        assert_eq!((plain.targets.len(), plain.left_out), (1, None));
        let mixed = leave_out(vec![("eth0", Some(ethernet.clone())), ("tun0", None), ("wg0", None)]).unwrap();
        assert_eq!(mixed.targets, [ethernet]);
        assert_eq!(mixed.left_out.as_deref(), Some("without the program: tun0, wg0 are no Ethernet interfaces"));
        assert_eq!(leave_out(vec![("wg0", None)]).err().as_deref(), Some("wg0 is no Ethernet interface"));
        // Loopback is one that every host has.
        assert_eq!(target("lo"), Ok(None));
    }

    #[test]
    fn in_the_driver_the_program_is_below_a_vlan() {
        let plain = Target { name: "eth0".into(), index: 2, mac: [0; 6], driver: String::new(), vlan: None };
        let tagged = Target { name: "wan".into(), index: 3, vlan: Some(("eth0".into(), 2, 7)), ..plain.clone() };
        assert_eq!([Mode::Native, Mode::Generic].map(|mode| plain.at(mode)), [("eth0", 2, 0); 2]);
        assert_eq!([Mode::Native, Mode::Generic].map(|mode| tagged.at(mode)), [("eth0", 2, 7), ("wan", 3, 0)]);
    }
}
