//! Permissions of one allocation (RFC 8656 §9): IP addresses with an expiry, ports not considered.

use std::net::IpAddr;

use super::Time;

/// Permissions, kept sorted by address. An expired one is as good as absent from the instant that it expires.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    entries: Vec<(IpAddr, Time)>,
}

impl Permissions {
    /// Whether there is a permission for this address.
    pub(super) fn allow(&self, ip: IpAddr, now: Time) -> bool {
        self.position(ip).is_ok_and(|at| self.entries[at].1 > now)
    }

    /// When the permission for this address expires or has expired.
    pub(super) fn expiry(&self, ip: IpAddr) -> Option<Time> {
        self.position(ip).ok().map(|at| self.entries[at].1)
    }

    /// Whether `new` can be installed without exceeding `limit`. Addresses already present do not count twice.
    pub(super) fn has_room(&self, new: &[IpAddr], limit: usize, now: Time) -> bool {
        let live = self.entries.iter().filter(|(_, expires)| *expires > now).count();
        live + self.count_new(new, now) <= limit
    }

    /// How many addresses of `new` have no permission.
    pub(super) fn count_new(&self, new: &[IpAddr], now: Time) -> usize {
        let mut added: Vec<IpAddr> = new.iter().copied().filter(|ip| !self.allow(*ip, now)).collect();
        added.sort_unstable();
        added.dedup();
        added.len()
    }

    /// Installs or refreshes a permission.
    pub(super) fn install(&mut self, ip: IpAddr, expires: Time) {
        match self.position(ip) {
            Ok(at) => self.entries[at].1 = expires,
            Err(at) => self.entries.insert(at, (ip, expires)),
        }
    }

    /// Forgets all but those that are to be kept.
    pub(super) fn keep(&mut self, mut keeps: impl FnMut(IpAddr) -> bool) {
        self.entries.retain(|(ip, _)| keeps(*ip));
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Time) {
        self.entries.retain(|(_, expires)| *expires > now);
    }

    /// Those that there are.
    pub(super) fn live(&self, now: Time) -> impl Iterator<Item = IpAddr> + '_ {
        self.entries.iter().filter(move |(_, expires)| *expires > now).map(|(ip, _)| *ip)
    }

    /// The earliest expiry.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.entries.iter().map(|(_, expires)| *expires).min()
    }

    fn position(&self, ip: IpAddr) -> Result<usize, usize> {
        self.entries.binary_search_by(|(entry, _)| entry.cmp(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn exact_expiry_without_any_sweep() {
        let mut permissions = Permissions::default();
        permissions.install(ip(1), Time(300_000));
        assert!(permissions.allow(ip(1), Time(299_999)));
        assert!(!permissions.allow(ip(1), Time(300_000)));
        assert!(!permissions.allow(ip(2), Time(0)));
        permissions.install(ip(1), Time(600_000));
        assert!(permissions.allow(ip(1), Time(300_000)));
        permissions.expire(Time(600_000));
        assert_eq!(permissions.next_expiry(), None);
    }

    #[test]
    fn room_counts_each_new_address_once_and_expired_ones_never() {
        let mut permissions = Permissions::default();
        permissions.install(ip(1), Time(10));
        permissions.install(ip(2), Time(20));
        let room = |list: &[u8], limit, now| {
            permissions.has_room(&list.iter().map(|last| ip(*last)).collect::<Vec<_>>(), limit, Time(now))
        };
        assert!(room(&[1, 2], 2, 0));
        assert!(!room(&[3], 2, 0));
        assert!(room(&[3, 3], 3, 0));
        assert!(!room(&[3, 4], 3, 0));
        assert!(room(&[3], 2, 10));
    }
}
