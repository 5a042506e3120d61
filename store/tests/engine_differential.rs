//! Both engines side by side under the same random history; wherever they differ, one of them is wrong.
//!
//! `ENGINE_BATCHES` (20,000) and `ENGINE_SEED` (1) choose another history; a failure names seed and step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod engine_support;

use std::time::Instant;

use engine_support::{Chance, Subject, from_env, rows, state};
use quorate_store::engine::{Direction, Engine, Family, Read, Span, View};

const VIEWS_MAX: usize = 6;

struct Pair {
    memory: Subject,
    rocks: Subject,
    /// A view of each, taken at the same step.
    views: Vec<[Box<dyn View>; 2]>,
    flushes: u64,
    crashes: u64,
}

impl Pair {
    fn engines(&self) -> [&dyn Engine; 2] {
        [self.memory.engine(), self.rocks.engine()]
    }

    fn step(&mut self, chance: &mut Chance, context: &str) {
        let batch = chance.batch();
        self.engines().into_iter().for_each(|engine| engine.write(batch.clone()).unwrap());
        if chance.one_in(4) {
            let (family, key) = (chance.family(), chance.key());
            let [memory, rocks] = self.engines().map(|engine| engine.get(family, &key).unwrap());
            assert_eq!(memory, rocks, "{context}: get {family:?} {key:?}");
            let [memory, rocks] = self.engines().map(|engine| engine.get_flushed(family, &key).unwrap());
            assert_eq!(memory, rocks, "{context}: get_flushed {family:?} {key:?}");
        }
        if chance.one_in(10) {
            let [memory, rocks] = self.engines().map(Engine::view);
            compare_scan(chance, &*memory, &*rocks, context);
        }
        if chance.one_in(100) {
            if self.views.len() == VIEWS_MAX {
                let oldest = chance.below(VIEWS_MAX as u64) as usize;
                let [memory, rocks] = self.views.swap_remove(oldest);
                assert_eq!(state(&*memory), state(&*rocks), "{context}: an old view");
            }
            self.views.push(self.engines().map(Engine::view));
        }
        if let (true, Some([memory, rocks])) = (chance.one_in(50), self.views.first()) {
            compare_scan(chance, &**memory, &**rocks, context);
        }
        if chance.one_in(300) {
            self.engines().into_iter().for_each(|engine| engine.flush().unwrap());
            self.flushes += 1;
        }
        if chance.one_in(2000) {
            self.views.clear();
            self.memory.crash();
            self.rocks.crash();
            self.crashes += 1;
            self.compare_states(&format!("{context}: after a crash"));
        }
        if let (true, Some(rocks)) = (chance.one_in(5000), self.rocks.as_rocks()) {
            rocks.compact_all().unwrap(); // flushes first
            self.memory.engine().flush().unwrap();
        }
    }

    fn compare_states(&self, context: &str) {
        let [memory, rocks] = self.engines().map(|engine| state(&*engine.view()));
        assert_eq!(memory, rocks, "{context}");
    }
}

fn compare_scan(chance: &mut Chance, memory: &dyn Read, rocks: &dyn Read, context: &str) {
    let (family, span, direction) = (chance.family(), chance.span(), chance.direction());
    let [memory, rocks] = [memory, rocks].map(|read| rows(read, family, span.clone(), direction));
    assert_eq!(memory, rocks, "{context}: {family:?} {span:?} {direction:?}");
}

#[test]
fn both_engines_tell_one_story() {
    let (batches, seed) = (from_env("ENGINE_BATCHES", 20_000), from_env("ENGINE_SEED", 1));
    let mut chance = Chance(seed);
    let mut pair =
        Pair { memory: Subject::memory(), rocks: Subject::rocks(), views: Vec::new(), flushes: 0, crashes: 0 };
    let start = Instant::now();
    for number in 0..batches {
        pair.step(&mut chance, &format!("seed {seed}, step {number}"));
    }
    pair.compare_states("at the end");
    let view = pair.rocks.engine().view();
    for family in Family::ALL {
        let mut backward = rows(&*view, family, Span::all(), Direction::Backward);
        backward.reverse();
        assert_eq!(backward, rows(&*view, family, Span::all(), Direction::Forward));
    }
    let (flushes, crashes, took) = (pair.flushes, pair.crashes, start.elapsed());
    eprintln!("seed {seed}: {batches} batches, {flushes} flushes, {crashes} crashes in {took:.1?}");
}
