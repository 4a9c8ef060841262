//! The metadata services of clouds: HTTP on a link-local address, each with paths and headers of its own.

use std::net::IpAddr;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1::handshake, header::HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

/// Longest answer taken.
const LONGEST: usize = 256 << 10;

/// A cloud whose metadata can tell the public address of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon Web Services, by IMDSv2.
    Aws,
    /// Google Cloud.
    Google,
    /// Microsoft Azure.
    Azure,
    /// Hetzner Cloud.
    Hetzner,
    /// DigitalOcean.
    DigitalOcean,
}

/// A header and its value.
type Header = (&'static str, String);

impl Cloud {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Aws, Self::Google, Self::Azure, Self::Hetzner, Self::DigitalOcean];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "AWS",
            Self::Google => "Google Cloud",
            Self::Azure => "Azure",
            Self::Hetzner => "Hetzner",
            Self::DigitalOcean => "DigitalOcean",
        }
    }

    /// The public address of a machine whose own is `local`, as this cloud's service behind `base` tells it.
    ///
    /// # Errors
    /// In words: nobody is there, it is another cloud, or the machine has no public address.
    pub async fn ask(self, base: &Url, local: IpAddr) -> Result<IpAddr, String> {
        match self {
            Self::Aws => {
                let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "60".to_owned());
                let token = call(base, Method::PUT, "/latest/api/token", &[ttl]).await?;
                let token = ("x-aws-ec2-metadata-token", token.trim().to_owned());
                address(&get(base, "/latest/meta-data/public-ipv4", &[token]).await?)
            }
            Self::Google => {
                const PATH: &str = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
                address(&get(base, PATH, &[("metadata-flavor", "Google".to_owned())]).await?)
            }
            Self::Azure => {
                const INTERFACES: &str = "/metadata/instance/network/interface?api-version=2021-02-01&format=json";
                const BALANCER: &str = "/metadata/loadbalancer?api-version=2021-02-01&format=json";
                let header = [("metadata", "true".to_owned())];
                let interfaces = get(base, INTERFACES, &header).await?;
                match of_interfaces(&interfaces, local) {
                    Some(address) => Ok(address),
                    // Addresses of the standard kind are told of elsewhere.
                    None => of_balancer(&get(base, BALANCER, &header).await?, local).ok_or_else(|| NONE.to_owned()),
                }
            }
            Self::Hetzner => address(&get(base, "/hetzner/v1/metadata/public-ipv4", &[]).await?),
            Self::DigitalOcean => address(&get(base, "/metadata/v1/interfaces/public/0/ipv4/address", &[]).await?),
        }
    }
}

/// The service is there and knows of no public address.
const NONE: &str = "knows no public address of this machine";

/// An address that stands alone in the answer.
fn address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(NONE.to_owned());
    }
    let address: IpAddr = text.parse().map_err(|_| "answers with something else than an address".to_owned())?;
    usable(address).ok_or_else(|| "answers with something else than an address of one host".to_owned())
}

fn usable(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified() && !address.is_multicast() && !address.is_loopback()).then_some(address)
}

/// The public address beside this private one: `[{"ipv4":{"ipAddress":[{"privateIpAddress":…,"publicIpAddress":…}]}}]`.
fn of_interfaces(text: &str, local: IpAddr) -> Option<IpAddr> {
    let interfaces: Value = serde_json::from_str(text).ok()?;
    let pairs = interfaces.as_array()?.iter().flat_map(|interface| interface["ipv4"]["ipAddress"].as_array());
    pair(pairs.flatten(), "publicIpAddress", local)
}

/// The same of `{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":…,"privateIpAddress":…}]}}`.
fn of_balancer(text: &str, local: IpAddr) -> Option<IpAddr> {
    let balancer: Value = serde_json::from_str(text).ok()?;
    pair(balancer["loadbalancer"]["publicIpAddresses"].as_array()?.iter(), "frontendIpAddress", local)
}

/// The public address of the pair with this private one; of the only pair, whatever its private one is.
fn pair<'v>(pairs: impl Iterator<Item = &'v Value>, public: &str, local: IpAddr) -> Option<IpAddr> {
    let parse = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    let pairs: Vec<(Option<IpAddr>, IpAddr)> =
        pairs.filter_map(|pair| Some((parse(&pair["privateIpAddress"]), usable(parse(&pair[public])?)?))).collect();
    let own = pairs.iter().find(|(private, _)| *private == Some(local));
    own.or(if let [only] = &pairs[..] { Some(only) } else { None }).map(|(_, public)| *public)
}

async fn get(base: &Url, path: &str, headers: &[Header]) -> Result<String, String> {
    call(base, Method::GET, path, headers).await
}

/// The body of an answer with status 200.
async fn call(base: &Url, method: Method, path: &str, headers: &[Header]) -> Result<String, String> {
    let host = base.host_str().ok_or("has no host")?;
    let port = base.port_or_known_default().ok_or("has no port")?;
    let prefix = base.path().trim_end_matches('/');
    let cannot = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|error| cannot("is not there", &error))?;
    let shaken = handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| cannot("does not speak HTTP", &error))?;
    // Ends with the request, or fails with it.
    tokio::spawn(async move { drop(connection.await) });
    let mut request =
        Request::builder().method(method).uri(format!("{prefix}{path}")).header(HOST, format!("{host}:{port}"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| cannot("cannot be asked", &error))?;
    let response = sender.send_request(request).await.map_err(|error| cannot("does not answer", &error))?;
    match response.status() {
        StatusCode::OK => {}
        status => return Err(format!("answers with status {status}")),
    }
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| cannot("does not finish its answer", &error))?.to_bytes();
    String::from_utf8(body.to_vec()).map_err(|_| "does not answer with text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_stands_alone() {
        assert_eq!(address("198.51.100.7\n"), Ok(ip("198.51.100.7")));
        assert_eq!(address(" \n").unwrap_err(), NONE);
        for wrong in ["<html>", "198.51.100.7 x", "0.0.0.0", "224.0.0.1", "127.0.0.1"] {
            assert!(address(wrong).unwrap_err().starts_with("answers with something else"), "{wrong}");
        }
    }

    #[test]
    fn azure_tells_by_private_address() {
        let text = r#"[{"ipv4":{"ipAddress":[{"privateIpAddress":"10.0.0.4","publicIpAddress":"198.51.100.4"},
            {"privateIpAddress":"10.0.0.5","publicIpAddress":"198.51.100.5"}],"subnet":[]},"macAddress":"00"}]"#;
        assert_eq!(of_interfaces(text, ip("10.0.0.5")), Some(ip("198.51.100.5")));
        assert_eq!(of_interfaces(text, ip("10.0.0.6")), None);
        let empty = r#"[{"ipv4":{"ipAddress":[{"privateIpAddress":"10.0.0.4","publicIpAddress":""}]}}]"#;
        assert_eq!(of_interfaces(empty, ip("10.0.0.4")), None);
        let balancer = r#"{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"198.51.100.9",
            "privateIpAddress":"10.0.0.4"}],"inboundRules":[]}}"#;
        assert_eq!(of_balancer(balancer, ip("10.0.0.4")), Some(ip("198.51.100.9")));
        assert_eq!(of_balancer("{}", ip("10.0.0.4")), None);
        assert_eq!(of_interfaces("no", ip("10.0.0.4")), None);
    }
}
