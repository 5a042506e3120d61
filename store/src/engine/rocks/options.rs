//! How RocksDB is set up, and why: one place for every knob that is not at its default.

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, LogLevel, Options};

use super::Family;

/// Limits of one database, over all families together.
#[derive(Clone, Debug)]
pub struct RocksSettings {
    /// Blocks of data, indexes and filters held in memory; beyond it the oldest go.
    pub block_cache_bytes: usize,
    /// Written and not yet flushed; near it all families are flushed, beyond it by one flush in progress.
    pub memtable_bytes: usize,
    /// Threads that flush and compact.
    pub background_jobs_max: i32,
}

impl Default for RocksSettings {
    fn default() -> Self {
        Self { block_cache_bytes: 20 << 20, memtable_bytes: 20 << 20, background_jobs_max: 2 }
    }
}

/// SST files up to this size: small enough that a checkpoint's links and a compaction's steps stay cheap.
const TABLE_FILE_BYTES: u64 = 32 << 20;
/// Size of the first sorted level; RocksDB grows the others from it.
const LEVEL_BASE_BYTES: u64 = 128 << 20;
/// Flushed files of a family before they are merged into the level below, all of which is written anew then. RocksDB's 4 cost a
/// sixth of the processor time of a put on random keys; a read of one key pays for each more with a look at its filter.
const LEVEL0_FILES: i32 = 8;
/// Descriptors, of which a process commonly has 1024. Twice what 8 GiB need; beyond it files are closed and reopened.
const OPEN_FILES_MAX: i32 = 512;
/// A memtable takes memory in blocks, and every family takes at least one: the budget must hold many of them.
const ARENA_BLOCKS_PER_BUDGET: usize = 64;
const ARENA_BLOCK_BYTES_MAX: usize = 1 << 20;
/// RocksDB's own log: diagnosis, not history.
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
const INFO_LOG_FILES_MAX: usize = 2;
/// Written files go to the disk in steps of this size, so that the fsync at their end does not stall the Raft log's.
const WRITEBACK_STEP_BYTES: u64 = 1 << 20;
/// A table file in which this many of so many neighbouring entries are deletions is compacted next. Compaction of the
/// keyspace deletes in runs, and every scan over a run pays for each tombstone until it is gone.
const TOMBSTONE_WINDOW: usize = 8192;
const TOMBSTONE_WINDOW_MAX: usize = 4096;
/// What an entry of the block cache is expected to hold is left to RocksDB: blocks here differ by family.
const CACHE_ENTRY_BYTES_UNKNOWN: usize = 0;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Part of a memtable that is a filter of its keys: about ten bits a key for small values. A look-up that finds nothing
/// in a full memtable takes 0.2 us with it and 1.4 us without, and most look-ups end in older data.
const MEMTABLE_BLOOM_RATIO: f64 = 0.01;

/// Options that the crate has no setter for.
///
/// - `avoid_flush_during_shutdown`: closing is no flush. What is durable is decided by [`super::Engine::flush`] and by
///   full memtables alone, so that a clean stop and a crash leave the same kinds of states and one path is tested.
/// - `max_bgerror_resume_count`: after a failed background write RocksDB would try again by itself and carry on. It is
///   unknown what the disk holds then; the member stops instead.
const UNEXPOSED: &str = "avoid_flush_during_shutdown=true;max_bgerror_resume_count=0";

/// Options of the database as such.
pub(super) fn database(settings: &RocksSettings) -> Result<Options, rocksdb::Error> {
    let mut options = Options::default().get_options_from_string(UNEXPOSED)?;
    options.create_if_missing(true);
    // Also after a crash in the middle of the first open. What was there before and is not there now is found by the
    // store: it keeps its format version and position in `meta`.
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);

    // A flush covers all families at one point, whoever starts it. Without it the families of a crashed member would
    // stand at different batches, and there is no write-ahead log to even them out.
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(settings.memtable_bytes);
    options.set_max_background_jobs(settings.background_jobs_max);

    // One writer: nothing to be gained by concurrent inserts and by spinning for a turn.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);

    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_bytes_per_sync(WRITEBACK_STEP_BYTES);
    // Files are deleted by background threads: neither the end of a scan nor apply waits for an unlink.
    options.set_avoid_unnecessary_blocking_io(true);
    // Start-up reads no statistics out of old files.
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_file_opening_threads(settings.background_jobs_max);

    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

