//! The real binary in a directory of its own, served on a socket file: no test takes a port of another.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::client::Client;
use super::raw::{Answer, ask};

const READY: &str = "ready to serve client requests";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        assert_eq!(self.code(), Some(1), "{}", self.said);
        for words in words {
            assert!(self.said.contains(words), "{words:?} is not in: {}", self.said);
        }
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// The command line, with `wrapper` in front of it if there is one.
    fn command(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let socket = format!("unix://{}", self.socket().display());
        let binary = env!("CARGO_BIN_EXE_quorate");
        let mut words = wrapper.iter().copied().chain([binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command.arg(format!("--data-dir={}", self.data().display()));
        command.args([format!("--listen-client-urls={socket}"), format!("--advertise-client-urls={socket}")]);
        command.arg("--listen-peer-urls=http://127.0.0.1:0");
        command.args(["--heartbeat-interval=20", "--election-timeout=200"]).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        self.spawn_under(&[], args)
    }

    pub(crate) fn spawn_under(&self, wrapper: &[&str], args: &[&str]) -> Process {
        Process::new(self.command(wrapper, args).spawn().unwrap(), self.socket())
    }

    /// Starts and waits until it serves.
    pub(crate) async fn start(&self, args: &[&str]) -> Process {
        let mut process = self.spawn(args);
        process.ready().await;
        process
    }

    /// For a start that fails.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.spawn(args).ended()
    }
}

pub(crate) struct Process {
    child: Child,
    socket: PathBuf,
    said: Arc<Mutex<String>>,
    lines: Receiver<String>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub(crate) log: Vec<String>,
}

impl Process {
    fn new(mut child: Child, socket: PathBuf) -> Self {
        let (sender, lines) = channel();
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, copy) = (child.stderr.take().unwrap(), said.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&format!("{line}\n"));
                let _ = sender.send(line);
            }
        });
        Self { child, socket, said, lines, reader: Some(reader), log: Vec::new() }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) async fn ready(&mut self) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(READY) {
                return;
            }
        }
        panic!("it did not start: {}", self.said());
    }

    /// A line of the log, as soon as it is there.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return line;
            }
        }
        panic!("it did not say {words:?}: {}", self.said());
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.socket).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// Over plain HTTP.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(UnixStream::connect(&self.socket).await.unwrap(), "GET", path, "1.1").await
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: plain numbers; the child has not been waited for, so the number is still its own.
        #[allow(unsafe_code, reason = "sending a signal is a plain system call")]
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0);
    }

    /// No chance to do anything: as a crash of the process, not of the machine.
    pub(crate) fn kill(self) {
        self.signal(libc::SIGKILL);
        self.ended();
    }

    pub(crate) fn terminate(self) -> Ended {
        self.signal(libc::SIGTERM);
        self.ended()
    }

    pub(crate) fn ended(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        };
        self.reader.take().unwrap().join().unwrap();
        Ended { status, said: self.said() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}
