//! What the system knows of this process, read from `/proc` on a scrape. Elsewhere than on Linux it is left out.

use std::fs;

use super::cells::{heading, sample};

/// Linux counts processor time for user space in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn families() -> Vec<(&'static str, String)> {
    let mut families = Vec::new();
    let mut put = |name: &'static str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let mut out = String::new();
            heading(&mut out, name, help, kind);
            sample(&mut out, name, "", value);
            families.push((name, out));
        }
    };
    let status = read("status");
    let stat = read("stat");
    let limits = read("limits");
    let files = open_files();
    let ticks = |field: usize| stat_field(&stat, field).map(|ticks| ticks / TICKS_PER_SECOND);
    let cpu = ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system);
    let start = ticks(STARTTIME).zip(boot_time()).map(|(after, boot)| boot + after);
    put("process_cpu_seconds_total", "counter", "Processor time used, in seconds.", cpu);
    put("process_resident_memory_bytes", "gauge", "Memory in use.", kilobytes(&status, "VmRSS:"));
    put("process_virtual_memory_bytes", "gauge", "Address space in use.", kilobytes(&status, "VmSize:"));
    put("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", start);
    put("process_open_fds", "gauge", "Open file descriptors.", files);
    put("process_max_fds", "gauge", "Most open file descriptors.", limit(&limits, "Max open files"));
    put("os_fd_used", "gauge", "Open file descriptors.", files);
    put("os_fd_limit", "gauge", "Most open file descriptors.", limit(&limits, "Max open files"));
    families
}

fn read(name: &str) -> String {
    fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default()
}

/// Positions in `/proc/self/stat`, counted after the name of the process, which may hold anything.
const UTIME: usize = 11;
const STIME: usize = 12;
const STARTTIME: usize = 19;

fn stat_field(stat: &str, field: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(field)?.parse().ok()
}

fn kilobytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// The soft limit.
fn limit(limits: &str, key: &str) -> Option<f64> {
    limits.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The directory that is read is open itself.
fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_position_and_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 6000 20";
        assert_eq!((stat_field(stat, UTIME), stat_field(stat, STARTTIME)), (Some(250.0), Some(6000.0)));
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t    8 kB\n", "VmRSS:"), Some(8192.0));
        assert_eq!(
            limit("Limit  Soft\nMax open files            1024       4096     files\n", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(limit("Max open files            unlimited  unlimited  files\n", "Max open files"), None);
    }
}
