//! How much of everything there may be, and what happens then.

/// Recent revisions kept encoded for all streams. Beyond: the oldest go, and who still needs them reads the store.
const WATCH_RING_BYTES_MAX: usize = 8 << 20;
/// The queue of one stream: references, some 60 B for an event of one watcher; the events themselves lie in the ring.
/// Beyond: the queue is dropped and read again later, when the client has room.
const WATCH_STREAM_BYTES_MAX: usize = 1 << 20;
/// The queues of all streams. Beyond: a stream that already has something queued drops its queue.
const WATCH_QUEUES_BYTES_MAX: usize = 32 << 20;
/// One page of catch-up: log looked at, or events found. Beyond: the next page.
const WATCH_PAGE_BYTES_MAX: usize = 256 << 10;
/// Revisions that one answer to a watcher behind may carry (etcd's number). Beyond: the next page.
const WATCH_PAGE_REVISIONS_MAX: usize = 1000;
/// Pairs of event and watcher in a page. Beyond: the next page.
const WATCH_PAGE_MATCHES_MAX: usize = 16 << 10;
/// How far apart watchers may stand that share a page.
const WATCH_PAGE_SPREAD_MAX: i64 = 4096;
/// Pages read from the store at once, for all streams. Beyond: they stand in line.
const WATCH_PAGES_AT_ONCE_MAX: usize = 4;
/// Pages of catch-up within one poll, so that other tasks get their turn. Beyond: the stream asks to be polled again.
const WATCH_POLL_PAGES_MAX: usize = 4;
/// What one poll hands out, about. Beyond: the next poll, when the client has taken it.
const WATCH_POLL_BYTES_MAX: usize = 16 << 10;
/// Answers to requests (created, canceled) that wait for the client. Beyond: no more requests are read.
const WATCH_CONTROLS_MAX: usize = 1024;

/// The limits as values, for tests to make small.
#[derive(Clone, Debug)]
pub struct Limits {
    pub ring_bytes: usize,
    pub stream_bytes: usize,
    pub queues_bytes: usize,
    pub page_bytes: usize,
    pub page_revisions: usize,
    pub page_matches: usize,
    pub page_spread: i64,
    pub pages_at_once: usize,
    pub poll_pages: usize,
    pub poll_bytes: usize,
    pub controls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes: WATCH_RING_BYTES_MAX,
            stream_bytes: WATCH_STREAM_BYTES_MAX,
            queues_bytes: WATCH_QUEUES_BYTES_MAX,
            page_bytes: WATCH_PAGE_BYTES_MAX,
            page_revisions: WATCH_PAGE_REVISIONS_MAX,
            page_matches: WATCH_PAGE_MATCHES_MAX,
            page_spread: WATCH_PAGE_SPREAD_MAX,
            pages_at_once: WATCH_PAGES_AT_ONCE_MAX,
            poll_pages: WATCH_POLL_PAGES_MAX,
            poll_bytes: WATCH_POLL_BYTES_MAX,
            controls: WATCH_CONTROLS_MAX,
        }
    }
}
