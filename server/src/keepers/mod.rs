//! Keepers: loops that look at the clock or at the state, and propose what follows from it like anybody else.

mod compaction;
mod corruption;
mod lease;
mod version;

pub use compaction::{CompactionMode, keep_compacted};
pub use corruption::{CompactionHashes, keep_compactions_compared, keep_compared, may_serve, stand_aside};
pub(crate) use corruption::{HASH_PATIENCE, hash_of};
pub use lease::{CHECKPOINT_INTERVAL, Leases, Seat, Standing, TimeToLive};
pub use version::{Version, keep_downgrade, keep_version, refuse_older};
