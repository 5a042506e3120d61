//! Golden scripts: shell lines for the real etcdctl, and what they print, as a file that can be read and reviewed.
//!
//! ```text
//!  # Puts.                            a comment
//!  @flags --max-txn-ops=8             further flags of the server, at the top
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

use crate::cluster::{Member, Options};
use crate::programs;
use script::Script;

pub use mask::Mask;

/// Runs the script against a member of its own of the given server, and gives the file as it would have to be.
pub fn perform(golden: &Path, server: &Path) -> Result<String> {
    let text = fs::read_to_string(golden).with_context(|| format!("read {}", golden.display()))?;
    let script = Script::parse(&text).with_context(|| format!("parse {}", golden.display()))?;
    let mut options = Options::quick();
    options.args.extend(script.flags.iter().cloned());
    let member = Member::start(server, &options)?;
    let mut mask = Mask::of(&member)?;
    let printed = run::run(&script, &member, programs::etcd_dir()?)?;
    Ok(script.render(printed.iter().map(|output| mask.apply(output))))
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
