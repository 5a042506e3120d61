//! One member: its process, its directory, its ports, its output.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_proto::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Client;
use super::keeper::Keeper;
use super::ports::free_port;

/// What a member prints when clients may come. etcd's own test framework waits for the same words.
pub const READY: &str = "ready to serve client requests";

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(3);
const LOG_LINES_SHOWN: usize = 20;
const MEMORY_DIR: &str = "/dev/shm";

/// A single member says that it is reached by its peers here: nobody asks, and member and cluster ID, which are made of this
/// address, are the same in every run (8e9e05c52164694d, cdf818194e3a8c32).
const PEER_URL_ALONE: &str = "http://localhost:2380";

/// How to start a member.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further flags, as `--flag=value`.
    pub args: Vec<String>,
    /// Further environment.
    pub env: Vec<(String, String)>,
    /// A program, with its arguments, that the member is started through and that becomes it.
    pub through: Vec<String>,
    /// Where its data are, if not in the directory that goes with the member.
    pub data_dir: Option<PathBuf>,
    /// Where the member's directory is made; by default where temporary files go.
    pub parent: Option<PathBuf>,
}

impl Options {
    /// Elections in a fifth of the default time: restarts are many in a test, and a single member elects itself.
    pub fn quick() -> Self {
        Self::with_args(&["--heartbeat-interval=20", "--election-timeout=200"])
    }

    pub fn with_args(args: &[&str]) -> Self {
        Self { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Self::default() }
    }

    /// Its files in memory, where the machine has a place for that: for tests that ask what is answered, not what a disk keeps.
    #[must_use]
    pub fn without_disk(mut self) -> Self {
        self.parent = Some(PathBuf::from(MEMORY_DIR)).filter(|dir| dir.is_dir());
        self
    }

    #[must_use]
    pub fn and(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
}

#[derive(Debug)]
pub struct Member {
    // In order of dropping: what may still write into the directory goes before it.
    running: Option<Running>,
    dir: TempDir,
    name: String,
    program: PathBuf,
    /// Name and addresses: the same at every start.
    args: Vec<String>,
    options: Options,
    client_port: u16,
    peer_port: u16,
}

#[derive(Debug)]
struct Running {
    process: Child,
    // After the process in drop order: it must not act on a number that is free again.
    _keeper: Keeper,
    log_start: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only where the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Member {
    /// Starts a single member in a new directory and waits until it serves.
    pub fn start(program: &Path, options: &Options) -> Result<Self> {
        let mut member = Self::prepare(program, options)?;
        member.restart()?;
        Ok(member)
    }

    /// A single member that is not started yet.
    pub fn prepare(program: &Path, options: &Options) -> Result<Self> {
        Self::new(program, "m0", free_port()?, None, options)
    }

    /// One of several members, not started yet. It serves only when enough of the others are there: see
    /// [`Member::wait_ready`]. `peers` is its `--initial-cluster`.
    pub fn one_of(program: &Path, name: &str, peer_port: u16, peers: &str, options: &Options) -> Result<Self> {
        Self::new(program, name, peer_port, Some(peers), options)
    }

    /// One with exactly these flags, not started yet; but for where its data are.
    pub fn with_flags(
        program: &Path,
        name: &str,
        client_port: u16,
        peer_port: u16,
        flags: Vec<String>,
    ) -> Result<Self> {
        let member = Self::new(program, name, peer_port, None, &Options::default())?;
        Ok(Self { args: flags, client_port, ..member })
    }

    fn new(program: &Path, name: &str, peer_port: u16, peers: Option<&str>, options: &Options) -> Result<Self> {
        let parent = options.parent.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir_in(parent).context("make a directory")?;
        let client_port = free_port()?;
        let client = format!("http://127.0.0.1:{client_port}");
        let listen_peer = format!("http://127.0.0.1:{peer_port}");
        let (advertise_peer, peers) = match peers {
            Some(peers) => (listen_peer.clone(), peers.to_owned()),
            None => (PEER_URL_ALONE.to_owned(), format!("{name}={PEER_URL_ALONE}")),
        };
        let args = vec![
            format!("--name={name}"),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={listen_peer}"),
            format!("--initial-advertise-peer-urls={advertise_peer}"),
            format!("--initial-cluster={peers}"),
        ];
        let (name, program) = (name.to_owned(), program.to_owned());
        Ok(Self { running: None, dir, name, program, args, options: options.clone(), client_port, peer_port })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// From the next start on.
    pub fn set_options(&mut self, options: &Options) {
        self.options = options.clone();
    }

    /// Where clients connect: `127.0.0.1:port`, as etcdctl takes it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Where clients connect, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.endpoint())
    }

    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// Where other members reach one of several.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// Removes its data, as if it had been started on a new disk. It must not run.
    pub fn wipe(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("wipe the data of {}: it runs", self.name);
        }
        fs::remove_dir_all(self.data_dir()).context("remove its data")
    }

