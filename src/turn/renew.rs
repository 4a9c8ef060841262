//! Going on by other rules while sessions live: what a reload of the configuration changes for the protocol.

use std::sync::Arc;

use super::{Effect, Handle, Policy, Rules, Server, Subject, mobility::Tickets};

impl Server {
    /// Goes on by other rules. What clients have stays theirs: lifetimes and numbers of permissions, channels and connections
    /// that were granted hold until they are asked for anew. A nonce is good until its own end, unless clients are to be told
    /// other things in its realm.
    pub fn renew(&mut self, rules: Rules) {
        self.authenticator.renew(&rules);
        if rules.mobility.is_some() != self.tickets.is_some() {
            self.tickets = rules.mobility.as_ref().map(Tickets::new);
        }
        let realm = rules.realms.first().map_or("", |realm| realm.name.as_str());
        if *self.nobody.realm != *realm {
            self.nobody = Arc::new(Subject::new("", realm));
        }
        self.rules = rules;
    }

    /// Asks another policy from now on. What the one before has permitted stays until [`Server::forget_denied`].
    pub fn set_policy(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
    }

    /// Ends permissions, channels and connections whose peers the policy does not permit any more. Looks at all of them, and whoever
    /// relays beside this server does so, too.
    pub fn forget_denied(&mut self) {
        let handles: Vec<Handle> = self.table.iter().map(|(handle, _)| handle).collect();
        for handle in handles {
            let Self { table, policy, .. } = self;
            let allocation = &mut table[handle];
            let realm = allocation.owner.realm;
            allocation.permissions.keep(|peer| policy.permits_ip(realm, peer));
            allocation.channels.keep(|peer| policy.permits(realm, peer));
            let connections = allocation.connections.iter().flat_map(|all| all.iter());
            let denied: Vec<_> =
                connections.map(|entry| entry.peer).filter(|peer| !policy.permits(realm, *peer)).collect();
            if !denied.is_empty() {
                self.close_connections(handle, |connection| denied.contains(&connection.peer));
            }
            self.effects.push(Effect::Refreshed(handle));
        }
    }
}
