//! The real binary: killed and started again, refused, stopped, and let down by its disk.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::{v3electionpb, v3lockpb};
use quorate_store::Store;
use quorate_store::engine::{Batch, Engine, Family, RocksEngine, RocksSettings};
use support::client::{Client, op_put, says};
use support::member::Place;
use support::process::{Home, Process};
use tonic::Code;

/// Small enough that the state is flushed, and the log behind it let go, again and again in a test.
const SMALL: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];

type Acked = Arc<Mutex<BTreeMap<String, i64>>>;

/// Writes keys of its own until the member is gone; notes what was acknowledged.
async fn write_until_gone(client: Client, name: String, acked: Acked) {
    for n in 0.. {
        let key = format!("{name}/{n}");
        match client.put(&key, &key).await {
            Ok(revision) => acked.lock().unwrap().insert(key, revision),
            Err(_) => return,
        };
    }
}

async fn check_acked(client: &Client, acked: &Acked) {
    let all = client.all().await.unwrap();
    let found: BTreeMap<_, _> =
        all.kvs.iter().map(|kv| (kv.key.to_vec(), (kv.mod_revision, kv.value.to_vec()))).collect();
    let acked = acked.lock().unwrap();
    for (key, revision) in acked.iter() {
        assert_eq!(found.get(key.as_bytes()), Some(&(*revision, key.as_bytes().to_vec())), "{key}");
    }
    let newest = acked.values().max().copied().unwrap_or(1);
    assert!(all.header.unwrap().revision >= newest, "the revision went back");
}

#[tokio::test]
async fn killed_again_and_again_it_keeps_what_it_acknowledged() {
    let home = Home::new();
    let acked = Acked::default();
    for round in 0..6 {
        let args: &[&str] = if round % 2 == 0 { &SMALL } else { &[] };
        let process = home.start(args).await;
        let client = process.client().await;
        check_acked(&client, &acked).await;
        let before = acked.lock().unwrap().len();
        let writers = (0..8).map(|n| write_until_gone(client.clone(), format!("{round}/{n}"), acked.clone()));
        let kill = async {
            while acked.lock().unwrap().len() < before + 300 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            process.kill();
        };
        futures::future::join(join_all(writers), kill).await;
    }
    let process = home.start(&[]).await;
    check_acked(&process.client().await, &acked).await;
}

/// Entries that change no data: alarms, failed requests, transactions without effect.
async fn change_nothing(client: &Client, rounds: usize) {
    let missing = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    for _ in 0..rounds {
        client.set_alarm(true, 7, pb::AlarmType::Nospace).await.unwrap();
        client.set_alarm(false, 7, pb::AlarmType::Nospace).await.unwrap();
        assert_eq!(says(client.revoke(99).await), missing);
        assert_eq!(says(client.put_leased("k", "v", 99).await), missing);
        assert_eq!(says(client.txn(vec![op_put("k", "v", 99)]).await), missing);
        client.delete("nothing").await.unwrap();
        assert!(client.compact(1_000_000).await.is_err());
    }
}

