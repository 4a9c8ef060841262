//! `external-ip = "auto"`, and who is asked for the external address then.

use std::time::Duration;

use toml::de::DeValue;
use url::Url;

use super::{
    address::ExternalIp,
    reader::{Entry, Leaf, Mistake, Section},
    settings::{FindExternal, RelayAddress, StunServer},
    value::{Period, text},
};
use crate::probe::target::host_and_port;

/// Port of STUN servers that name none (RFC 8489 §18.6).
const STUN_PORT: u16 = 3478;
/// Where AWS, Google Cloud, Azure, Hetzner and DigitalOcean tell a machine about itself.
const METADATA: &str = "http://169.254.169.254";

/// One entry of `external-ip`.
#[derive(Debug, Clone, Copy)]
pub(super) enum External {
    /// To be found.
    Auto,
    /// As it is written.
    Is(ExternalIp),
}

impl Leaf for External {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        if value.as_str() == Some("auto") {
            return Ok(Self::Auto);
        }
        let fixed = ExternalIp::read(value).map_err(|Mistake { what, remedy }| {
            if what == "is not an IP address" {
                Mistake::new(what, format!("{remedy}, or write \"auto\""))
            } else {
                Mistake { what, remedy }
            }
        });
        fixed.map(Self::Is)
    }
}

impl Leaf for StunServer {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let written = text(value, "a host with an optional port")?.trim();
        let wrong = || Mistake::new("is no host", "write one like \"stun.example.org\" or \"[2001:db8::1]:3478\"");
        let (host, port) = host_and_port(written).ok_or_else(wrong)?;
        Ok(Self { host, port: port.unwrap_or(STUN_PORT) })
    }
}

/// `metadata-url`: where a cloud's metadata is asked for, if anywhere.
struct Metadata(Option<Url>);

impl Leaf for Metadata {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let written = text(value, "a URL")?;
        if written == "off" {
            return Ok(Self(None));
        }
        let url = Url::parse(written).ok().filter(|url| {
            url.scheme() == "http" && url.host().is_some() && url.query().is_none() && url.username().is_empty()
        });
        let remedy = format!("write \"{METADATA}\", or \"off\"");
        url.map(|url| Self(Some(url))).ok_or_else(|| Mistake::new("is no http URL", remedy))
    }
}

/// Reads who is asked.
pub(super) fn find(section: &Section<'_>, addresses: &[RelayAddress]) -> FindExternal {
    let auto = match section.list::<External>("external-ip") {
        Entry::Given(externals, place) if externals.iter().any(|(external, _)| matches!(external, External::Auto)) => {
            if externals.len() > 1 {
                section.report.error(&place, "has \"auto\" and addresses", "write \"auto\" alone, or addresses alone");
            }
            Some(place)
        }
        _ => None,
    };
    let stun_servers = section.list("stun-servers").or(Vec::new()).into_iter().map(|(server, _)| server).collect();
    let default = Url::parse(METADATA).ok();
    let found = FindExternal {
        auto: auto.is_some(),
        stun_servers,
        metadata: section.get("metadata-url").or(Metadata(default)).0,
        interval: section.get("external-ip-interval").or(Period(Duration::from_secs(300))).0,
    };
    let Some(place) = auto else { return found };
    if found.stun_servers.is_empty() && found.metadata.is_none() {
        section.report.error(&place, "there is nobody to ask", "add stun-servers, or remove metadata-url = \"off\"");
    }
    for ipv4 in [true, false] {
        let of_family: Vec<String> = addresses
            .iter()
            .filter(|address| address.local.is_ipv4() == ipv4)
            .map(|address| address.local.to_string())
            .collect();
        if of_family.len() > 1 {
            // Each has ports of its own; behind one public address they would be told apart by nobody.
            let what = format!("would stand for {} relay addresses ({})", of_family.len(), of_family.join(", "));
            section.report.error(&place, what, "write pairs of \"public/private\", or one relay-ip of this family");
        }
    }
    found
}
