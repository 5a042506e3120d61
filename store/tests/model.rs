//! Random histories on the store and on a reference model that can be checked by reading: every answer, every read at
//! every revision, every event, hash and row must be the same, whatever compacts, crashes and comes back in between.
//!
//! `MODEL_HISTORIES` and `MODEL_HISTORIES_ROCKS` say how many (default: what half a minute allows), `MODEL_SEED` where
//! to begin. A history that fails is made small and printed as a script; put into `tests/regressions/`, it is replayed
//! for ever.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use support::chance::from_env;
use support::history::{History, Step, What, membership};
use support::model::Model;
use support::run::{Verdict, run};
use support::shrink::shrink;
use support::subject::Kind;
use support::{generate, script};

mod support;

const COMMANDS: usize = 50;
const THREADS: u64 = 2;

/// A panic is a failure like any other.
fn outcome(history: &History, kind: Kind) -> Verdict {
    std::panic::catch_unwind(|| run(history, kind)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no text")))
    })
}

fn histories(kind: Kind, count: u64) {
    let first = from_env("MODEL_SEED", 1);
    let next = AtomicU64::new(first);
    let check = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let history = generate::history(seed, COMMANDS);
            if let Err(text) = outcome(&history, kind) {
                next.store(first + count, Ordering::Relaxed);
                report(seed, history, &text, kind);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(check);
        }
    });
}

fn report(seed: u64, history: History, text: &str, kind: Kind) {
    eprintln!("seed {seed} on {kind:?}: {text}\nmaking it smaller");
    let small = shrink(history, |smaller| outcome(smaller, kind).is_err_and(|other| topic(&other) == topic(text)));
    let text = outcome(&small, kind).err().unwrap_or_default();
    panic!("seed {seed} on {kind:?}:\n\n{small}\n{text}");
}

/// What a failure is about, so that a smaller history does not fail for another reason.
fn topic(text: &str) -> &str {
    let text = text.split_once(": ").map_or(text, |(_, rest)| rest);
    text.split([' ', '\n']).next().unwrap_or_default()
}

#[test]
fn memory_engine_answers_as_the_model_does() {
    histories(Kind::Memory, from_env("MODEL_HISTORIES", 4_000));
}

#[test]
fn rocks_engine_answers_as_the_model_does() {
    histories(Kind::Rocks, from_env("MODEL_HISTORIES_ROCKS", 60));
}

#[test]
fn scripts_that_once_failed_pass_on_both_engines() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let history = script::parse(&std::fs::read_to_string(&path).unwrap());
        for kind in [Kind::Memory, Kind::Rocks] {
            if let Err(text) = outcome(&history, kind) {
                panic!("{} on {kind:?}: {text}", path.display());
            }
        }
    }
}

#[test]
fn histories_read_back_as_they_were_printed() {
    for seed in 0..300 {
        let history = generate::history(seed, COMMANDS);
        assert_eq!(script::parse(&history.to_string()), history, "seed {seed}");
    }
}

/// A generator that never gets anywhere would find nothing wrong.
#[test]
fn histories_meet_every_answer_there_is() {
    let mut met: BTreeMap<String, u64> = BTreeMap::new();
    let mut revisions = 0;
    for seed in 0..1_000 {
        let mut model = Model::new();
        for step in generate::history(seed, COMMANDS).steps {
            let Step::Group { entries, .. } = step else { continue };
            for entry in entries {
                match &entry.what {
                    What::Blank => {}
                    What::Members(members) => model.membership(&membership(members)),
                    What::Proposals(proposals) => {
                        for proposal in proposals {
                            let answer = format!("{:?}", model.proposal(entry.term, proposal));
                            let name = answer.split(['(', ')', ' ']).take(2).collect::<Vec<_>>().join(" ");
                            *met.entry(name).or_default() += 1;
                        }
                    }
                }
            }
        }
        revisions += model.revision;
    }
    let listing = met.iter().map(|(name, times)| format!("{times:7} {name}\n")).collect::<String>();
    let of =
        |outcome: &str| met.iter().filter(|(name, _)| name.starts_with(outcome)).map(|(_, times)| times).sum::<u64>();
    assert!(of("Ok") > 2 * of("Err"), "{listing}");
    assert!(revisions > 15_000, "{revisions}");
    assert_eq!(met.keys().filter(|name| name.starts_with("Ok")).count(), 13, "{listing}");
    assert!(met.keys().filter(|name| name.starts_with("Err")).count() >= 28, "{listing}");
}

#[test]
fn a_failure_is_made_as_small_as_it_goes() {
    let history = generate::history(5, COMMANDS);
    let puts_with_a_lease = |history: &History| history.to_string().matches(" lease=").count();
    let wanted = puts_with_a_lease(&history).min(2);
    assert!(wanted == 2);
    let small = shrink(history, |smaller| puts_with_a_lease(smaller) >= wanted);
    assert_eq!(puts_with_a_lease(&small), 2);
    assert!(small.to_string().lines().count() <= 14, "{small}");
}
