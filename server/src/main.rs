//! The `quorate` binary, which answers under the name `etcd` too.

use std::process::ExitCode;
use std::time::Duration;

use quorate_server::config::{Config, Failure, LogFormat, Notice, Start};
use quorate_server::telemetry::log::{Format, stderr_line};
use quorate_server::telemetry::{Level, Log};
use quorate_server::{fault, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A quarter less CPU per request than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the runtime may take to end tasks that do not end by themselves.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match Start::from_process() {
        Start::Print { text, exit_code } => {
            print(&text);
            ExitCode::from(exit_code)
        }
        Start::Fail { failure, exit_code } => {
            fail(&failure);
            ExitCode::from(exit_code)
        }
        Start::Run(config) => run(*config),
    }
}

#[allow(clippy::print_stdout, reason = "--help and --version are asked for on the standard output")]
fn print(text: &str) {
    print!("{text}");
}

fn fail(failure: &Failure) {
    match failure {
        Failure::Plain(text) => eprint!("{text}"),
        Failure::Logged(notice) => {
            stderr_line(Level::parse(notice.level).unwrap_or(Level::Error), &notice.message, &fields(notice));
        }
    }
}

fn run(config: Config) -> ExitCode {
    let log = match open_log(&config) {
        Ok(log) => log,
        Err(error) => {
            stderr_line(Level::Error, "failed to start logging", &[("error", error)]);
            return ExitCode::FAILURE;
        }
    };
    for notice in &config.notices {
        log.say(Level::parse(notice.level).unwrap_or(Level::Info), &notice.message, &fields(notice));
    }
    let end = run_logged(config);
    log.flush();
    match end {
        End::InOrder => ExitCode::SUCCESS,
        End::Signal(signal) => end_by(signal),
        End::Failed => fault::end(fault::EXIT_CODE_FAULT),
    }
}

/// How a member came to its end.
enum End {
    InOrder,
    /// For the process to end by it too.
    Signal(i32),
    /// Not all of it may have been taken apart.
    Failed,
}

fn open_log(config: &Config) -> Result<Log, String> {
    let level = Level::parse(config.log_level.as_str()).unwrap_or(Level::Info);
    let format = match config.log_format {
        LogFormat::Json => Format::Json,
        LogFormat::Console => Format::Console,
    };
    let log = Log::open(level, format, &config.log_outputs)?;
    log.install()?;
    Ok(log)
}

fn fields(notice: &Notice) -> Vec<(&'static str, String)> {
    notice.fields.clone()
}

fn run_logged(config: Config) -> End {
    let runtime = match runtime(config.worker_threads) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the runtime");
            return End::Failed;
        }
    };
    let (outcome, caught) = runtime.block_on(async {
        let stop = CancellationToken::new();
        let caught = tokio::spawn(stop_on_signal(stop.clone()));
        let outcome = server::run(config, stop).await;
        (outcome, caught.now_or_abort().await)
    });
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    match (outcome, caught) {
        (Err(error), _) => {
            tracing::error!(error = format!("{error:#}"), "failed to run");
            End::Failed
        }
        (Ok(()), Some(signal)) => End::Signal(signal),
        (Ok(()), None) => End::InOrder,
    }
}

/// One worker answers most requests at half the cost of two, because a hand-over between threads is a wake-up; more are
/// for machines with cores to spare.
fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if workers <= 1 {
        return tokio::runtime::Builder::new_current_thread().enable_all().build();
    }
    // A task woken by another would run before the answers that wait to be written together.
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).disable_lifo_slot().enable_all().build()
}

async fn stop_on_signal(stop: CancellationToken) -> Option<i32> {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return None;
    };
    let caught = tokio::select! {
        _ = terminate.recv() => libc::SIGTERM,
        _ = interrupt.recv() => libc::SIGINT,
    };
    tracing::info!(signal = caught, "received a signal; shutting down");
    stop.cancel();
    Some(caught)
}

/// As etcd does it: whoever waits for the process sees that it ended by the signal, unless it is the first of all
/// processes, for which signals without a handler have no effect.
#[allow(unsafe_code, reason = "restoring a default handler and raising a signal are plain system calls")]
fn end_by(signal: i32) -> ExitCode {
    if std::process::id() == 1 {
        return ExitCode::SUCCESS;
    }
    // SAFETY: no handler of this process is needed any more, and both calls take plain numbers.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    ExitCode::FAILURE
}

trait NowOrAbort<T> {
    async fn now_or_abort(self) -> Option<T>;
}

impl<T> NowOrAbort<T> for tokio::task::JoinHandle<Option<T>> {
    /// What the task has come to, if it has ended.
    async fn now_or_abort(self) -> Option<T> {
        if !self.is_finished() {
            self.abort();
        }
        self.await.ok().flatten()
    }
}
