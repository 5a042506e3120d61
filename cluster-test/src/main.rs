//! `cluster-test`: how people reach the proving ground.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cluster_test::kill::{self, KillOptions, Summary};
use cluster_test::programs;

#[derive(Debug, Parser)]
#[command(version, about = "Proves what Quorate promises, on real members")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Kills one member under load, again and again, and checks that nothing acknowledged is lost
    Kill {
        #[arg(long, default_value_t = 100)]
        kills: usize,
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// The same seed gives the same operations; when they meet the kill is up to the machine
        #[arg(long)]
        seed: Option<u64>,
        /// Another server, for example the real etcd
        #[arg(long)]
        binary: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Kill { kills, clients, seed, binary } => {
            let seed = seed.unwrap_or_else(rand::random);
            let program = match binary {
                Some(binary) => binary,
                None => programs::quorate()?.to_owned(),
            };
            print_line(&format!("killing {} {kills} times under {clients} clients, seed {seed}", program.display()));
            let mut show = |summary: &Summary| {
                if summary.kills.is_multiple_of(10) && summary.kills > 0 {
                    print_line(&format!("{:>5} kills, revision {}", summary.kills, summary.revision));
                }
            };
            let summary = kill::run(&program, KillOptions { kills, clients, seed }, &mut show)?;
            print_line(&describe(&summary));
            Ok(())
        }
    }
}

fn describe(summary: &Summary) -> String {
    let mut restarts: Vec<_> = summary.restarts.clone();
    restarts.sort_unstable();
    let at = |share: usize| restarts.get(restarts.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    format!(
        "{} kills ({} while starting): {} writes acknowledged and found, {} of unknown outcome of which {} had happened, \
         revision {}, restart to ready median {} ms, longest {} ms; nothing lost, nothing invented",
        summary.kills,
        summary.kills_while_starting,
        summary.acknowledged,
        summary.unknown,
        summary.unknown_happened,
        summary.revision,
        at(50).as_millis(),
        at(100).as_millis()
    )
}

#[allow(clippy::print_stdout, reason = "what a run found is what it is run for")]
fn print_line(text: &str) {
    println!("{text}");
}
