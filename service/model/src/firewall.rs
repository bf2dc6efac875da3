//! Other firewalls on the host, and whether they let the VMs' packets through.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Somebody else's rules that could stop the VMs' packets: an accept of ours ends our own table alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    /// Whose they are.
    pub owner: FirewallOwner,
    /// Where, as `nft list chain` takes it: family, table and chain.
    pub chain: String,
    /// Whether they have been told to let the VMs' packets through.
    pub open: bool,
}

/// Who makes a firewall's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirewallOwner {
    /// Docker, which drops what is forwarded and asks `DOCKER-USER` first.
    Docker,
    /// iptables(8) as such, or ufw on top of it.
    Iptables,
    /// firewalld, by its zones.
    Firewalld,
    /// Some table of nftables: an administrator's own.
    Nftables,
    /// iptables of old, whose rules nft does not see.
    Legacy,
}

impl Firewall {
    /// What an administrator should do, where banger cannot do it itself.
    pub fn remedy(&self) -> Option<String> {
        if self.open {
            return None;
        }
        Some(match self.owner {
            FirewallOwner::Docker | FirewallOwner::Iptables => format!(
                "let the chain {:?} accept what comes from or goes to banger0: iptables -I FORWARD -i banger0 -j ACCEPT, and -o banger0",
                self.chain
            ),
            FirewallOwner::Firewalld => {
                "put the interface banger0 into the zone trusted: firewall-cmd --permanent --zone=trusted --add-interface=banger0".into()
            }
            FirewallOwner::Nftables => format!(
                "let the chain {:?} accept what comes from or goes to banger0: iifname \"banger0\" accept, oifname \"banger0\" accept",
                self.chain
            ),
            FirewallOwner::Legacy => {
                "let iptables-legacy accept what comes from or goes to banger0: iptables-legacy -I FORWARD -i banger0 -j ACCEPT, and -o banger0".into()
            }
        })
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self.owner {
            FirewallOwner::Docker => "Docker",
            FirewallOwner::Iptables => "iptables or ufw",
            FirewallOwner::Firewalld => "firewalld",
            FirewallOwner::Nftables => "an nftables ruleset",
            FirewallOwner::Legacy => "iptables-legacy",
        };
        let does = if self.open { "lets the VMs' packets through" } else { "may stop the VMs' packets" };
        write!(f, "{owner} ({}) {does}", self.chain)
    }
}