/// What is left in the log, as a start finds it.
fn entries_opened(process: &Process) -> u64 {
    let said = process.said();
    let line = said.lines().find(|line| line.contains("opened the Raft log")).unwrap();
    let entries = line.split("\"entries\":").nth(1).unwrap();
    entries.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

async fn applied(client: &Client) -> u64 {
    client.maintenance.clone().status(pb::StatusRequest {}).await.unwrap().into_inner().raft_applied_index
}

/// More than a segment of log holds. The one before is let go when 256 entries of it can be.
async fn fill_a_segment(client: &Client) {
    let value = "x".repeat(1_400_000);
    join_all((0..50).map(|n| client.put(["a", "b"][n % 2], &value)))
        .await
        .into_iter()
        .for_each(|put| assert!(put.is_ok()));
}

/// The last entry applied that a crash left in the state.
fn flushed(home: &Home) -> u64 {
    let engine = RocksEngine::open(&home.data().join("member/state"), &RocksSettings::default()).unwrap();
    Store::open(Arc::new(engine)).unwrap().applied().index
}

#[tokio::test]
async fn entries_without_data_count_as_applied_when_the_log_behind_them_is_gone() {
    let home = Home::new();
    let process = home.start(&SMALL).await;
    let client = process.client().await;
    let mut revision = client.put("k", "v").await.unwrap();
    for _ in 0..2 {
        fill_a_segment(&client).await;
        revision += 50;
        change_nothing(&client, 50).await;
    }
    let before = applied(&client).await;
    process.kill();
    for _ in 0..2 {
        let flushed = flushed(&home);
        assert!(flushed + 200 > before, "{flushed} of {before} entries would be left by a crash");
        let process = home.start(&SMALL).await;
        let entries = entries_opened(&process);
        assert!(entries + 300 < before, "{entries} of {before} entries are still in the log");
        let client = process.client().await;
        assert!(applied(&client).await > before);
        assert_eq!(client.get("k").await.unwrap(), Some(("v".into(), 2)));
        assert_eq!(client.revision().await, revision);
        process.kill();
    }
}

#[tokio::test]
async fn a_crash_of_the_state_is_made_good_from_the_log() {
    let place = Place::memory().with(|settings| {
        settings.snapshot_entries = 50;
        settings.catchup_entries = 5;
    });
    for round in 0..4 {
        let member = place.start().await;
        change_nothing(&member.client, 12).await;
        for n in 0..30 {
            member.client.put(&format!("{round}/{n}"), "v").await.unwrap();
        }
        let (applied, revision) = (member.raft.applied(), member.client.revision().await);
        member.stop().await;
        place.engine().crash();
        let member = place.start().await;
        assert!(member.raft.applied() > applied);
        let all = member.client.all().await.unwrap();
        assert_eq!((all.count, all.header.unwrap().revision), ((round + 1) * 30, revision));
        member.stop().await;
    }
}

#[tokio::test]
async fn the_revision_stays_where_compaction_left_no_key_that_carries_it() {
    let home = Home::new();
    let mut revision = 0;
    for round in 0..3 {
        let process = home.start(&SMALL).await;
        let client = process.client().await;
        assert!(client.revision().await >= revision);
        client.put("k", "v").await.unwrap();
        revision = client.delete("k").await.unwrap().header.unwrap().revision;
        client.compact(revision).await.unwrap();
        if round > 0 {
            change_nothing(&client, 20).await;
        }
        process.kill();
    }
    let process = home.start(&[]).await;
    let client = process.client().await;
    assert_eq!(client.revision().await, revision);
    assert_eq!(client.put("k", "v").await.unwrap(), revision + 1);
}

#[tokio::test]
async fn a_data_or_wal_directory_in_use_is_refused() {
    let home = Home::new();
    let wal = format!("--wal-dir={}", home.path("wal").display());
    let process = home.start(&[&wal]).await;
    home.run(&[&wal]).refused(&["LOCK: another process uses this data directory"]);
    let other = Home::new();
    other.run(&[&wal]).refused(&["LOCK: another process uses this --wal-dir"]);
    process.client().await.put("k", "v").await.unwrap();
    process.kill();
    home.start(&[&wal]).await;
}

#[tokio::test]
async fn an_identity_that_cannot_be_read_is_refused_by_name() {
    let home = Home::new();
    home.start(&[]).await.kill();
    let file = home.data().join("member/identity");
    let whole = fs::read_to_string(&file).unwrap();
    let newer = whole.replace("\"version\": 1", "\"version\": 2").replace("\"member_id\"", "\"other\"");
    for (text, words) in [
        (newer.as_str(), "it is of version 2, this release knows versions up to 1"),
        ("", "it is damaged"),
        (&whole[..whole.len() / 2], "it is damaged"),
        ("{}", "it is damaged: no version"),
        (&whole.replace("\"member_id\": \"8", "\"member_id\": \"x"), "is no id"),
    ] {
        fs::write(&file, text).unwrap();
        home.run(&[]).refused(&["read the member's identity in", "member/identity", words]);
    }
    fs::write(&file, &whole).unwrap();
    home.start(&[]).await;
}

#[tokio::test]
async fn a_directory_from_before_the_log_was_noted_is_opened_and_notes_it() {
    let home = Home::new();
    let process = home.start(&[]).await;
    process.client().await.put("k", "v").await.unwrap();
    process.kill();
    let file = home.data().join("member/identity");
    let whole = fs::read_to_string(&file).unwrap();
    let older = whole.replace(",\n  \"log_begun\": true", "");
    assert_ne!(older, whole);
    fs::write(&file, &older).unwrap();
    let process = home.start(&[]).await;
    assert_eq!(process.client().await.get("k").await.unwrap(), Some(("v".into(), 2)));
    process.kill();
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);
}

