//! Reading what a stream's cursors have missed: a page at a time, shared by the cursors that stand near each other.
//!
//! ```text
//!   cursors   17:w1 17:w2 20:w9 ............ 9000:w4
//!             └──── one page ──┘             └ the next one: turn about, so that w4 does not wait for w1
//!
//!   plan (locked) ─▶ records: Ring, else History by the Executor ─▶ find: who gets what ─▶ absorb (locked)
//! ```
//!
//! A page is bounded in log looked at, revisions, events and pairs of event and watcher; what it found is said before
//! the next one is read, so that a stream whose client does not read costs one page at most.
//!
//! Left out: when a cursor becomes live (state.rs).

use std::sync::Arc;

use quorate_store::KeyRange;

use super::history::{HistoryError, Job, KeySet};
use super::hub::Hub;
use super::index::Index;
use super::limits::Limits;
use super::lock;
use super::output::{Delivery, Filters, Output, Part, Parts};
use super::record::Record;
use super::state::{Seat, State};
use super::stream::{End, Shared};
use super::turn::Now;

/// Records looked at per page of the ring: a cursor whose keys are rarely touched still gets forward.
const RING_RECORDS_PER_PAGE: usize = 1024;
/// From so many watchers on, an index of the page's own is cheaper than asking each of them.
const SEATS_INDEXED_MIN: usize = 8;

#[derive(Debug)]
pub(super) struct Plan {
    from: i64,
    /// What was published when the plan was made.
    until: i64,
    seats: Vec<PlanSeat>,
}

#[derive(Debug)]
struct PlanSeat {
    seat: Seat,
    next: i64,
    watch_id: i64,
    range: KeyRange,
    filters: Filters,
    prev_kv: bool,
    fragment: bool,
}

#[derive(Debug)]
struct Page {
    /// The first revision not covered.
    next: i64,
    found: Vec<(Seat, Output)>,
}

impl State {
    /// The next page to read, beginning with the first cursor beyond the last one.
    pub(super) fn plan(&self, now: Now, limits: &Limits) -> Option<Plan> {
        let beyond = self.cursors.range((self.page_end + 1, 0)..).next();
        let from = beyond.filter(|(next, _)| *next <= now.published).or(self.cursors.first())?.0;
        if from > now.published {
            return None;
        }
        let near = from.saturating_add(limits.page_spread).min(now.published);
        let seats = self.cursors.range((from, 0)..=(near, u32::MAX)).filter_map(|(_, slot)| self.plan_seat(*slot));
        Some(Plan { from, until: now.published, seats: seats.collect() })
    }

    fn plan_seat(&self, slot: u32) -> Option<PlanSeat> {
        let watcher = self.watchers[slot as usize].as_ref()?;
        Some(PlanSeat {
            seat: self.seat(slot)?,
            next: watcher.next,
            watch_id: watcher.watch_id,
            range: watcher.range.clone(),
            filters: watcher.filters,
            prev_kv: watcher.prev_kv,
            fragment: watcher.fragment,
        })
    }

    fn absorb(&mut self, plan: &Plan, page: Page) {
        self.reading = false;
        if self.end.is_some() {
            return;
        }
        self.page_end = page.next;
        for seat in &plan.seats {
            self.advance(seat.seat, page.next);
        }
        self.ready.extend(page.found);
    }

    /// History begins after where the page was to begin.
    fn absorb_compacted(&mut self, plan: &Plan, compact_revision: i64) -> Vec<(u32, KeyRange)> {
        self.reading = false;
        let mut retired = Vec::new();
        for seat in &plan.seats {
            let lost = seat.next < compact_revision || seat.next == plan.from;
            if !lost || self.seated(seat.seat).is_none() {
                continue;
            }
            if let Some(watcher) = self.end_watcher(seat.seat.slot) {
                self.controls.push_back(Output::Compacted { watch_id: watcher.watch_id, compact_revision });
                retired.push((seat.seat.slot, watcher.range));
            }
        }
        retired
    }
}

impl Hub {
    /// Reads a page, at once from the ring or elsewhere from the store; the stream is woken when it is there.
    pub(super) fn read(&self, stream: &Arc<Shared>, plan: Plan) {
        let (recent, first) = {
            let ring = lock(&self.core().ring);
            (ring.read(plan.from, plan.until, RING_RECORDS_PER_PAGE), ring.first())
        };
        if let Some(mut records) = recent {
            // What a change at the compacted revision replaced cannot be read, in etcd and in the store: whether it still is
            // in the ring must not decide what a watcher sees.
            let compacted = self.compacted();
            let passed = records.iter_mut().filter(|record| record.revision() <= compacted);
            passed.for_each(|record| *record = record.without_prev_kv());
            let next = plan.from + records.len() as i64;
            let page = find(&records, &plan, next, &self.core().limits);
            lock(&stream.state).absorb(&plan, page);
            return;
        }
        let reading = Reading { hub: self.clone(), stream: stream.clone(), plan: Some(plan) };
        let until = first - 1;
        let job: Job = Box::new(move || reading.run(until));
        self.core().reads.submit(job);
    }

