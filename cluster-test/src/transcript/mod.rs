//! Golden scripts: shell lines for the real etcdctl, and what they print, as a file that can be read and reviewed.
//!
//! ```text
//!  # Puts.                            a comment
//!  @flags --max-txn-ops=8             further flags of the server, at the top
//!  @members 3                         on a cluster: $M0 is its first member, $ID0, $PEER0, $ALL
//!
//!  $ etcdctl put a 1                  a command: bash, all commands of a file in one shell
//!  OK                                 what it printed (both outputs), masked
//!
//!  $ etcdctl txn <<END                a command of several lines
//!  > mod("a") > "0"
//!  > END
//!  Error: ...
//!  [exit 128]                         where the exit code is not 0
//! ```
//!
//! ```text
//!  script   the file <-> comments and commands, and the file again with new output
//!  run      commands -> bash -> what each printed
//!  mask     what differs from run to run (ports, IDs, leases, terms, sizes, times) -> a name
//! ```
//!
//! The file is one text: a run renders it anew from its commands, and the two are compared line by line. Left out: matching by
//! pattern. What may differ is masked, everything else has to be equal.

mod mask;
mod run;
mod script;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, Member, Options, free_port};
use crate::programs;
use script::Script;

pub use mask::Mask;

/// Runs the script against a member of its own of the given server, and gives the file as it would have to be.
pub fn perform(golden: &Path, server: &Path) -> Result<String> {
    let text = fs::read_to_string(golden).with_context(|| format!("read {}", golden.display()))?;
    let script = Script::parse(&text).with_context(|| format!("parse {}", golden.display()))?;
    let mut options = Options::quick();
    options.args.extend(script.flags.iter().cloned());
    let (_running, variables, mut mask) = match script.members {
        None => {
            let member = Member::start(server, &options)?;
            let (variables, mask) = (one(&member), Mask::of(&member)?);
            (Running::One { _member: member }, variables, mask)
        }
        Some(count) => {
            let cluster = Cluster::start(server, count, &options)?;
            let (next_client, next_peer) = (free_port()?, free_port()?);
            let mut variables = several(&cluster)?;
            variables.extend([
                ("NEXT".into(), format!("127.0.0.1:{next_client}")),
                ("NEXT_PEER".into(), format!("http://127.0.0.1:{next_peer}")),
                ("SERVER".into(), server.display().to_string()),
                ("SERVER_FLAGS".into(), options.args.join(" ")),
            ]);
            let mask = Mask::of_several(&cluster, next_client, next_peer)?;
            (Running::Several { _cluster: cluster }, variables, mask)
        }
    };
    let printed = run::run(&script, &variables, programs::etcd_dir()?)?;
    Ok(script.render(printed.iter().map(|output| mask.apply(output))))
}

/// What the script talks to, for as long as it does.
enum Running {
    One { _member: Member },
    Several { _cluster: Cluster },
}

fn one(member: &Member) -> Vec<(String, String)> {
    vec![("ETCDCTL_ENDPOINTS".into(), member.endpoint()), ("ENDPOINT".into(), member.endpoint())]
}

/// `$M0`, `$ID0`, `$PEER0` and so on; `$ALL`. etcdctl speaks to the first one, unless it is told otherwise.
fn several(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let mut variables = one(&cluster.members[0]);
    variables.push(("ALL".into(), cluster.endpoints()));
    for (index, member) in cluster.members.iter().enumerate() {
        variables.push((format!("M{index}"), member.endpoint()));
        variables.push((format!("PEER{index}"), member.peer_url()));
        variables.push((format!("ID{index}"), format!("{:x}", cluster.id(index)?)));
    }
    Ok(variables)
}

/// Fails with the lines that differ.
pub fn compare(golden: &Path, performed: &str) -> Result<()> {
    let expected = fs::read_to_string(golden).with_context(|| format!("read {}", golden.display()))?;
    match differences(&expected, performed) {
        None => Ok(()),
        Some(difference) => bail!("{}: - expected, + printed\n{difference}", golden.display()),
    }
}

/// All scripts of this repository, by name.
pub fn all() -> Result<Vec<(String, PathBuf)>> {
    let dir = programs::repository().join("cluster-test/transcripts");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().context("name a script")?.to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

const CONTEXT_LINES: usize = 3;
const DIFFERENCES_MAX: usize = 60;

/// Both texts have the same commands, so that each command's output can be compared alone, and one that prints more lines than
/// it should does not make all that follow look wrong.
fn differences(expected: &str, performed: &str) -> Option<String> {
    if expected == performed {
        return None;
    }
    let mut shown = Vec::new();
    for (was, is) in script::sections(expected).iter().zip(&script::sections(performed)) {
        if was == is {
            continue;
        }
        let same_start = was.iter().zip(is).take_while(|(was, is)| was == is).count();
        let (was_rest, is_rest) = (&was[same_start..], &is[same_start..]);
        let same_end = was_rest.iter().rev().zip(is_rest.iter().rev()).take_while(|(was, is)| was == is).count();
        shown.push(String::new());
        shown.extend(was[..same_start].iter().take(CONTEXT_LINES).map(|line| format!("  {line}")));
        shown.extend(was_rest[..was_rest.len() - same_end].iter().map(|line| format!("- {line}")));
        shown.extend(is_rest[..is_rest.len() - same_end].iter().map(|line| format!("+ {line}")));
    }
    if shown.is_empty() {
        // The same commands and output, otherwise laid out.
        shown.push("only the layout differs: UPDATE=1 writes it as it should be".to_owned());
    }
    if shown.len() > DIFFERENCES_MAX {
        let more = shown.len() - DIFFERENCES_MAX;
        shown.truncate(DIFFERENCES_MAX);
        shown.push(format!("... and {more} lines more"));
    }
    Some(shown.join("\n"))
}
