//! What a stream says when its client has room: requests answered first, then live events and history in turn, then
//! progress.
//!
//! ```text
//!  poll ─▶ controls ─▶ reopen ─▶ [ready │ queue] or [queue │ ready] ─▶ progress ─▶ a page to read?
//!          created              turn about, so that neither starves
//! ```
//!
//! Progress at r means: everything up to r is in front of it. It is told when nobody reads history, the queue has
//! nothing up to r, r is not below anything said, and no watcher of the stream begins after r.
//!
//! Left out: the reading itself; it happens outside the lock (catchup.rs).

use quorate_store::KeyRange;

use super::catchup::Plan;
use super::limits::Limits;
use super::output::{Delivery, Output, Part, Parts, WATCH_ID_NONE};
use super::state::{Closed, Seat, State};

/// What the hub has published and compacted. Read before the stream is locked: the queue then holds everything up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub published: i64,
    pub compacted: i64,
}

/// What is left to do outside the lock.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub read: Option<Plan>,
    /// Watchers that are gone: the index has to forget them, then their slots are free.
    pub retired: Vec<(u32, KeyRange)>,
    /// There will be something to say when this revision is published.
    pub wake_at: Option<i64>,
}

/// A message costs about so much beside its events.
const MESSAGE_OVERHEAD_BYTES: usize = 48;

struct Room<'a> {
    out: &'a mut Vec<Output>,
    bytes: usize,
}

impl Room<'_> {
    fn say(&mut self, output: Output, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes + MESSAGE_OVERHEAD_BYTES);
        self.out.push(output);
    }

    fn is_full(&self) -> bool {
        self.bytes == 0
    }
}

impl State {
    pub(super) fn turn(&mut self, now: Now, limits: &Limits, out: &mut Vec<Output>) -> Step {
        let mut step = Step::default();
        let mut room = Room { out, bytes: limits.poll_bytes };
        while !room.is_full()
            && let Some(control) = self.controls.pop_front()
        {
            room.say(control, 0);
        }
        if self.front_revision().is_none() {
            self.reopen();
        }
        self.ready_first = !self.ready_first;
        if self.ready_first {
            self.say_ready(&mut room);
            self.say_queued(&mut room);
        } else {
            self.say_queued(&mut room);
            self.say_ready(&mut room);
        }
        if self.front_revision().is_none() {
            self.reopen();
        }
        // Live events must not overtake what was read for the same watcher.
        if self.ready.is_empty() {
            self.promote();
        }
        // Nothing about a watcher comes before its `created`.
        if self.controls.is_empty() {
            if self.ready.is_empty() {
                self.retire(now.compacted, &mut room, &mut step);
            }
            step.wake_at = self.say_progress(now, &mut room);
        }
        if self.ready.is_empty() && !self.reading {
            step.read = self.plan(now, limits);
            match (&step.read, self.cursors.first()) {
                // Read up to what is published, while an event beyond it has already come out of the queue.
                (None, Some((next, _))) => step.wake_at = Some(*next),
                (Some(_), _) => self.reading = true,
                (None, None) => {}
            }
        }
        step
    }

    fn say_ready(&mut self, room: &mut Room<'_>) {
        while !room.is_full()
            && let Some((seat, output)) = self.ready.pop_front()
        {
            if self.seated(seat).is_none() {
                continue;
            }
            let mut bytes = 0;
            if let Output::Events(delivery) = &output {
                bytes = delivery.parts().iter().map(|part| part.bytes(delivery.prev_kv)).sum();
                let last = delivery.parts().last().map_or(0, |part| part.record.revision());
                self.delivered = self.delivered.max(last);
                if let Some(watcher) = self.watchers[seat.slot as usize].as_mut() {
                    watcher.quiet = false;
                }
            }
            room.say(output, bytes);
        }
    }

