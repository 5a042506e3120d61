//! One step after the other.

use super::*;

const OLD: u64 = 30;
const NEW: u64 = 90;

/// What was to be seen at a moment, and what happened just before.
type Moments = Arc<Mutex<Vec<(String, PathBuf)>>>;

/// A member whose crash comes back to entry [`OLD`], with more that was not flushed.
fn lagging(place: &Place) -> Store {
    let mut store = place.open();
    store.apply(&entries(1, OLD, "value")).unwrap();
    store.reader().flush().unwrap();
    store.apply(&entries(OLD + 1, OLD + 5, "value")).unwrap();
    store
}

/// Copies the member's directory at every step of what follows.
fn record(place: &Place, copies: &TempDir) -> (Moments, impl Fn(&str) + Clone + use<>) {
    let moments = Moments::default();
    let (from, to, seen) = (place.0.path().to_owned(), copies.path().to_owned(), moments.clone());
    let moment = move |name: &str| {
        let mut seen = seen.lock().unwrap();
        let copied = to.join(seen.len().to_string());
        copy(&from, &copied);
        seen.push((name.to_owned(), copied));
    };
    let at_step = moment.clone();
    steps::watch(move |name| {
        at_step(name);
        Ok(())
    });
    (moments, moment)
}

#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_the_new() {
    let (place, copies, from) = (Place::new(), TempDir::new().unwrap(), sender(NEW));
    let mut store = lagging(&place);
    let (moments, moment) = record(&place, &copies);
    let received = transfer(&from, &store, || moment("chunk")).unwrap();
    moment("received");
    store.install(received).unwrap();
    moment("installed");
    assert_eq!(store.reader().reclaim().unwrap(), 0);
    moment("reclaimed");
    steps::unwatch();

    let moments = std::mem::take(&mut *moments.lock().unwrap());
    let names: Vec<&str> = moments.iter().map(|(name, _)| name.as_str()).collect();
    let steps: Vec<_> = names.iter().filter(|name| **name != "chunk").copied().collect();
    assert_eq!(
        steps,
        [
            "create",
            "sync files",
            "write name",
            "sync parent",
            "received",
            "rename",
            "sync renamed",
            "switched",
            "installed",
            "remove",
            "reclaimed"
        ]
    );
    assert!(names.len() - steps.len() > 20, "{} chunks", names.len() - steps.len());
    let switched = names.iter().position(|name| *name == "sync renamed").unwrap();
    let after = contents(&store);
    for (number, (name, copied)) in moments.iter().enumerate() {
        let mut found = open(copied).unwrap();
        let (entry, generation) = if number < switched { (OLD, "state") } else { (NEW, "state.1") };
        assert_eq!(found.applied().index, entry, "{name}");
        let left = super::names(copied);
        assert!(left == [generation] || left == [generation, "state.current"], "{name}: {left:?}");
        if entry == NEW {
            assert_eq!(contents(&found), after, "{name}");
        } else {
            // What was interrupted is begun afresh, and nothing is in its way.
            found.apply(&entries(OLD + 1, OLD + 2, "value")).unwrap();
            let received = transfer(&from, &found, || ()).unwrap();
            found.install(received).unwrap();
            assert_eq!(contents(&found), after, "{name}");
        }
        found.apply(&entries(NEW + 1, NEW + 1, "value")).unwrap();
    }
}