#[tokio::test]
async fn a_state_of_a_newer_format_is_refused() {
    let home = Home::new();
    home.start(&[]).await.kill();
    let engine = RocksEngine::open(&home.data().join("member/state"), &RocksSettings::default()).unwrap();
    let mut batch = Batch::default();
    batch.put(Family::Meta, quorate_store::keys::meta::FORMAT, 3i64.to_le_bytes().to_vec());
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    drop(engine);
    home.run(&[]).refused(&["load the state", "format 3, this release knows format 2"]);
}

#[tokio::test]
async fn the_log_stands_where_wal_dir_says() {
    let home = Home::new();
    let wal = format!("--wal-dir={}", home.path("wal/deep").display());
    let process = home.start(&[&wal]).await;
    process.client().await.put("k", "v").await.unwrap();
    process.kill();
    let segments = fs::read_dir(home.path("wal/deep")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(segments.filter(|name| name.to_string_lossy().ends_with(".qlog")).count() > 0);
    assert!(!home.data().join("member/wal").exists());
    let process = home.start(&[&wal]).await;
    assert_eq!(process.client().await.get("k").await.unwrap(), Some(("v".into(), 2)));
}

#[tokio::test]
async fn a_log_or_a_state_without_the_other_is_refused() {
    let home = Home::new();
    let wal = format!("--wal-dir={}", home.path("wal").display());
    home.start(&[&wal]).await.kill();
    home.run(&[]).refused(&["whose Raft log is not in", "was --wal-dir changed, or the log removed?"]);

    let other = Home::new();
    other.run(&[&wal]).refused(&["holds the Raft log of a member, but", "has no identity"]);
    let other_wal = format!("--wal-dir={}", other.path("wal").display());
    let peer =
        ["--initial-advertise-peer-urls=http://localhost:9999", "--initial-cluster=default=http://localhost:9999"];
    let other = Home::new();
    other.start(&[&other_wal, peer[0], peer[1]]).await.kill();
    home.run(&[&other_wal]).refused(&["is the --wal-dir of member", "not of 8e9e05c52164694d of cdf818194e3a8c32"]);
    home.start(&[&wal]).await;
}

#[tokio::test]
async fn a_lost_state_comes_back_from_a_whole_log_and_is_refused_without() {
    let home = Home::new();
    let process = home.start(&[]).await;
    process.client().await.put("k", "v").await.unwrap();
    process.kill();
    fs::remove_dir_all(home.data().join("member/state")).unwrap();
    let process = home.start(&SMALL).await;
    let client = process.client().await;
    assert_eq!(client.get("k").await.unwrap(), Some(("v".into(), 2)));
    for _ in 0..2 {
        fill_a_segment(&client).await;
        change_nothing(&client, 50).await;
    }
    process.kill();
    fs::remove_dir_all(home.data().join("member/state")).unwrap();
    home.run(&[]).refused(&["the state ends with entry 0 and the Raft log begins after entry"]);
}

/// Streams and a waiting lock: all that may keep a connection open.
async fn open_everything(client: &Client, channel: tonic::transport::Channel) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let mut watching = client.watch_all(0).await;
        tasks.push(tokio::spawn(async move { while let Ok(Some(_)) = watching.answers.message().await {} }));
        let mut keep_alive = client.keep_alive().await;
        keep_alive.renew(7).await;
        tasks.push(tokio::spawn(async move { while let Ok(Some(_)) = keep_alive.answers.message().await {} }));
    }
    let lock = v3lockpb::LockRequest { name: "name".into(), lease: 0 };
    v3lockpb::lock_client::LockClient::new(channel.clone()).lock(lock.clone()).await.unwrap();
    let mut waiting = v3lockpb::lock_client::LockClient::new(channel.clone());
    tasks.push(tokio::spawn(async move {
        assert!(waiting.lock(lock).await.is_err());
    }));
    let leader = v3electionpb::LeaderRequest { name: "election".into() };
    let mut election = v3electionpb::election_client::ElectionClient::new(channel);
    let mut observing = election.observe(leader).await.unwrap().into_inner();
    tasks.push(tokio::spawn(async move { while let Ok(Some(_)) = observing.message().await {} }));
    tasks
}