    fn say_queued(&mut self, room: &mut Room<'_>) {
        while !room.is_full() {
            let Some(item) = self.front() else { return };
            let revision = item.revision;
            let Some(record) = item.record.upgrade() else {
                // The ring has let go of it, and of all before it.
                self.close(Closed { from: revision, last: revision });
                self.reopen();
                return;
            };
            let (targets, mut done) = (std::mem::take(&mut item.targets), item.done);
            self.covered = self.covered.max(revision);
            while done < targets.len() && !room.is_full() {
                let slot = targets[done].slot;
                let mine = targets[done..].partition_point(|target| target.slot == slot);
                let changes = &targets[done..done + mine];
                done += mine;
                let Some(watcher) = self.watchers.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
                if !watcher.live || watcher.next > revision {
                    continue;
                }
                watcher.next = revision + 1;
                let chosen: Vec<u32> = changes
                    .iter()
                    .map(|target| target.change)
                    .filter(|change| watcher.filters.pass(record.kind(*change as usize)))
                    .collect();
                if chosen.is_empty() {
                    continue;
                }
                watcher.quiet = false;
                self.delivered = self.delivered.max(revision);
                let part = Part::new(record.clone(), chosen);
                let bytes = part.bytes(watcher.prev_kv);
                let delivery = Delivery {
                    watch_id: watcher.watch_id,
                    revision,
                    prev_kv: watcher.prev_kv,
                    fragment: watcher.fragment,
                    parts: Parts::One(part),
                };
                room.say(Output::Events(delivery), bytes);
            }
            let finished = done == targets.len();
            if let Some(item) = self.front() {
                (item.targets, item.done) = (targets, done);
            }
            if finished {
                self.pop();
            }
        }
    }

    /// Cursors that compaction has passed: what they have to see next is gone, and they are told.
    fn retire(&mut self, compacted: i64, room: &mut Room<'_>, step: &mut Step) {
        while let Some((next, slot)) = self.cursors.first().copied()
            && next < compacted
        {
            let Some(watcher) = self.end_watcher(slot) else { return };
            step.retired.push((slot, watcher.range));
            room.say(Output::Compacted { watch_id: watcher.watch_id, compact_revision: compacted }, 0);
        }
    }

    /// Says what progress there is; otherwise the revision at which to look again, if only that is missing.
    fn say_progress(&mut self, now: Now, room: &mut Room<'_>) -> Option<i64> {
        let complete = self.front_revision().map_or(now.published, |revision| now.published.min(revision - 1));
        for slot in std::mem::take(&mut self.progress.due) {
            if !self.progress.notified.contains(&slot) {
                continue;
            }
            let Some(watcher) = self.watchers[slot as usize].as_ref().filter(|watcher| watcher.live) else { continue };
            let revision = complete.max(watcher.next - 1).min(now.published);
            if watcher.start <= revision && watcher.next <= revision + 1 {
                self.delivered = self.delivered.max(revision);
                room.say(Output::Progress { watch_id: watcher.watch_id, revision }, 0);
            }
        }
        let asked = self.progress.asked?;
        if !self.ready.is_empty() || !self.cursors.is_empty() || self.closed.is_some() {
            return None;
        }
        while self.progress.future.first().is_some_and(|(start, _)| *start <= complete) {
            self.progress.future.pop_first();
        }
        let begun = self.progress.future.last().map_or(0, |(start, _)| *start);
        // A watcher with a past began at or before `covered`.
        let needed = asked.max(self.delivered).max(self.covered).max(begun);
        if complete < needed {
            return self.front_revision().is_none().then_some(needed);
        }
        self.progress.asked = None;
        room.say(Output::Progress { watch_id: WATCH_ID_NONE, revision: complete }, 0);
        None
    }

    /// The interval is over: who wanted to hear, and heard nothing since the last time, hears that.
    pub(super) fn tick(&mut self) {
        self.progress.due.clear();
        for slot in &self.progress.notified {
            if let Some(watcher) = self.watchers[*slot as usize].as_mut() {
                if watcher.quiet {
                    self.progress.due.push(*slot);
                }
                watcher.quiet = true;
            }
        }
    }

    pub(super) fn seat(&self, slot: u32) -> Option<Seat> {
        self.watchers[slot as usize].as_ref().map(|watcher| Seat { slot, serial: watcher.serial })
    }
}
