//! `Overlay` over both engines against a plain map: what a request sees of its own batch, and what is then written.
//!
//! `ENGINE_ROUNDS` (400) overlays of up to 60 changes each; `ENGINE_SEED` (1).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod engine_support;

use engine_support::{Chance, Model, Subject, apply, from_env, model_rows, rows, state};
use quorate_store::engine::{Change, Read};
use quorate_store::overlay::Overlay;

fn an_overlay_reads_like_the_state_it_will_leave(subject: Subject) {
    let (rounds, seed) = (from_env("ENGINE_ROUNDS", 400), from_env("ENGINE_SEED", 1));
    let mut chance = Chance(seed);
    let mut model = Model::new();
    for round in 0..rounds {
        let engine = subject.engine();
        let view = engine.view();
        let before = model.clone();
        let mut overlay = Overlay::new(&*view);
        assert!(overlay.is_empty());
        for _ in 0..chance.below(60) {
            let batch = chance.batch();
            apply(&mut model, &batch);
            for change in batch.changes {
                match change {
                    Change::Put { family, key, value } => overlay.put(family, key, value),
                    Change::Delete { family, key } => overlay.delete(family, key),
                }
            }
            let (family, key) = (chance.family(), chance.key());
            assert_eq!(overlay.get(family, &key).unwrap().as_ref(), model.get(&(family, key)));
            let (family, span, direction) = (chance.family(), chance.span(), chance.direction());
            let found = rows(&overlay, family, span.clone(), direction);
            let expected = model_rows(&model, family, &span, direction);
            assert_eq!(found, expected, "seed {seed}, round {round}: {family:?} {span:?} {direction:?}");
        }
        assert_eq!(state(&overlay), model);
        // A request that fails after all leaves nothing: its overlay is dropped.
        if chance.one_in(5) {
            drop(overlay);
            model = before;
        } else {
            engine.write(overlay.into_batch()).unwrap();
        }
        assert_eq!(state(&*engine.view()), model, "seed {seed}, round {round}: after the write");
        if chance.one_in(20) {
            engine.flush().unwrap();
        }
    }
}

#[test]
fn memory_overlay_reads_like_the_state_it_will_leave() {
    an_overlay_reads_like_the_state_it_will_leave(Subject::memory());
}

#[test]
fn rocks_overlay_reads_like_the_state_it_will_leave() {
    an_overlay_reads_like_the_state_it_will_leave(Subject::rocks());
}
