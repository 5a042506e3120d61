//! The end of a member: when disk, engine or an invariant failed, nothing may be answered any more.

use std::sync::atomic::{AtomicBool, Ordering};

/// etcd's code for a general failure.
pub const EXIT_CODE_FAULT: i32 = 1;

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Logs `reason` and ends the process at once, without running what would run at an orderly stop: whatever it wrote
/// could be wrong. The first caller logs; the others wait for the end.
pub fn stop(reason: &str) {
    if !STOPPED.swap(true, Ordering::SeqCst) {
        tracing::error!(reason, "stopping: this member can no longer vouch for its data");
        eprintln!("quorate: {reason}");
        end(EXIT_CODE_FAULT);
    }
}

/// Ends the process as a crash would, but with an exit code. Threads that still run must not meet what `exit` takes down first: RocksDB's
/// would abort the process on a lock that is gone.
#[allow(unsafe_code, reason = "a plain system call that does not return")]
pub fn end(code: i32) -> ! {
    // SAFETY: it takes an integer and ends the process.
    unsafe { libc::_exit(code) }
}
