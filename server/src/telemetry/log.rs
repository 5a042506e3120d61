//! The log: a `tracing` subscriber that hands finished lines to one writing thread.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tracing::{
    Event, Metadata, Subscriber,
    level_filters::LevelFilter,
    span,
    subscriber::{Interest, set_global_default},
};

use super::line::Fields;
pub use super::line::Format;

/// Beyond this many lines that no output has taken, further ones are dropped and counted.
const QUEUE_LINES_MAX: usize = 8192;
/// One write holds about this much.
const WRITE_BYTES: usize = 64 * 1024;
/// How long a stopping process waits for its outputs.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl Level {
    pub const ALL: [Level; 6] = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Panic, Level::Fatal];

    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    fn of(level: tracing::Level) -> Option<Self> {
        match level {
            tracing::Level::ERROR => Some(Level::Error),
            tracing::Level::WARN => Some(Level::Warn),
            tracing::Level::INFO => Some(Level::Info),
            tracing::Level::DEBUG => Some(Level::Debug),
            _ => None,
        }
    }

    /// What libraries may say: they call more things an information than an operator does.
    fn for_libraries(self) -> Self {
        match self {
            Level::Debug => Level::Info,
            Level::Info => Level::Warn,
            other => other,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Panic | Level::Fatal => LevelFilter::ERROR,
        }
    }
}

/// A line without a log, for what goes wrong before there is one.
#[track_caller]
pub fn stderr_line(level: Level, message: &str, fields: &[(&str, String)]) {
    let caller = Location::caller();
    let caller = short_caller(caller.file(), caller.line());
    let line = Fields::with(Format::Json, message, fields).line(level.as_str(), SystemTime::now(), &caller);
    // Without a standard error there is nobody to tell.
    let _unheard = io::stderr().write_all(line.as_bytes());
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// The running log. Dropping it waits (for a second at most) until its lines are out.
pub struct Log {
    lines: Lines,
}

impl Log {
    /// Opens the outputs and starts the thread. `outputs`: default, stderr, stdout, systemd/journal (the standard
    /// error, which systemd collects) or paths of files, which are appended to. The error is etcd's text.
    pub fn open(level: Level, format: Format, outputs: &[String]) -> Result<Self, String> {
        let outputs = open_outputs(outputs)?;
        let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&receiver, outputs, format, &counter))
            .map_err(|e| format!("start the thread of the log: {e}"))?;
        Ok(Self { lines: Lines { level, format, sender, dropped } })
    }

    /// From here on the events of the whole process go to this log.
    pub fn install(&self) -> Result<(), String> {
        set_global_default(self.subscriber()).map_err(|e| format!("install the log: {e}"))
    }

    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        self.lines.clone()
    }

    /// A line whose fields are known only at run time; `fatal` ones are written before this returns.
    #[track_caller]
    pub fn say(&self, level: Level, message: &str, fields: &[(&str, String)]) {
        if level < self.lines.level {
            return;
        }
        let caller = Location::caller();
        let caller = short_caller(caller.file(), caller.line());
        let fields = Fields::with(self.lines.format, message, fields);
        self.lines.send(fields.line(level.as_str(), SystemTime::now(), &caller));
        if level == Level::Fatal {
            self.flush();
        }
    }

    /// Waits until what was said so far is written: for panics and exits.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let started = Instant::now();
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.lines.sender.try_send(message) {
            if started.elapsed() > FLUSH_WAIT {
                return;
            }
            message = back;
            thread::sleep(Duration::from_millis(1));
        }
        // An output that takes nothing must not keep the process.
        let _late = written.recv_timeout(FLUSH_WAIT);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The subscriber: events become lines, spans are nothing.