#[test]
fn a_crash_between_two_installs_in_a_row_leaves_one_of_them() {
    let (place, copies) = (Place::new(), TempDir::new().unwrap());
    let (first, second) = (sender(NEW), sender(NEW + 1));
    let mut store = lagging(&place);
    let received = transfer(&first, &store, || ()).unwrap();
    // Begun before the first is installed: both are on the disk at the same time.
    let next = transfer(&second, &store, || ()).unwrap();
    let before = store.reader().view().unwrap();
    store.install(received).unwrap();
    let (moments, moment) = record(&place, &copies);
    moment("first");
    store.install(next).unwrap();
    assert_eq!(store.reader().reclaim().unwrap(), 1, "a view from before the first");
    moment("second");
    assert_eq!(before.applied().index, OLD + 5);
    drop(before);
    assert_eq!(store.reader().reclaim().unwrap(), 0);
    moment("reclaimed");
    steps::unwatch();
    assert_eq!(place.names(), ["state.2", "state.current"]);
    let mut found_last = NEW;
    for (name, copied) in &*moments.lock().unwrap() {
        let found = open(copied).unwrap();
        assert!([NEW, NEW + 1].contains(&found.applied().index), "{name}");
        assert!(found.applied().index >= found_last, "{name}");
        found_last = found.applied().index;
        assert_eq!(super::names(copied).len(), 2, "{name}");
    }
    assert_eq!(found_last, NEW + 1);
}

#[test]
fn a_disk_that_fails_at_any_step_leaves_the_old_state_serving_or_ends_the_member() {
    let from = sender(NEW);
    for failing in ["create", "sync files", "write name", "sync parent", "rename", "sync renamed"] {
        let place = Place::new();
        let mut store = lagging(&place);
        let before = contents(&store);
        steps::watch(
            move |name| {
                if name == failing { Err(Fault::Engine("no space left on device".into())) } else { Ok(()) }
            },
        );
        let received = transfer(&from, &store, || ());
        if let Ok(received) = received {
            let error = store.install(received).unwrap_err();
            assert!(matches!(&error, InstallError::Fault(_)), "{failing}: {error}");
            assert!(failing.contains("rename"), "{failing}");
            steps::unwatch();
            drop(store);
            let entry = if failing == "rename" { OLD } else { NEW };
            assert_eq!(place.open().applied().index, entry, "{failing}");
            continue;
        }
        let error = received.err().unwrap();
        assert_eq!(error, TransferError::Write("storage engine: no space left on device".into()));
        steps::unwatch();
        assert_eq!(contents(&store), before, "{failing}");
        assert_eq!(place.names(), ["state"], "{failing}");
        store.apply(&entries(OLD + 6, OLD + 7, "value")).unwrap();
        store.reader().flush().unwrap();
        let received = transfer(&from, &store, || ()).unwrap();
        store.install(received).unwrap();
        assert_eq!(store.applied().index, NEW, "{failing}");
    }
}

#[test]
fn a_crash_of_the_memory_engine_leaves_the_old_state_or_the_new() {
    let from = sender(NEW);
    let engine = Arc::new(MemoryEngine::new());
    let mut store = Store::open(engine.clone()).unwrap();
    store.apply(&entries(1, OLD, "value")).unwrap();
    store.reader().flush().unwrap();
    store.apply(&entries(OLD + 1, OLD + 5, "value")).unwrap();
    let comes_back = || Store::open(Arc::new(engine.reopened())).unwrap().applied().index;
    // A crash takes what was not flushed from the store at hand as well, so it is counted on a store of its own.
    let flushed = || store_flushed(&*engine);
    let received = transfer(&from, &store, || assert_eq!(flushed(), OLD)).unwrap();
    assert_eq!(flushed(), OLD);
    let view = store.reader().view().unwrap();
    store.install(received).unwrap();
    assert_eq!(view.applied().index, OLD + 5);
    assert_eq!(comes_back(), NEW);
    store.apply(&entries(NEW + 1, NEW + 3, "value")).unwrap();
    assert_eq!(comes_back(), NEW, "not flushed");
    let mut store = Store::open(Arc::new(engine.reopened())).unwrap();
    assert_eq!(contents(&store), contents(&from));
    store.apply(&entries(NEW + 1, NEW + 3, "value")).unwrap();
    store.reader().flush().unwrap();
    assert_eq!(comes_back(), NEW + 3);
}

fn store_flushed(engine: &dyn Engine) -> u64 {
    crate::apply::flushed(engine).unwrap().index
}
