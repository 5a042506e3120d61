//! What stands beside the state, and what a start makes of it.

use super::*;

/// A place whose state is generation 1.
fn installed() -> Place {
    let place = Place::new();
    let mut store = place.open();
    let received = transfer(&sender(50), &store, || ()).unwrap();
    store.install(received).unwrap();
    drop(store);
    drop(place.open());
    assert_eq!(place.names(), ["state.1", "state.current"]);
    place
}

fn refused(place: &Place) -> String {
    let before = place.names();
    let error = open(place.0.path()).err().unwrap();
    assert!(matches!(error, Fault::Data(_)), "{error}");
    assert_eq!(place.names(), before, "nothing is removed");
    error.to_string()
}

#[test]
fn a_directory_from_before_there_were_generations_opens_as_it_is() {
    let place = Place::new();
    let mut store = place.open();
    store.apply(&entries(1, 20, "value")).unwrap();
    store.reader().flush().unwrap();
    drop(store);
    assert_eq!(place.names(), ["state"]);
    assert_eq!(place.open().applied().index, 20);
    assert_eq!(place.names(), ["state"]);
}

#[test]
fn generations_go_on_from_the_highest_number_there_is() {
    let place = installed();
    for (generation, count) in [(2, 60), (3, 70)] {
        let mut store = place.open();
        let received = transfer(&sender(count), &store, || ()).unwrap();
        store.install(received).unwrap();
        drop(store);
        assert_eq!(place.open().applied().index, count);
        assert_eq!(place.names(), [format!("state.{generation}"), "state.current".into()]);
    }
    let text = fs::read_to_string(place.0.path().join("state.current")).unwrap();
    assert_eq!(text.lines().next(), Some("generation 3"));
}

#[test]
fn what_is_left_of_a_transfer_is_removed_and_nothing_else() {
    let place = installed();
    let others = ["state.backup", "state.02", "state.1x", "state.current.x", "stated", "state.-1", "xstate.5"];
    for name in others {
        fs::create_dir(place.0.path().join(name)).unwrap();
    }
    copy(&place.0.path().join("state.1"), &place.0.path().join("state"));
    copy(&place.0.path().join("state.1"), &place.0.path().join("state.7"));
    fs::create_dir(place.0.path().join("state.3")).unwrap();
    fs::write(place.0.path().join("state.current.7"), "generation 7").unwrap();
    assert_eq!(place.open().applied().index, 50);
    let mut expected = [&others[..], &["state.1", "state.current"]].concat();
    expected.sort_unstable();
    assert_eq!(place.names(), expected);
}

#[test]
fn a_name_that_is_damaged_or_leads_nowhere_is_refused() {
    let place = installed();
    let path = place.0.path().join("state.current");
    let whole = fs::read(&path).unwrap();
    for place_of_bit in 0..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[place_of_bit / 8] ^= 1 << (place_of_bit % 8);
        fs::write(&path, damaged).unwrap();
        assert!(refused(&place).contains("state.current: damaged"));
    }
    for bytes in 0..whole.len() {
        fs::write(&path, &whole[..bytes]).unwrap();
        assert!(refused(&place).contains("damaged"));
    }
    fs::write(&path, &whole).unwrap();
    let (there, away) = (place.0.path().join("state.1"), place.0.path().join("away"));
    fs::rename(&there, &away).unwrap();
    assert!(refused(&place).contains("state.1, which holds no state"));
    fs::create_dir(&there).unwrap();
    assert!(refused(&place).contains("state.1, which holds no state"));
    fs::remove_dir(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(refused(&place).contains("state.1 is there, but not"));
    fs::write(&path, &whole).unwrap();
    assert_eq!(place.open().applied().index, 50);
}

#[test]
fn a_transfer_that_the_disk_has_no_room_for_is_refused_at_its_head() {
    let place = Place::new();
    let store = place.open();
    let mut chunks = sender(50).reader().snapshot().unwrap();
    chunks.head.bytes_estimated = 1 << 60;
    let head = chunks.next().unwrap().unwrap();
    let error = store.reader().receive(&head).err().unwrap().to_string();
    assert!(error.contains("are needed for 1152921504606846976 of state"), "{error}");
    assert_eq!(place.names(), ["state"]);
}

#[test]
fn a_directory_lost_during_a_transfer_costs_the_transfer_alone() {
    let (place, from) = (Place::new(), sender(90));
    let mut store = place.open();
    store.apply(&entries(1, 10, "value")).unwrap();
    let (there, away) = (place.0.path().join("state.1"), place.0.path().join("away"));
    let mut chunks_taken = 0;
    let lose = || {
        chunks_taken += 1;
        if chunks_taken == 5 {
            fs::rename(&there, &away).unwrap();
        }
    };
    let error = transfer(&from, &store, lose).err().unwrap();
    assert!(matches!(&error, TransferError::Write(reason) if reason.contains("flush")), "{error}");
    store.apply(&entries(11, 12, "value")).unwrap();
    store.reader().flush().unwrap();
    let received = transfer(&from, &store, || ()).unwrap();
    store.install(received).unwrap();
    assert_eq!(store.applied().index, 90);
}
