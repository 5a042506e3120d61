//! `cluster-test`: how people reach the proving ground.

mod commands;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cluster_test::disk_fault::{self, FaultOptions, FaultSummary};
use cluster_test::failover::{self, FailoverOptions, How};
use cluster_test::interrupt::{RunOptions, Summary};
use cluster_test::machine::{EXIT_CODE_NOT_RUN, NotRun};
use cluster_test::power_cut::{self, CutSummary};
use cluster_test::{kill, programs};
use commands::bench::BenchArgs;
use commands::diff::DiffArgs;

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
    /// Cuts the power of the disks of one member under load, again and again, and checks that nothing acknowledged is lost
    ///
    /// The disks are ext4 file systems in files of a temporary directory, mounted through loop devices, so it takes root and a
    /// kernel with both. Where something is missing it says what, and ends with exit code 77: neither passed nor failed.
    PowerCut {
        #[arg(long, default_value_t = 100)]
        cuts: usize,
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// The same seed gives the same operations; when they meet the cut is up to the machine
        #[arg(long)]
        seed: Option<u64>,
        /// Another server, for example the real etcd
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Further flags of the member, behind `--`; with --unsafe-no-fsync the run must fail
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// Makes single calls of the disk fail under a member, and checks that it ends, answers nothing more and has lost nothing
    ///
    /// By strace, on the unmodified server; after each fault the power is cut as well. It takes what `power-cut` takes, and
    /// strace; where something is missing it says what, and ends with exit code 77: neither passed nor failed.
    DiskFault {
        /// Each kind of call fails the first time, the second time, and so on up to this
        #[arg(long, default_value_t = 30)]
        calls: u32,
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// The same seed gives the same operations; when they meet the fault is up to the machine
        #[arg(long)]
        seed: Option<u64>,
        /// Another build of our server (the threads to look at are found by their names)
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Most milliseconds from the fault to the end of the process
        #[arg(long, default_value_t = 2_000)]
        end_within_ms: u64,
    },
    /// Puts the same load on real etcd and on ours in turn; prints what both answered and cost
    Bench(BenchArgs),
    /// Sends the same random requests, right and wrong, to real etcd and to ours, and compares all answers and watch events
    Diff(DiffArgs),
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<NotRun>() {
            Some(not_run) => {
                eprintln!("cluster-test: {not_run}");
                ExitCode::from(EXIT_CODE_NOT_RUN)
            }
            None => {
                eprintln!("cluster-test: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Kill { kills, clients, seed, binary } => {
            let options = RunOptions { interruptions: kills, clients, seed: seed.unwrap_or_else(rand::random) };
            let program = server(binary)?;
            print_line(&format!(
                "killing {} {kills} times under {clients} clients, seed {}",
                program.display(),
                options.seed
            ));
            let summary = kill::run(&program, options, &mut show("kills"))?;
            print_line(&format!("{}; nothing lost, nothing invented", describe("kills", &summary)));
            Ok(())
        }
        Verb::Bench(args) => commands::bench::run(args),
        Verb::Diff(args) => commands::diff::run(args),
        Verb::Failover { tries, members, by, rate, binary, args } => {
            failover(&FailoverOptions { members, tries, how: by, rate, args }, binary)
        }
        Verb::PowerCut { cuts, clients, seed, binary, flags } => {
            let options = RunOptions { interruptions: cuts, clients, seed: seed.unwrap_or_else(rand::random) };
            let program = server(binary)?;
            print_line(&format!(
                "cutting the power of {} {cuts} times under {clients} clients, seed {}",
                program.display(),
                options.seed
            ));
            let summary = power_cut::run(&program, options, &flags, &mut show("cuts"))?;
            print_line(&describe_cuts(&summary));
            Ok(())
        }
        Verb::DiskFault { calls, clients, seed, binary, end_within_ms } => {
            let end_within = Duration::from_millis(end_within_ms);
            let options = FaultOptions { calls, clients, seed: seed.unwrap_or_else(rand::random), end_within };
            let program = server(binary)?;
            print_line(&format!(
                "failing calls 1 to {calls} of log and state of {} under {clients} clients, seed {}",
                program.display(),
                options.seed
            ));
            let summary = disk_fault::run(&program, options, &mut show("faults"))?;
            print_line(&describe_faults(&summary));
            Ok(())
        }
    }
}

fn server(binary: Option<PathBuf>) -> Result<PathBuf> {
    match binary {
        Some(binary) => Ok(binary),
        None => Ok(programs::quorate()?.to_owned()),
    }
}

/// Progress for whoever watches.
fn show(what: &'static str) -> impl FnMut(&Summary) {
    let (terminal, mut shown) = (std::io::stdout().is_terminal(), 0);
    move |summary| {
        if terminal && summary.interruptions / 10 > shown {
            shown = summary.interruptions / 10;
            print_line(&format!("{:>5} {what}, revision {}", summary.interruptions, summary.revision));
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

fn describe(what: &str, summary: &Summary) -> String {
    let mut starts: Vec<_> = summary.starts.clone();
    starts.sort_unstable();
    let at = |share: usize| starts.get(starts.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    format!(
        "{} {what} ({} while starting): {} writes acknowledged and found, {} of unknown outcome of which {} had happened, \
         revision {}, start to ready median {} ms, longest {} ms",
        summary.interruptions,
        summary.while_starting,
        summary.acknowledged,
        summary.unknown,
        summary.unknown_happened,
        summary.revision,
        at(50).as_millis(),
        at(100).as_millis()
    )
}

fn describe_cuts(summary: &CutSummary) -> String {
    format!(
        "{}; {} cut one disk of two, after {} the member noticed and ended by itself; {} answers came when the power was gone; the log rolled {} times, \
         {} files of the state were written; nothing lost, nothing invented, 0 failed starts",
        describe("cuts", &summary.rounds),
        summary.one_of_two,
        summary.noticed,
        summary.late,
        summary.rolls,
        summary.tables
    )
}

fn describe_faults(summary: &FaultSummary) -> String {
    format!(
        "{}; {} faults in the log, {} in the state, {} ended a start, {} were survived by design, {} starts did not make \
         the call; fault to end of the process at most {} ms; nothing answered after it, nothing lost, nothing invented",
        describe("faults", &summary.rounds),
        summary.in_log,
        summary.in_state,
        summary.while_starting,
        summary.survived,
        summary.not_reached,
        summary.longest.as_millis()
    )
}

#[allow(clippy::print_stdout, reason = "what a run found is what it is run for")]
fn print_line(text: &str) {
    println!("{text}");
}
