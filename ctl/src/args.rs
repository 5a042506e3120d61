//! The command line: etcdctl's words, and its environment variables.

use clap::{Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::tune::TuneArgs;

#[derive(Debug, Parser)]
#[command(version, about = "Talks to a Quorate or etcd member")]
pub(crate) struct Args {
    /// host:port of a member; `bench` and `tune` take several, with commas
    #[arg(long, alias = "endpoints", global = true, env = "ETCDCTL_ENDPOINTS", default_value = "127.0.0.1:2379")]
    pub(crate) endpoint: String,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Prints a key and its value, or all that start with it
    Get {
        key: String,
        #[arg(long)]
        prefix: bool,
    },
    /// Writes a value
    Put { key: String, value: String },
    /// Deletes a key and prints how many went
    Del { key: String },
    /// Prints what the member says of itself
    Status,
    /// Reads what members have measured of each other and of their disks; says which heartbeat interval and election time-out fit
    Tune(TuneArgs),
    /// Puts a load on a server; says how fast it answered and what it cost
    Bench(Box<BenchArgs>),
}
