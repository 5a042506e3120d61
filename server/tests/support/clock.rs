//! Time that passes when the test says so, and hardly otherwise.

use std::time::{Duration, Instant};

/// How long a condition may take to come true; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Moves tokio's clock ahead, on a runtime of one thread. In between it goes on as usual: openraft waits microseconds by
/// it, so it cannot stand still. What a test claims of it leaves seconds between before and after.
pub(crate) async fn jump(secs: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(secs)).await;
    tokio::time::resume();
}

/// Waits in real time, a little.
async fn breathe() {
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await;
}

/// Waits until `holds`, whatever tokio's clock says.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        breathe().await;
    }
}

/// Gives every task its turn, again and again, and looks whether it still `holds`.
pub(crate) async fn still(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20 {
        assert!(holds(), "it did not stay so: {what}");
        breathe().await;
    }
}
