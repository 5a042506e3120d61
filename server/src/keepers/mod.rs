//! Keepers: loops that look at the clock or at the state, and propose what follows from it like anybody else.

mod compaction;
mod lease;

pub use compaction::{CompactionMode, keep_compacted};
pub use lease::{Leases, Seat, Standing, TimeToLive};