    /// Waits until it has printed `text` since its last start.
    pub fn wait_printed(&self, text: &str) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        while !self.log_since_start()?.contains(text) {
            if Instant::now() > until {
                bail!("{} did not print `{text}` within {READY_WITHIN:?}\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// Everything that the member has printed, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.running {
            None => Ok(false),
            Some(running) => Ok(running.process.try_wait().context("look at the member")?.is_none()),
        }
    }

    /// Memory in use now.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("find VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
        Ok(kib * 1024)
    }

    /// What its data directory takes on the disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        fn blocks(dir: &Path) -> Result<u64> {
            let mut sum = 0;
            for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                sum += if metadata.is_dir() { blocks(&entry.path())? } else { metadata.blocks() };
            }
            Ok(sum)
        }
        const BLOCK_BYTES: u64 = 512;
        Ok(blocks(&self.data_dir())? * BLOCK_BYTES)
    }

    /// kill -9, and back when the process is gone.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Its services, for code without a runtime.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.url())
    }

    /// What the member says of itself.
    pub fn status(&self) -> Result<pb::StatusResponse> {
        let client = self.client()?;
        client.run(client.maintenance().status(pb::StatusRequest {})).context("ask for its status")
    }

    /// Asks the member to stop (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait_stopped()
    }

    /// Asks the member to stop and does not wait.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until the member has stopped by itself.
    pub fn wait_stopped(&mut self) -> Result<ExitStatus> {
        self.wait_end(STOP_WITHIN).context("stop the member")
    }

    /// Waits until it ends of its own accord.
    pub fn wait_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            let running = self.running.as_mut().context("find the process")?;
            if let Some(status) = running.process.try_wait().context("wait for the member")? {
                self.running = None;
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("the member is still there after {within:?}\n{}", self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// Stops it from running (SIGSTOP) until [`Member::resume`]; its connections stay.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts it again over its data (or for the first time) and waits until it serves.
    pub fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("start the member: it runs");
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).context("open its log")?;
        let log_start = log.metadata().context("look at its log")?.len();
        let program = self.program.clone().into_os_string();
        let mut words = self.options.through.iter().map(OsString::from).chain([program]);
        let process = Command::new(words.next().expect("the program is the last of them"))
            .args(words)
            .args(&self.args)
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("open its log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {}", self.program.display()))?;
        let keeper = Keeper::of(Pid::from_child(&process), Some(self.dir.path()))?;
        self.running = Some(Running { process, _keeper: keeper, log_start });
        Ok(())
    }

    /// What it has printed since its last start.
    fn log_since_start(&self) -> Result<String> {
        let log_start = self.running.as_ref().context("find the process")?.log_start;
        let log = fs::read(self.log_path()).context("read its log")?;
        let start = usize::try_from(log_start).expect("a log fits in memory");
        Ok(String::from_utf8_lossy(&log[start..]).into_owned())
    }

    /// Whether it has printed that it serves.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.log_since_start()?.contains(READY))
    }

    /// Waits until it prints that it serves.
    pub fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            // Before the look at the output: what it printed before its end is there then.
            let running = self.is_running()?;
            if self.is_ready()? {
                return Ok(());
            }
            if !running {
                bail!("{} ended before it printed `{READY}`\n{}", self.program.display(), self.log_tail());
            }
            if Instant::now() > until {
                bail!(
                    "{} did not print `{READY}` within {READY_WITHIN:?}\n{}",
                    self.program.display(),
                    self.log_tail()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// The last lines of the member's output, for an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("--- its last lines\n{}\n---", tail.join("\n"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).context("signal the member")
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_child(&self.running.as_ref().context("find the process")?.process))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}
