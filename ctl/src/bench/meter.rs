//! What the server and this client use: processor time and memory, as the kernel counts them.
//!
//! ```text
//!  server   /proc/PID/stat (user + system time), /proc/PID/status (VmRSS, VmHWM), summed over --pid
//!  client   CLOCK_PROCESS_CPUTIME_ID
//! ```
//!
//! `stat` counts in steps of 10 ms, twice, which is a tenth of what a short row costs. The kernel has nanoseconds by thread
//! (`task/TID/schedstat`), but those of a thread are gone with it: they are taken where their sum is what `stat` says.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// The processes of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    pids: Vec<u32>,
}

/// So far may the threads' sum be from what `stat` says: each of its two counters is cut to 10 ms, at both ends.
const STAT_STEP: Duration = Duration::from_millis(20);

/// Counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) at: Instant,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
    /// By the number of each thread of the server.
    threads: BTreeMap<u32, Duration>,
    pub(crate) server_rss_bytes: u64,
    pub(crate) server_rss_peak_bytes: u64,
}

/// What the server used between two readings.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerUse {
    pub(crate) pids: Vec<u32>,
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_seconds_per_10k: f64,
    pub(crate) rss_before_bytes: u64,
    pub(crate) rss_after_bytes: u64,
    /// The most since the processes started.
    pub(crate) rss_peak_bytes: u64,
    /// Growth of the resident memory by operation; below zero where it shrank.
    pub(crate) rss_bytes_per_operation: f64,
}

impl Meter {
    pub(crate) fn new(pids: Vec<u32>) -> Result<Self> {
        let meter = Self { pids };
        meter.read().context("read what --pid names")?;
        Ok(meter)
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        let client = clock_gettime(ClockId::ProcessCPUTime);
        let mut reading = Reading {
            at: Instant::now(),
            client_cpu: Duration::try_from(client).context("read our own processor time")?,
            server_cpu: Duration::ZERO,
            threads: BTreeMap::new(),
            server_rss_bytes: 0,
            server_rss_peak_bytes: 0,
        };
        for pid in &self.pids {
            let read = |file: &str| {
                fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("look at process {pid}"))
            };
            reading.server_cpu += cpu(&read("stat")?).with_context(|| format!("read /proc/{pid}/stat"))?;
            threads(*pid, &mut reading.threads);
            let status = read("status")?;
            let field = |name| kilobytes(&status, name).with_context(|| format!("read {name} of process {pid}"));
            reading.server_rss_bytes += field("VmRSS:")?;
            reading.server_rss_peak_bytes += field("VmHWM:")?;
        }
        Ok(reading)
    }

    fn cpu(&self, before: &Reading, after: &Reading) -> Duration {
        let by_stat = after.server_cpu.saturating_sub(before.server_cpu);
        let spent = |(thread, spent): (&u32, &Duration)| {
            spent.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        };
        let by_threads: Duration = after.threads.iter().map(spent).sum();
        let steps = STAT_STEP * u32::try_from(self.pids.len()).expect("few processes");
        if by_threads.abs_diff(by_stat) <= steps { by_threads } else { by_stat }
    }

    /// `None` where no process was named.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn used(&self, before: &Reading, after: &Reading, operations: u64) -> Option<ServerUse> {
        if self.pids.is_empty() {
            return None;
        }
        let cpu_seconds = self.cpu(before, after).as_secs_f64();
        let count = operations.max(1) as f64;
        Some(ServerUse {
            pids: self.pids.clone(),
            cpu_seconds,
            cpu_seconds_per_10k: cpu_seconds / count * 10_000.0,
            rss_before_bytes: before.server_rss_bytes,
            rss_after_bytes: after.server_rss_bytes,
            rss_peak_bytes: after.server_rss_peak_bytes,
            rss_bytes_per_operation: (after.server_rss_bytes as f64 - before.server_rss_bytes as f64) / count,
        })
    }
}

/// The processor time of each thread; none where the kernel does not say, or the thread is gone meanwhile.
fn threads(pid: u32, into: &mut BTreeMap<u32, Duration>) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        let number = task.file_name().to_str().and_then(|name| name.parse().ok());
        let spent = fs::read_to_string(task.path().join("schedstat")).ok();
        let spent = spent.as_deref().and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
        into.extend(number.zip(spent.map(Duration::from_nanos)));
    }
}

/// User and system time from the text of /proc/PID/stat. The program's name stands in brackets and may hold anything.
fn cpu(stat: &str) -> Result<Duration> {
    let Some((_, fields)) = stat.rsplit_once(')') else { bail!("no name in brackets") };
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("too few fields")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).context("read CLK_TCK")?)
}

fn kilobytes(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 5 1 2 3";
        assert_eq!(cpu(stat).unwrap(), Duration::from_secs(2));
        assert!(cpu("7 (a) S 1 7").is_err());
    }

    #[test]
    fn threads_are_taken_where_they_say_what_the_process_says() {
        let meter = Meter { pids: vec![1] };
        let reading = |stat, threads: &[(u32, u64)]| Reading {
            at: Instant::now(),
            client_cpu: Duration::ZERO,
            server_cpu: Duration::from_millis(stat),
            threads: threads.iter().map(|(number, spent)| (*number, Duration::from_millis(*spent))).collect(),
            server_rss_bytes: 0,
            server_rss_peak_bytes: 0,
        };
        let before = reading(1_000, &[(1, 600), (2, 405)]);
        // A thread that was new, and two that went on.
        assert_eq!(meter.cpu(&before, &reading(1_100, &[(1, 650), (2, 455), (3, 7)])), Duration::from_millis(107));
        // A thread that ended took what it had spent with it.
        assert_eq!(meter.cpu(&before, &reading(1_100, &[(1, 650)])), Duration::from_millis(100));
        // A kernel that does not say.
        assert_eq!(meter.cpu(&before, &reading(1_100, &[])), Duration::from_millis(100));
    }

    #[test]
    fn our_own_process_can_be_read() {
        let meter = Meter::new(vec![std::process::id()]).unwrap();
        let before = meter.read().unwrap();
        let after = meter.read().unwrap();
        assert!(before.server_rss_bytes > 0 && after.client_cpu >= before.client_cpu);
        let used = meter.used(&before, &after, 10).unwrap();
        assert_eq!(used.pids, [std::process::id()]);
        assert!(used.rss_peak_bytes >= used.rss_before_bytes);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = format!("{:#}", Meter::new(vec![u32::MAX]).unwrap_err());
        assert!(error.contains(&u32::MAX.to_string()), "{error}");
    }
}