#[derive(Clone)]
struct Lines {
    level: Level,
    format: Format,
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn send(&self, line: String) {
        match self.sender.try_send(Message::Line(line)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with("quorate");
        let lowest = if own { self.level } else { self.level.for_libraries() };
        // Errors pass, as they may say that they are a panic or fatal.
        metadata.is_event() && Level::of(*metadata.level()).is_some_and(|level| level >= lowest.min(Level::Error))
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.takes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.filter())
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.takes(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields::new(self.format);
        event.record(&mut fields);
        let named = fields.level().and_then(Level::parse);
        let Some(level) = named.or_else(|| Level::of(*metadata.level())) else { return };
        if level >= self.level {
            let caller = short_caller(metadata.file().unwrap_or(metadata.target()), metadata.line().unwrap_or(0));
            self.send(fields.line(level.as_str(), SystemTime::now(), &caller));
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Own files from the workspace's root; those of libraries from the name of their crate.
fn short_caller(file: &str, line: u32) -> String {
    let file = match file.split_once("/registry/src/") {
        Some((_, inside)) => inside.split_once('/').map_or(inside, |(_, path)| path),
        None => file,
    };
    format!("{file}:{line}")
}

type Output = Box<dyn Write + Send>;

fn open_outputs(outputs: &[String]) -> Result<Vec<Output>, String> {
    if outputs.iter().any(|output| output == "/dev/null") {
        return Ok(Vec::new());
    }
    let mut names: Vec<&str> = outputs.iter().map(|output| canonical(output)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(open_output).collect()
}

fn canonical(output: &str) -> &str {
    match output {
        "default" | "systemd/journal" => "stderr",
        path => path.strip_prefix("file://").unwrap_or(path),
    }
}

fn open_output(name: &str) -> Result<Output, String> {
    match name {
        "stderr" => Ok(Box::new(io::stderr())),
        "stdout" => Ok(Box::new(io::stdout())),
        path => match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) => {
                let reason = match e.kind() {
                    io::ErrorKind::NotFound => "no such file or directory".into(),
                    io::ErrorKind::PermissionDenied => "permission denied".into(),
                    _ => e.to_string(),
                };
                Err(format!("open sink {path:?}: open {path}: {reason}"))
            }
        },
    }
}

fn write_lines(receiver: &Receiver<Message>, mut outputs: Vec<Output>, format: Format, dropped: &AtomicU64) {
    let mut batch = String::new();
    let mut waiting: Vec<SyncSender<()>> = Vec::new();
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => batch.push_str(&line),
                Message::Flush(done) => waiting.push(done),
            }
            if batch.len() < WRITE_BYTES {
                next = receiver.try_recv().ok();
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let fields = Fields::with(
                format,
                "log lines were dropped, as the outputs were slow",
                &[("count", lost.to_string())],
            );
            batch.push_str(&fields.line("warn", SystemTime::now(), &short_caller(file!(), line!())));
        }
        for output in &mut outputs {
            // There is nowhere left to report a failing output.
            let _failed = output.write_all(batch.as_bytes()).and_then(|()| output.flush());
        }
        batch.clear();
        for done in waiting.drain(..) {
            let _gone = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(level: Level, format: Format, events: impl FnOnce()) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").to_str().unwrap().to_owned();
        let log = Log::open(level, format, std::slice::from_ref(&path)).unwrap();
        tracing::subscriber::with_default(log.subscriber(), events);
        log.say(Level::Fatal, "last", &[("environment-variable", "ETCD_NAME".into())]);
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    /// The line without its time.
    fn rest(line: &str) -> String {
        let (before, after) = line.split_once("\"ts\":\"").unwrap();
        format!("{before}{}", after.split_once("\",").unwrap().1)
    }

    #[test]
    fn events_become_lines_of_zap() {
        let lines = read(Level::Info, Format::Json, || {
            let error = io::Error::other("no disk");
            tracing::debug!(target: "quorate_server", "unheard");
            tracing::info!(target: "h2::codec", "unheard");
            let span = tracing::info_span!("unheard");
            let _entered = span.enter();
            tracing::info!(target: "quorate_server", member_id = 7, "data-dir" = %"d", ok = true, rate = 0.5, "hello {}", 1);
            tracing::warn!(target: "h2::codec", error = &error as &dyn std::error::Error, "library");
            tracing::error!(target: "quorate_server", level = "panic", who = ?"a\"b", "broken");
        });
        let here = short_caller(file!(), 0);
        let here = here.trim_end_matches(":0");
        let lines: Vec<String> = lines.iter().map(|line| rest(line)).collect();
        let has = |line: &str, level: &str, tail: &str| {
            let start = format!("{{\"level\":\"{level}\",\"caller\":\"{here}:");
            assert!(line.starts_with(&start) && line.ends_with(tail), "{line}");
        };
        assert_eq!(lines.len(), 4, "{lines:#?}");
        has(&lines[0], "info", "\"msg\":\"hello 1\",\"member-id\":7,\"data-dir\":\"d\",\"ok\":true,\"rate\":0.5}");
        has(&lines[1], "warn", "\"msg\":\"library\",\"error\":\"no disk\"}");
        has(&lines[2], "panic", "\"msg\":\"broken\",\"who\":\"\\\"a\\\\\\\"b\\\"\"}");
        has(&lines[3], "fatal", "\"msg\":\"last\",\"environment-variable\":\"ETCD_NAME\"}");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        for (level, expected) in
            [(Level::Debug, 6), (Level::Warn, 4), (Level::Error, 3), (Level::Panic, 2), (Level::Fatal, 1)]
        {
            let lines = read(level, Format::Console, || {
                tracing::trace!(target: "quorate", "t");
                tracing::debug!(target: "quorate", "d");
                tracing::info!(target: "quorate", "i");
                tracing::warn!(target: "quorate", "w");
                tracing::error!(target: "quorate", "e");
                tracing::error!(target: "quorate", level = "panic", "p");
            });
            assert_eq!(lines.len(), expected, "{level:?}: {lines:#?}");
            assert!(lines.iter().all(|line| line.split('\t').count() >= 4));
        }
    }

    #[test]
    fn an_output_that_cannot_be_opened_is_named_as_etcd_names_it() {
        for (path, expected) in [
            ("/nonexist/x", "open sink \"/nonexist/x\": open /nonexist/x: no such file or directory"),
            ("", "open sink \"\": open : no such file or directory"),
        ] {
            assert_eq!(Log::open(Level::Info, Format::Json, &[path.into()]).err().unwrap(), expected);
        }
        assert!(Log::open(Level::Info, Format::Json, &["/dev/null".into(), "/nonexist/x".into()]).is_ok());
    }

    #[test]
    fn a_stuck_output_drops_lines_and_counts_them() {
        let (sender, receiver) = sync_channel(1);
        let lines = Lines { level: Level::Info, format: Format::Json, sender, dropped: Arc::default() };
        (0..3).for_each(|_| lines.send("{}\n".into()));
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
        let file = tempfile::NamedTempFile::new().unwrap();
        let output: Output = Box::new(file.reopen().unwrap());
        let dropped = lines.dropped.clone();
        drop(lines);
        write_lines(&receiver, vec![output], Format::Json, &dropped);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.contains("log lines were dropped") && text.contains("\"count\":\"2\""), "{text}");
    }

    #[test]
    fn callers_are_short() {
        let library = "/root/.cargo/registry/src/index.crates.io-1/openraft-0.10.0/src/core/raft_core.rs";
        assert_eq!(short_caller(library, 7), "openraft-0.10.0/src/core/raft_core.rs:7");
        assert_eq!(short_caller("server/src/main.rs", 12), "server/src/main.rs:12");
    }
}
