//! Three members as people start them first: by `make demo`, and by docker compose.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_test::cluster::{Client, Member, free_port};
use cluster_test::programs;
use rustix::process::{Pid, Signal, kill_process};
use serde_norway::Value;

struct Demo {
    script: Child,
    folder: tempfile::TempDir,
    clients: Vec<u16>,
    /// Up to the end of what it tells people to type.
    printed: String,
}

impl Drop for Demo {
    /// For a test that has failed; the script cleans up by itself.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.script), Signal::TERM);
        let _ = self.script.wait();
    }
}

impl Demo {
    fn start(seconds: Option<u32>) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a directory")?;
        let clients = (0..3).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let peers = (0..3).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let words = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        // A shell ignores for ever what was ignored when it began, as Ctrl-C is for whatever runs in the background.
        let mut script = Command::new("env")
            .arg("--default-signal=INT")
            .arg(programs::repository().join("scripts/demo"))
            .env("QUORATE_BIN", programs::quorate()?.parent().context("find the directory of quorate")?)
            .env("TMPDIR", folder.path())
            .env("DEMO_CLIENT_PORTS", words(&clients))
            .env("DEMO_PEER_PORTS", words(&peers))
            .envs(seconds.map(|seconds| ("DEMO_SECONDS", seconds.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("run scripts/demo")?;
        let mut lines = BufReader::new(script.stdout.take().context("take its output")?);
        let mut printed = String::new();
        while !printed.contains("Ctrl-C stops") {
            ensure!(lines.read_line(&mut printed)? > 0, "it ended, and had printed\n{printed}");
        }
        script.stdout = Some(lines.into_inner());
        Ok(Self { script, folder, clients, printed })
    }

    fn client(&self, member: usize) -> Result<Client> {
        Client::connect(&format!("http://127.0.0.1:{}", self.clients[member]))
    }

    /// Waits for its end; nothing may be left of it.
    fn end(mut self, code: i32) -> Result<()> {
        let status = self.script.wait().context("wait for the demo")?;
        let mut rest = String::new();
        self.script.stdout.take().context("take its output")?.read_to_string(&mut rest)?;
        assert_eq!(status.code(), Some(code), "{rest}");
        let left: Vec<_> = fs::read_dir(self.folder.path())?.collect();
        ensure!(left.is_empty(), "it leaves {left:?}");
        ensure!(self.client(0)?.get("greeting", true).is_err(), "a member still answers");
        Ok(())
    }
}

#[test]
fn the_demo_serves_what_it_says_and_ends_by_itself() -> Result<()> {
    let demo = Demo::start(Some(3))?;
    let endpoints = demo.clients.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
    ensure!(demo.printed.contains(&format!("export ETCDCTL_ENDPOINTS={endpoints}")), "{}", demo.printed);
    demo.client(0)?.put("greeting", "hello")?;
    assert_eq!(demo.client(2)?.get("greeting", false)?.kvs[0].value, "hello");
    demo.end(0)
}

#[test]
fn the_demo_goes_on_without_a_member_and_stops_when_it_is_interrupted() -> Result<()> {
    let demo = Demo::start(None)?;
    let kill = demo.printed.lines().find(|line| line.contains("kill -9")).context("find how to kill a member")?;
    let again = demo.printed.lines().find(|line| line.ends_with("/m0 &")).context("find how to start it again")?;
    let shell = |line: &str| -> Result<()> {
        let ended = Command::new("sh").args(["-c", line]).status().context("run a line of the demo")?;
        ensure!(ended.success(), "{line}: {ended}");
        Ok(())
    };
    shell(kill)?;
    demo.client(1)?.put("greeting", "hello")?;
    shell(again)?;
    while demo.client(0)?.get("greeting", true).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(demo.client(0)?.get("greeting", false)?.kvs[0].value, "hello");
    kill_process(Pid::from_child(&demo.script), Signal::INT).context("interrupt the demo")?;
    demo.end(130)
}

/// The services of the compose file by name, with what they share filled in.
fn services() -> Result<BTreeMap<String, Value>> {
    let file = programs::repository().join("docker-compose.yml");
    let mut compose: Value = serde_norway::from_str(&fs::read_to_string(file)?).context("parse docker-compose.yml")?;
    compose.apply_merge().context("merge what members share")?;
    serde_norway::from_value(compose["services"].clone()).context("read the services")
}

fn texts(list: &Value) -> Result<Vec<String>> {
    serde_norway::from_value(list.clone()).context("read a list of words")
}

#[test]
fn the_members_of_the_compose_file_make_a_cluster() -> Result<()> {
    let services = services()?;
    assert_eq!(services.keys().collect::<Vec<_>>(), ["m0", "m1", "m2"]);
    // On loopback a member is a port of its own for each of the two that all of them have in their containers.
    let mut ports = BTreeMap::new();
    for name in services.keys() {
        ports.insert(name.clone(), (free_port()?, free_port()?));
    }
    let on_loopback = |own: &str, flag: String| {
        let of = |text: String, host: &str, (client, peer): &(u16, u16)| {
            text.replace(&format!("{host}:2379"), &format!("127.0.0.1:{client}"))
                .replace(&format!("{host}:2380"), &format!("127.0.0.1:{peer}"))
        };
        let flag = ports.iter().fold(flag, |flag, (name, pair)| of(flag, name, pair));
        of(flag, "0.0.0.0", &ports[own])
    };
    let mut members = Vec::new();
    for (name, service) in &services {
        let flags = texts(&service["command"])?.into_iter().map(|flag| on_loopback(name, flag)).collect();
        let (client, peer) = ports[name];
        let mut member = Member::with_flags(programs::quorate()?, name, client, peer, flags)?;
        member.spawn()?;
        members.push(member);
    }
    for member in &mut members {
        member.wait_ready()?;
    }
    members[0].client()?.put("k", "v")?;
    for (member, service) in members.iter().zip(services.values()) {
        assert_eq!(member.client()?.get("k", false)?.kvs[0].value, "v");
        let check = texts(&service["healthcheck"]["test"])?;
        let [kind, program, arguments @ ..] = &check[..] else { anyhow::bail!("no health check: {check:?}") };
        assert_eq!((&**kind, &**program), ("CMD", "/usr/local/bin/quoratectl"));
        let arguments = arguments.iter().map(|argument| on_loopback(member.name(), argument.clone()));
        let arguments: Vec<_> =
            arguments.map(|argument| argument.replace("127.0.0.1:2379", &member.endpoint())).collect();
        let checked = Command::new(programs::quoratectl()?).args(arguments).output().context("check its health")?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        ensure!(!texts(&service["ports"])?.is_empty() && !texts(&service["volumes"])?.is_empty());
    }
    let listed = members[0].client()?.members()?.members;
    assert_eq!(listed.iter().map(|member| &*member.name).collect::<std::collections::BTreeSet<_>>().len(), 3);
    Ok(())
}
