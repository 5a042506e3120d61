//! The proving ground: real members in real processes, and what is known to be right about them.
//!
//! ```text
//!  programs    where quorate, etcd, etcdctl and the Go programs are
//!  cluster     starts, kills and restarts members in directories of their own
//!  interrupt   a member under load that is ended again and again, and the model that holds it to what it acknowledged:
//!              kill, power_cut, disk_fault
//!  machine     a disk whose power can be cut, and how it is said that there is none
//!  same        a client program on real etcd and on ours: the same lines
//!  load        puts at a steady rate, by clients that ask once or try again
//!  failover    the leader gone under load, and how long until another one serves
//!  kill        kill -9 under load; nothing acknowledged is lost
//!  diff        random requests to real etcd and to ours
//!  bench       the same load on real etcd and on ours
//!  transcript  golden scripts: shell lines, and what they print
//! ```
//!
//! Left out: anything of the server's inside. A member is a program with etcd's flags and etcd's API, so that everything here runs
//! against real etcd as well; where the two are compared, real etcd is right.

pub mod bench;
pub mod cluster;
pub mod diff;
pub mod disk_fault;
pub mod failover;
pub mod interrupt;
pub mod kill;
pub mod load;
pub mod machine;
pub mod power_cut;
pub mod programs;
pub mod same;
pub mod transcript;
