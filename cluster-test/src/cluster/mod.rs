//! Members as processes: started in a directory and on ports of their own, killed, restarted, gone when dropped.
//!
//! ```text
//!  Cluster --- Member 0 --- process   its output: <dir>/log
//!          \-- Member 1     keeper    a shell that outlives a killed test long enough to end the process
//!          \-- Member 2     <dir>     removed with the member
//! ```
//!
//! A program is anything that takes etcd's flags and prints a line with [`READY`]. Left out: links that can be cut (proxy) and
//! what befalls members in a run (nemesis).

pub(crate) mod keeper;
mod member;
mod ports;

use std::path::Path;

use anyhow::{Context as _, Result};

pub use member::{Member, Options, READY};
pub use ports::free_port;

/// Several members that know each other from the start.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
}

impl Cluster {
    /// Starts `count` members at once, then waits until each is ready.
    pub fn start(program: &Path, count: usize, options: &Options) -> Result<Self> {
        let peer_ports: Vec<u16> = (0..count).map(|_| free_port()).collect::<Result<_>>()?;
        let peers: Vec<String> =
            peer_ports.iter().enumerate().map(|(index, port)| format!("m{index}=http://127.0.0.1:{port}")).collect();
        let mut members = Vec::new();
        for (index, port) in peer_ports.iter().enumerate() {
            let member = Member::spawn_one_of(program, &format!("m{index}"), *port, &peers.join(","), options);
            members.push(member.with_context(|| format!("start member {index}"))?);
        }
        for (index, member) in members.iter_mut().enumerate() {
            member.wait_ready().with_context(|| format!("start member {index}"))?;
        }
        Ok(Self { members })
    }

    /// The client addresses of all members, as etcdctl takes them.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Member::endpoint).collect::<Vec<_>>().join(",")
    }
}
