//! Members as processes: started in a directory and on ports of their own, killed, restarted, gone when dropped.
//!
//! ```text
//!  Cluster --- Member 0 --- process   its output: <dir>/log
//!          \-- Member 1     keeper    a shell that outlives a killed test long enough to end the process
//!          \-- Member 2     <dir>     removed with the member
//!
//!  start ─▶ ... add, promote, remove, replace ... ─▶ converged: all have the same of everything
//! ```
//!
//! A program is anything that takes etcd's flags and prints a line with [`READY`]. Left out: links that can be cut (proxy) and
//! what befalls members in a run (nemesis).

mod caller;
mod client;
mod converged;
mod figures;
pub(crate) mod keeper;
mod member;
mod ports;
mod slow;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_proto::etcdserverpb as pb;

pub use client::Client;
pub use member::{Member, Options, READY};
pub use ports::free_port;
pub use slow::SlowLinks;

const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// How long what is refused for now is asked again: a learner is not in sync at once, etcd wants members to be connected for 5 s.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Several members that know each other.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
    program: PathBuf,
    options: Options,
    /// Of names: none comes back.
    named: usize,
}

impl Cluster {
    /// Starts `count` members at once, then waits until each is ready.
    pub fn start(program: &Path, count: usize, options: &Options) -> Result<Self> {
        let peer_ports: Vec<u16> = (0..count).map(|_| free_port()).collect::<Result<_>>()?;
        Self::start_at(program, &peer_ports, options)
    }

    /// The same with peers at these ports, of which member and cluster IDs are made.
    pub fn start_at(program: &Path, peer_ports: &[u16], options: &Options) -> Result<Self> {
        let peers: Vec<String> =
            peer_ports.iter().enumerate().map(|(index, port)| format!("m{index}=http://127.0.0.1:{port}")).collect();
        let mut members = Vec::new();
        for (index, port) in peer_ports.iter().enumerate() {
            members.push(Member::one_of(program, &format!("m{index}"), *port, &peers.join(","), options)?);
        }
        Self::start_these(program, members, options)
    }

    fn start_these(program: &Path, mut members: Vec<Member>, options: &Options) -> Result<Self> {
        for (index, member) in members.iter_mut().enumerate() {
            member.spawn().with_context(|| format!("start member {index}"))?;
        }
        for (index, member) in members.iter_mut().enumerate() {
            member.wait_ready().with_context(|| format!("start member {index}"))?;
        }
        let named = members.len();
        Ok(Self { members, program: program.to_owned(), options: options.clone(), named })
    }

    /// The client addresses of all members, as etcdctl takes them.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Member::endpoint).collect::<Vec<_>>().join(",")
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Member::url).collect()
    }

    /// The member that leads by its own word.
    pub fn leader(&self) -> Result<usize> {
        let until = Instant::now() + LEADER_WITHIN;
        loop {
            let mut found = None;
            for (index, member) in self.members.iter().enumerate() {
                let Ok(status) = member.status() else { continue };
                let own = status.header.unwrap_or_default().member_id;
                if status.leader == own && found.is_none_or(|(_, term)| term < status.raft_term) {
                    found = Some((index, status.raft_term));
                }
            }
            match found {
                Some((index, _)) => return Ok(index),
                None if Instant::now() > until => bail!("no member leads after {LEADER_WITHIN:?}"),
                None => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Any that does not lead.
    pub fn follower(&self) -> Result<usize> {
        let leader = self.leader()?;
        (0..self.members.len()).find(|index| *index != leader).context("find a member that does not lead")
    }

    /// The ID of a member that runs.
    pub fn id(&self, member: usize) -> Result<u64> {
        Ok(self.members[member].status()?.header.context("find the header of its status")?.member_id)
    }

    /// Adds a member, starts it and waits until it serves. Its number is the last one.
    pub fn add(&mut self, is_learner: bool) -> Result<usize> {
        let (id, mut member) = self.announce(is_learner)?;
        member.restart().with_context(|| format!("start the member {id:x} that was added"))?;
        self.members.push(member);
        Ok(self.members.len() - 1)
    }

    /// Adds a member that is not started: its ID, and what can be started.
    pub fn announce(&mut self, is_learner: bool) -> Result<(u64, Member)> {
        let (name, peer_port) = (format!("m{}", self.named), free_port()?);
        self.named += 1;
        let request = pb::MemberAddRequest { peer_urls: vec![format!("http://127.0.0.1:{peer_port}")], is_learner };
        let added = self.change("add a member", |client| client.run(client.cluster().member_add(request.clone())))?;
        let id = added.member.context("find the new member")?.id;
        let known = added.members.into_iter().map(|known| {
            let name = if known.id == id { name.clone() } else { known.name };
            known.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
        });
        let peers = known.collect::<Vec<_>>().join(",");
        let options = self.options.clone().and("--initial-cluster-state=existing");
        Ok((id, Member::one_of(&self.program, &name, peer_port, &peers, &options)?))
    }

    /// Lets a learner vote, as soon as it may.
    pub fn promote(&self, member: usize) -> Result<()> {
        let id = self.id(member)?;
        self.change("promote the learner", |client| {
            client.run(client.cluster().member_promote(pb::MemberPromoteRequest { id }))
        })?;
        Ok(())
    }

    /// Removes a member from the cluster. What is given back goes on running until it sees that it was removed.
    pub fn remove(&mut self, member: usize) -> Result<Member> {
        let id = self.id(member)?;
        let member = self.members.remove(member);
        self.remove_id(id)?;
        Ok(member)
    }

    pub fn remove_id(&self, id: u64) -> Result<()> {
        self.change("remove the member", |client| {
            client.run(client.cluster().member_remove(pb::MemberRemoveRequest { id }))
        })?;
        Ok(())
    }

    /// Asks one member after the other, until one has made the change.
    fn change<T>(&self, what: &str, ask: impl Fn(&Client) -> Result<T, tonic::Status>) -> Result<T> {
        let until = Instant::now() + CHANGE_WITHIN;
        let mut first = None;
        for member in self.members.iter().cycle() {
            let refused = match ask(&member.client()?) {
                Ok(done) => return Ok(done),
                Err(refused) => refused,
            };
            if Instant::now() > until {
                return Err(refused).with_context(|| format!("{what}; at first: {first:?}"));
            }
            first.get_or_insert(refused);
            thread::sleep(LOOK_AGAIN);
        }
        bail!("{what}: the cluster has no members")
    }
}
