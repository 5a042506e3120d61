//! `cluster-test`: how people reach the proving ground.

mod commands;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cluster_test::failover::{self, FailoverOptions, How};
use cluster_test::kill::{self, KillOptions, Summary};
use cluster_test::programs;
use commands::bench::BenchArgs;

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
    /// Takes the leader away under load, again and again: how long until a put succeeds, and is anything lost
    Failover {
        #[arg(long, default_value_t = 20)]
        tries: usize,
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// What happens to the leader
        #[arg(long, value_enum, default_value_t = How::Kill)]
        by: How,
        /// Puts a second
        #[arg(long, default_value_t = 300)]
        rate: u32,
        /// Only this server; without it, real etcd and ours one after the other
        #[arg(long)]
        binary: Option<PathBuf>,
        /// A flag for the members, as --arg=--election-timeout=500; may be repeated
        #[arg(long = "arg", allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Puts the same load on real etcd and on ours in turn; prints what both answered and cost
    Bench(BenchArgs),
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
        Verb::Bench(args) => commands::bench::run(args),
        Verb::Failover { tries, members, by, rate, binary, args } => {
            failover(&FailoverOptions { members, tries, how: by, rate, args }, binary)
        }
    }
}

fn failover(options: &FailoverOptions, binary: Option<PathBuf>) -> Result<()> {
    let programs = match binary {
        Some(binary) => vec![binary],
        None => vec![programs::etcd()?.to_owned(), programs::quorate()?.to_owned()],
    };
    for program in programs {
        let mut show = |round: usize, gap: Duration| {
            if std::io::stdout().is_terminal() {
                print_line(&format!("{:>5}: {} ms", round + 1, gap.as_millis()));
            }
        };
        let summary = failover::run(&program, options, &mut show)?;
        print_line(&format!(
            "{}: {} of {} leaders gone ({:?}); to the first put that succeeds: median {} ms, shortest {} ms, longest {} ms; \
             {} puts acknowledged and found on all members, {} failed, {} of these at survivors; term +{}",
            program.file_name().unwrap_or_default().to_string_lossy(),
            summary.gaps.len(),
            options.members,
            options.how,
            summary.gap(50).as_millis(),
            summary.gap(0).as_millis(),
            summary.gap(100).as_millis(),
            summary.acknowledged,
            summary.failed,
            summary.failed_at_survivors,
            summary.terms
        ));
    }
    Ok(())
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