    fn read_history(&self, plan: &Plan, until: i64) -> Result<Page, HistoryError> {
        let core = self.core();
        let keys = KeySet::new(plan.seats.iter().map(|seat| &seat.range));
        let page = core.history.events(plan.from, plan.until.min(until), &keys, core.limits.page_bytes)?;
        if page.next <= plan.from {
            return Err(HistoryError::Fault(format!("history does not get beyond revision {}", plan.from)));
        }
        let records: Vec<_> = page.revisions.iter().map(Record::new).collect();
        Ok(find(&records, plan, page.next, &core.limits))
    }
}

/// A page being read elsewhere. Dropped without having run, or in a panic, it ends the stream: silence is the one answer
/// that a client cannot act on.
struct Reading {
    hub: Hub,
    stream: Arc<Shared>,
    plan: Option<Plan>,
}

impl Reading {
    fn run(mut self, until: i64) {
        let Some(plan) = &self.plan else { return };
        let result = self.hub.read_history(plan, until);
        let mut state = lock(&self.stream.state);
        let mut waker = None;
        let retired = match result {
            Ok(page) => {
                state.absorb(plan, page);
                Vec::new()
            }
            Err(HistoryError::Compacted { compact_revision }) => state.absorb_compacted(plan, compact_revision),
            Err(HistoryError::Fault(reason)) => {
                tracing::error!(from = plan.from, reason, "watch: history cannot be read");
                waker = state.finish(End::Fault(reason));
                Vec::new()
            }
        };
        let waker = waker.or_else(|| state.waker());
        drop(state);
        self.hub.forget(&self.stream, retired);
        self.plan = None;
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.plan.is_some() {
            let waker = lock(&self.stream.state).finish(End::Fault("history was not read".to_owned()));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Spreads `records` over the seats of `plan`. `next` is what the page covers if no limit stops it before.
fn find(records: &[Arc<Record>], plan: &Plan, mut next: i64, limits: &Limits) -> Page {
    let matcher = Matcher::new(&plan.seats);
    let mut parts: Vec<Vec<Part>> = plan.seats.iter().map(|_| Vec::new()).collect();
    let mut matched: Vec<(u32, u32)> = Vec::new();
    let (mut pairs, mut revisions, mut bytes) = (0, 0, 0);
    for record in records {
        matcher.look(record, &plan.seats, &mut matched);
        if matched.is_empty() {
            continue;
        }
        pairs += matched.len();
        revisions += 1;
        bytes += record.cost_bytes();
        for mine in matched.chunk_by(|a, b| a.0 == b.0) {
            let changes = mine.iter().map(|(_, change)| *change).collect();
            parts[mine[0].0 as usize].push(Part::new(record.clone(), changes));
        }
        if pairs >= limits.page_matches || revisions >= limits.page_revisions || bytes >= limits.page_bytes {
            next = record.revision() + 1;
            break;
        }
    }
    let found = plan.seats.iter().zip(parts).filter(|(_, parts)| !parts.is_empty());
    let found = found.map(|(seat, parts)| (seat.seat, seat.delivery(parts, plan.until))).collect();
    Page { next, found }
}

impl PlanSeat {
    fn delivery(&self, parts: Vec<Part>, revision: i64) -> Output {
        Output::Events(Delivery {
            watch_id: self.watch_id,
            revision,
            prev_kv: self.prev_kv,
            fragment: self.fragment,
            parts: Parts::Many(parts),
        })
    }
}

/// Finds the seats that an event is for.
enum Matcher {
    Each,
    Indexed(Index<u32>),
}

impl Matcher {
    fn new(seats: &[PlanSeat]) -> Self {
        if seats.len() < SEATS_INDEXED_MIN {
            return Self::Each;
        }
        let mut index = Index::new();
        for (number, seat) in seats.iter().enumerate() {
            index.add(&seat.range, number as u32);
        }
        Self::Indexed(index)
    }

    /// Pairs of seat and change, ascending.
    fn look(&self, record: &Record, seats: &[PlanSeat], matched: &mut Vec<(u32, u32)>) {
        matched.clear();
        for change in 0..record.len() {
            let key = record.key(change);
            let wants = |seat: &PlanSeat| seat.next <= record.revision() && seat.filters.pass(record.kind(change));
            match self {
                Self::Each => {
                    for (number, seat) in seats.iter().enumerate() {
                        if wants(seat) && seat.range.contains(key) {
                            matched.push((number as u32, change as u32));
                        }
                    }
                }
                Self::Indexed(index) => index.matches(key, |targets| {
                    targets.each(|number| {
                        if wants(&seats[number as usize]) {
                            matched.push((number, change as u32));
                        }
                    });
                }),
            }
        }
        matched.sort_unstable();
    }
}