#[tokio::test]
async fn told_to_stop_it_ends_by_the_signal_whatever_is_open() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let home = Home::new();
        let process = home.start(&[]).await;
        let client = process.client().await;
        client.grant(7, 600).await.unwrap();
        client.put("k", "v").await.unwrap();
        let open = open_everything(&client, process.channel().await).await;
        process.signal(signal);
        let ended = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
        assert_eq!(ended.signal(), Some(signal), "{}", ended.said);
        for task in open {
            task.await.unwrap();
        }
        let process = home.start(&[]).await;
        assert_eq!(process.client().await.get("k").await.unwrap(), Some(("v".into(), 2)));
    }
}

#[tokio::test]
async fn it_ends_with_the_codes_of_etcd() {
    let home = Home::new();
    assert_eq!(home.run(&["--version"]).code(), Some(0));
    assert_eq!(home.run(&["--help"]).code(), Some(0));
    assert_eq!(home.run(&["--no-such-flag"]).code(), Some(2));
    assert_eq!(home.run(&["--snapshot-count=x"]).code(), Some(2));
    assert_eq!(home.run(&["--election-timeout=1"]).code(), Some(1));
    home.run(&["--listen-metrics-urls=http://203.0.113.1:1"]).refused(&["203.0.113.1:1"]);
    fs::remove_dir_all(home.data()).unwrap();
    fs::write(home.data(), "a file").unwrap();
    home.run(&[]).refused(&["create the directory", "data"]);
}

#[tokio::test]
async fn without_fsync_a_killed_process_loses_nothing() {
    let home = Home::new();
    let process = home.start(&["--unsafe-no-fsync"]).await;
    let client = process.client().await;
    for n in 0..100 {
        client.put(&format!("k{n}"), "v").await.unwrap();
    }
    process.kill();
    for args in [&["--unsafe-no-fsync"][..], &[]] {
        let process = home.start(args).await;
        assert_eq!(process.client().await.all().await.unwrap().count, 100);
        process.kill();
    }
}

/// `fault`, as strace injects it into the running binary; answers what was acknowledged before the end.
async fn let_down(home: &Home, fault: &str) {
    let call = fault.split(':').next().unwrap();
    let (trace, inject) = (format!("trace={call}"), format!("inject={fault}"));
    let wrapper = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let mut process = home.spawn_under(&wrapper, &[]);
    process.ready().await;
    let client = process.client().await;
    let acked = Acked::default();
    let writers = (0..4).map(|n| write_until_gone(client.clone(), format!("{fault}/{n}"), acked.clone()));
    tokio::time::timeout(Duration::from_secs(20), join_all(writers)).await.expect("it is gone");
    let ended = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    assert_eq!(ended.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains("failed to write the Raft log"), "{}", ended.said);
    let process = home.start(&[]).await;
    check_acked(&process.client().await, &acked).await;
    process.kill();
}

#[tokio::test]
async fn a_disk_that_fails_to_sync_or_write_ends_the_member_and_nothing_acknowledged_is_lost() {
    let strace = std::process::Command::new("strace").arg("-V").output();
    assert!(strace.is_ok(), "install strace: scripts/setup test");
    let home = Home::new();
    for fault in ["fdatasync:error=EIO:when=20", "fdatasync:error=EIO:when=33+", "pwrite64:error=ENOSPC:when=40"] {
        let_down(&home, fault).await;
    }
}
