//! A script's commands through one bash, and what each of them printed.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::script::Script;

const PRELUDE: &str = include_str!("prelude.sh");
const WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(5);

/// Stands between the outputs of two commands. Nothing prints this by itself.
const END_OF_COMMAND: &str = "\u{1}end of command\u{1}";

/// Both outputs of each command, and `[exit n]` where n is not 0.
pub(super) fn run(script: &Script, variables: &[(String, String)], etcd_dir: &Path) -> Result<Vec<String>> {
    let dir = tempfile::tempdir().context("make a directory for the script")?;
    let mut text = PRELUDE.to_owned();
    for command in &script.commands {
        text.push_str(&command.lines.join("\n"));
        text.push_str(&format!("\nprintf '\\n%s%d\\n' '{END_OF_COMMAND}' $?\n"));
    }
    fs::write(dir.path().join(".script"), text).context("write the script")?;
    let output = dir.path().join(".output");
    let to = File::create(&output).context("open the output")?;

    let mut paths = vec![etcd_dir.to_owned()];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let shell = Command::new("bash")
        .args(["--noprofile", "--norc", ".script"])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", env::join_paths(paths).context("join PATH")?)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(to.try_clone().context("open the output")?)
        .stderr(to)
        .spawn()
        .context("run bash")?;
    let mut shell = Group(shell);

    let until = Instant::now() + WITHIN;
    while shell.0.try_wait().context("wait for bash")?.is_none() {
        if Instant::now() > until {
            let printed = fs::read(&output).unwrap_or_default();
            bail!("the script does not end: after {WITHIN:?} it had printed\n{}", String::from_utf8_lossy(&printed));
        }
        thread::sleep(POLL);
    }
    let printed = fs::read(&output).context("read the output")?;
    split(&String::from_utf8_lossy(&printed), script.commands.len())
}

/// bash and whatever it started and left behind.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails where nobody of the group is left, which is what is wanted.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn split(printed: &str, commands: usize) -> Result<Vec<String>> {
    let mut outputs = Vec::with_capacity(commands);
    let mut rest = printed;
    while let Some((output, after)) = rest.split_once(END_OF_COMMAND) {
        let (code, after) = after.split_once('\n').context("find the exit code")?;
        // The newline before the mark is ours; where the output did not end in one, it is its end of line.
        let mut output = output.strip_suffix('\n').unwrap_or(output).to_owned();
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        if code != "0" {
            output.push_str(&format!("[exit {code}]\n"));
        }
        outputs.push(output);
        rest = after;
    }
    if outputs.len() != commands {
        bail!("bash ended after {} of {commands} commands, and printed\n{rest}", outputs.len());
    }
    Ok(outputs)
}
