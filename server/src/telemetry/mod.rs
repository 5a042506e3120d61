//! What the member tells of itself: log lines shaped as etcd's (zap), and etcd's metrics in Prometheus text.
//!
//! ```text
//! tracing events ─> log::Lines ─ queue of lines ─> thread "log" ─> stderr, stdout, files
//! everyone ─ relaxed atomics ─> metrics::Metrics ─ render() on a scrape ─> /metrics
//! ```
//!
//! Nothing here waits for an output: a full queue drops lines and says so later. Spans are left out, as zap has none;
//! histograms and counters are plain atomics, so that counting costs one instruction where it is done.

mod cells;
mod grpc;
mod line;
pub mod log;
pub mod metrics;
mod process;

pub use self::{
    cells::{Counter, DurationGauge, Gauge, Histogram, LabelledGauge, LabelledHistogram},
    grpc::{Grpc, GrpcMethod},
    log::{Level, Log},
    metrics::Metrics,
};