/// Every family, with options of its own. `cache` is shared by all.
pub(super) fn families(settings: &RocksSettings, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let descriptor =
        |family: Family| ColumnFamilyDescriptor::new(family.name(), family_options(settings, cache, &tuning(family)));
    Family::ALL.into_iter().map(descriptor).collect()
}

pub(super) fn cache(settings: &RocksSettings) -> Cache {
    Cache::new_hyper_clock_cache(settings.block_cache_bytes, CACHE_ENTRY_BYTES_UNKNOWN)
}

/// Who is looked up by whole key, and whether it is usually there.
enum Filter {
    /// Scanned, or small: a filter would cost a hash per written key and save nothing.
    None,
    /// What is asked for exists nearly always: the last level, nine tenths of the filter's size, goes without.
    Hits,
    /// Absent keys are common.
    Misses,
}

struct Tuning {
    /// Small blocks read less for one key, large ones need less index.
    block_bytes: usize,
    filter: Filter,
    /// Grows with the data (and not with the number of members, users, or not at all).
    large: bool,
}

fn tuning(family: Family) -> Tuning {
    match family {
        // Every put asks for the head of its key, and a new key has none.
        Family::Heads => Tuning { block_bytes: 8 << 10, filter: Filter::Misses, large: true },
        // Scanned in order by watches; asked for single entries by links, which lead to what exists.
        Family::Revisions => Tuning { block_bytes: 16 << 10, filter: Filter::Hits, large: true },
        Family::History | Family::Tallies | Family::LeaseKeys | Family::Buckets => {
            Tuning { block_bytes: 8 << 10, filter: Filter::None, large: true }
        }
        // Keep-alives and attachments ask for leases that are gone.
        Family::Leases => Tuning { block_bytes: 4 << 10, filter: Filter::Misses, large: true },
        Family::Meta | Family::Auth | Family::Cluster => {
            Tuning { block_bytes: 4 << 10, filter: Filter::None, large: false }
        }
    }
}

fn arena_block_bytes(settings: &RocksSettings, tuning: &Tuning) -> usize {
    let bytes = (settings.memtable_bytes / ARENA_BLOCKS_PER_BUDGET).min(ARENA_BLOCK_BYTES_MAX);
    if tuning.large { bytes } else { bytes / 8 }
}

fn family_options(settings: &RocksSettings, cache: &Cache, tuning: &Tuning) -> Options {
    let mut options = Options::default();
    // One full memtable flushes all families, so no family has a limit of its own: the sum decides.
    options.set_write_buffer_size(settings.memtable_bytes);
    // While one flush is under way writes go on; a second one queued behind it is the end of patience.
    options.set_max_write_buffer_number(4);
    options.set_arena_block_size(arena_block_bytes(settings, tuning));
    options.set_target_file_size_base(TABLE_FILE_BYTES);
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_level_zero_file_num_compaction_trigger(LEVEL0_FILES);
    if tuning.large {
        options.add_compact_on_deletion_collector_factory(TOMBSTONE_WINDOW, TOMBSTONE_WINDOW_MAX, 0.0);
    }

    if matches!(tuning.filter, Filter::Misses) {
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        options.set_memtable_whole_key_filtering(true);
    }

    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(tuning.block_bytes);
    table.set_format_version(7);
    // Indexes and filters live in the cache, so that memory has a limit whatever the number of keys; in partitions, so
    // that one lookup brings in kilobytes and not the index of a whole file.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    match tuning.filter {
        Filter::None => {}
        Filter::Hits | Filter::Misses => {
            table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
            table.set_whole_key_filtering(true);
        }
    }
    options.set_optimize_filters_for_hits(matches!(tuning.filter, Filter::Hits));
    options.set_block_based_table_factory(&table);
    options
}
