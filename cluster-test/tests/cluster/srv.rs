//! Members that are to found a cluster and find each other in DNS. Each has a name server of this test's own for the system's:
//! it runs in a mount namespace in which `/etc/resolv.conf` names that one. Where a machine does not allow this (no root, no
//! namespaces) the tests say on standard error that they did not run.

mod responder;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Member, Options, free_port};
use cluster_test::programs;
use tempfile::TempDir;

use responder::{Responder, Srv};

const END_WITHIN: Duration = Duration::from_secs(30);
/// Becomes the program behind it, with another resolv.conf.
const WITH_RESOLVER: &str = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;

struct Dns {
    /// Answers for as long as it lives.
    _responder: Responder,
    resolv_conf: PathBuf,
    _dir: TempDir,
}

impl Dns {
    /// `None`, and said so, where this machine does not allow it.
    fn start(records: Vec<Srv>) -> Result<Option<Self>> {
        let not_run = |reason: &dyn std::fmt::Display| -> Result<Option<Self>> {
            // Not by a macro, whose output is kept back while a test passes.
            writeln!(std::io::stderr(), "DNS discovery did not run: {reason}")?;
            Ok(None)
        };
        let responder = match Responder::start(records) {
            Ok(responder) => responder,
            Err(error) => return not_run(&format!("listen on port 53 of a loopback address: {error}")),
        };
        let dir = tempfile::tempdir().context("make a directory")?;
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {}\noptions timeout:2\n", responder.ip()))?;
        let dns = Self { _responder: responder, resolv_conf, _dir: dir };
        let through = dns.through();
        let tried = Command::new(&through[0]).args(&through[1..]).args(["cat", "/etc/resolv.conf"]).output();
        match tried {
            Ok(tried) if tried.status.success() => {
                let seen = String::from_utf8_lossy(&tried.stdout).into_owned();
                ensure!(seen.contains("nameserver 127."), "the namespace has another resolv.conf: {seen}");
                Ok(Some(dns))
            }
            Ok(tried) => not_run(&String::from_utf8_lossy(&tried.stderr)),
            Err(error) => not_run(&error),
        }
    }

    fn through(&self) -> Vec<String> {
        let resolv_conf = self.resolv_conf.display().to_string();
        ["unshare", "-m", "sh", "-c", WITH_RESOLVER, &resolv_conf].map(str::to_owned).to_vec()
    }

    /// Not started yet.
    fn member(&self, program: &Path, name: &str, peer_port: u16, domain: &[&str]) -> Result<Member> {
        let client = free_port()?;
        let mut flags = vec![
            format!("--name={name}"),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            format!("--initial-advertise-peer-urls=http://{name}.cluster.test:{peer_port}"),
            "--heartbeat-interval=20".to_owned(),
            "--election-timeout=200".to_owned(),
        ];
        flags.extend(domain.iter().map(|flag| (*flag).to_owned()));
        let mut member = Member::with_flags(program, name, client, peer_port, flags)?;
        member.set_options(&Options { through: self.through(), ..Options::default() });
        Ok(member)
    }
}

fn records(service: &str, ports: &[u16]) -> Vec<Srv> {
    let record = |(index, port): (usize, &u16)| Srv {
        service: service.to_owned(),
        target: format!("m{index}.cluster.test"),
        port: *port,
    };
    ports.iter().enumerate().map(record).collect()
}

/// Cluster, and members by id with their peer URLs.
type Found = (u64, Vec<(u64, Vec<String>)>);

/// Three of `program` that find each other; the last of them is killed and started again on the way.
fn three(dns: &Dns, program: &Path, ports: &[u16], domain: &[&str]) -> Result<Found> {
    let mut members = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let mut member = dns.member(program, &format!("m{index}"), *port, domain)?;
        member.spawn()?;
        members.push(member);
    }
    for member in &mut members {
        member.wait_ready()?;
    }
    members[0].client()?.put("k", "v")?;
    assert_eq!(members[2].client()?.get("k", false)?.kvs[0].value, "v");
    members[2].kill();
    members[2].restart()?;
    let list = members[2].client()?.members()?;
    let cluster_id = list.header.context("find the header")?.cluster_id;
    Ok((cluster_id, list.members.into_iter().map(|member| (member.id, member.peer_urls)).collect()))
}

#[test]
fn three_members_find_each_other_in_dns_as_etcds_do() -> Result<()> {
    for (service, domain) in [
        ("_etcd-server._tcp.cluster.test", &["--discovery-srv=cluster.test"][..]),
        ("_etcd-server-blue._tcp.cluster.test", &["--discovery-srv=cluster.test", "--discovery-srv-name=blue"]),
    ] {
        let ports = [free_port()?, free_port()?, free_port()?];
        let Some(dns) = Dns::start(records(service, &ports))? else { return Ok(()) };
        let expected = three(&dns, programs::etcd()?, &ports, domain)?;
        ensure!(expected.1.len() == 3, "{expected:?}");
        assert_eq!(three(&dns, programs::quorate()?, &ports, domain)?, expected);
    }
    Ok(())
}

#[test]
fn what_is_not_found_is_refused_in_etcds_words() -> Result<()> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let mut known = records("_etcd-server._tcp.cluster.test", &ports[..2]);
    known.extend(records("_etcd-server-ssl._tcp.secure.test", &ports[..1]));
    let Some(dns) = Dns::start(known)? else { return Ok(()) };
    let nothing = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup \
                   _etcd-server-ssl._tcp.nothing.test on";
    let also = "error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.nothing.test on";
    let stranger = r#"error setting up initial cluster: cannot find local etcd member \"m2\" in SRV records"#;
    let mismatch = format!(
        "error querying DNS SRV records for _etcd-server-ssl bootstrap at https://m0.cluster.test:{0} from DNS for \
         etcd-server-ssl has scheme mismatch with expected peer http://m0.cluster.test:{0}",
        ports[0]
    );
    for (index, domain, expected) in [
        (0, "nothing.test", &[nothing, also, ":53: no such host"][..]),
        (2, "cluster.test", &[stranger]),
        (0, "secure.test", &[mismatch.as_str()]),
    ] {
        for program in [programs::quorate()?, programs::etcd()?] {
            let domain = format!("--discovery-srv={domain}");
            let mut member = dns.member(program, &format!("m{index}"), ports[index], &[&domain])?;
            member.spawn()?;
            let end = member.wait_end(END_WITHIN)?;
            let log = member.log();
            ensure!(end.code() == Some(1), "{end}: {log}");
            for words in expected {
                ensure!(log.contains(words), "{} does not say `{words}`:\n{log}", program.display());
            }
        }
    }
    Ok(())
}
