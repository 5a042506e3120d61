//! SRV records of a domain: `_etcd-server._tcp.DOMAIN`, and with `-ssl` for peers with TLS; a name (`--discovery-srv-name`) goes
//! behind either.
//!
//! ```text
//!   0 0 2380 a.example.com.   10.0.0.1:2380   is what this member advertises   NAME=http://a.example.com:2380
//!   0 0 2380 b.example.com.   10.0.0.2:2380   is not                           0=http://b.example.com:2380
//! ```
//!
//! Other members have no name yet: they are counted. Ids are made of the URLs, so all members reckon the same. The records are
//! asked for by our own resolver, as the system's cannot; addresses by the system's, which knows `/etc/hosts` too.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures::future::join_all;
use hickory_resolver::Resolver;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;

use crate::config::{SrvDiscovery, Url};

/// A peer URL of this member, and where it leads.
#[derive(Debug)]
struct Advertised {
    url: Url,
    addresses: BTreeSet<SocketAddr>,
}

/// What one record names, and where it leads.
#[derive(Debug)]
struct Target {
    /// Without the dot at the end.
    host: String,
    port: u16,
    addresses: Result<BTreeSet<SocketAddr>, String>,
}

/// The initial cluster, as `--initial-cluster` would say it. Errors in etcd's words.
pub(super) async fn find(discovery: &SrvDiscovery, name: &str, advertised: &[Url]) -> Result<String, String> {
    let mut own = Vec::new();
    for url in advertised {
        own.push(Advertised { url: url.clone(), addresses: addresses(url.host(), url.port().unwrap_or(0)).await? });
    }
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = match discovery.service_name.as_str() {
            "" => service.to_owned(),
            suffix => format!("{service}-{suffix}"),
        };
        let targets = targets(&format!("_{service}._tcp.{}", discovery.domain)).await;
        match targets.and_then(|targets| members(scheme, &service, name, &own, &targets)) {
            Ok(members) => found.extend(members),
            Err(problem) => problems.push(format!("error querying DNS SRV records for _{service} {problem}")),
        }
    }
    tracing::info!(
        domain = discovery.domain,
        found = found.join(","),
        problems = problems.join("; "),
        "asked DNS for the cluster"
    );
    if found.is_empty() { Err(problems.join("\n")) } else { Ok(found.join(",")) }
}

/// One member for each record, as `name=URL`; an error only where there is none.
fn members(
    scheme: &str,
    service: &str,
    name: &str,
    own: &[Advertised],
    targets: &[Target],
) -> Result<Vec<String>, String> {
    let (mut members, mut strangers, mut problem) = (Vec::new(), 0, None);
    for Target { host, port, addresses } in targets {
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                problem = Some(error.clone());
                continue;
            }
        };
        let found = own.iter().find(|own| !own.addresses.is_disjoint(addresses));
        let url = format!("{scheme}://{host}:{port}");
        let named = match found {
            Some(_) if !name.is_empty() => name.to_owned(),
            Some(_) | None => {
                strangers += 1;
                (strangers - 1).to_string()
            }
        };
        match found {
            Some(own) if own.url.as_str().split("://").next() != Some(scheme) => {
                problem = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {}",
                    own.url
                ));
            }
            Some(_) | None => members.push(format!("{named}={url}")),
        }
    }
    match problem {
        Some(problem) if members.is_empty() => Err(problem),
        Some(_) | None => Ok(members),
    }
}

/// In an order that is the same for all members.
async fn targets(name: &str) -> Result<Vec<Target>, String> {
    let (config, options) = read_system_conf().map_err(|error| format!("lookup {name}: {error}"))?;
    let server = config.name_servers().first().map(|server| server.ip);
    let failed = |error: NetError| {
        let reason = if error.is_no_records_found() { "no such host".to_owned() } else { error.to_string() };
        match server {
            Some(ip) => format!("lookup {name} on {}: {reason}", SocketAddr::new(ip, DNS_PORT)),
            None => format!("lookup {name}: {reason}"),
        }
    };
    let resolver = Resolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
    let answer = resolver.with_options(options).build().map_err(failed)?.srv_lookup(name).await.map_err(failed)?;
    let mut records: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.priority, srv.target.to_utf8(), srv.port)),
            _ => None,
        })
        .collect();
    records.sort();
    let targets = records.into_iter().map(|(_, host, port)| async move {
        let host = host.trim_end_matches('.').to_owned();
        Target { addresses: addresses(&host, port).await, host, port }
    });
    Ok(join_all(targets).await)
}

const DNS_PORT: u16 = 53;

async fn addresses(host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("lookup {host}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> BTreeSet<SocketAddr> {
        BTreeSet::from([address.parse().unwrap()])
    }

    fn own(url: &str, address: &str) -> Advertised {
        Advertised { url: Url::parse(url).unwrap(), addresses: at(address) }
    }

    fn target(host: &str, port: u16, address: Option<&str>) -> Target {
        let addresses = address.map(at).ok_or_else(|| format!("lookup {host}: no such host"));
        Target { host: host.into(), port, addresses }
    }

    #[test]
    fn a_member_is_known_by_its_addresses_and_the_others_are_counted() {
        let own = [own("http://10.0.0.1:2380", "10.0.0.1:2380")];
        let targets = [
            target("b.x", 2380, Some("10.0.0.2:2380")),
            target("a.x", 2380, Some("10.0.0.1:2380")),
            target("gone.x", 2380, None),
            target("a.x", 2390, Some("10.0.0.1:2390")),
        ];
        let found = members("http", "etcd-server", "m", &own, &targets);
        assert_eq!(found.unwrap(), ["0=http://b.x:2380", "m=http://a.x:2380", "1=http://a.x:2390"]);
        // Without a name it is counted too.
        let found = members("http", "etcd-server", "", &own, &targets[..2]);
        assert_eq!(found.unwrap(), ["0=http://b.x:2380", "1=http://a.x:2380"]);
    }

    #[test]
    fn of_several_addresses_one_is_enough() {
        let mut several = at("10.0.0.9:2380");
        several.extend(at("10.0.0.1:2380"));
        let targets = [Target { host: "a.x".into(), port: 2380, addresses: Ok(several) }];
        let found = members("http", "etcd-server", "m", &[own("http://10.0.0.1:2380", "10.0.0.1:2380")], &targets);
        assert_eq!(found.unwrap(), ["m=http://a.x:2380"]);
    }

    #[test]
    fn what_is_wrong_is_told_only_where_nothing_is_found() {
        let own = [own("http://10.0.0.1:2380", "10.0.0.1:2380")];
        let targets = [target("a.x", 2380, Some("10.0.0.1:2380")), target("b.x", 2380, Some("10.0.0.2:2380"))];
        let mismatch = "bootstrap at https://a.x:2380 from DNS for etcd-server-ssl has scheme mismatch with expected peer \
                        http://10.0.0.1:2380";
        let found = members("https", "etcd-server-ssl", "m", &own, &targets[..1]);
        assert_eq!(found.unwrap_err(), mismatch);
        // etcd takes the others then.
        let found = members("https", "etcd-server-ssl", "m", &own, &targets);
        assert_eq!(found.unwrap(), ["0=https://b.x:2380"]);
        let found = members("http", "etcd-server", "m", &own, &[target("gone.x", 1, None)]);
        assert_eq!(found.unwrap_err(), "lookup gone.x: no such host");
        assert_eq!(members("http", "etcd-server", "m", &own, &[]), Ok(Vec::new()));
    }
}
