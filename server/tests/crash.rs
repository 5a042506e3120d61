//! A whole member, killed at every step between append, apply, flush and purge; what comes back must be the state that
//! a model says, each time.
//!
//! ```text
//!   history   one disk and one engine; for every point, and some of its passings, in an order by seed:
//!   life        start, compare with the past, serve clients until the point is passed, die
//! ```
//!
//! Half of the deaths are power cuts: what was not synced is lost or torn. What no flush covered is lost in all.
//! `CRASH_HISTORIES` says how many histories, `CRASH_SEED` where to begin; a seed gives the requests and the ends, not
//! how threads meet.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::log::proposal::Command;
use quorate_server::node::Consistency;
use quorate_server::raft::log::sim::SimFs;
use quorate_store::engine::MemoryEngine;
use quorate_store::{Store, StoreView};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use support::client::{Client, op_delete, op_put, put};
use support::clock::until;
use support::life::{Grave, Life, Point};
use support::member::{Member, Place};
use support::past::{Outcome, Past};
use tonic::{Code, Status};

const THREADS: u64 = 2;
const CLIENTS: usize = 4;
const KEYS: u32 = 12;
const VALUE_BYTES_MAX: usize = 200;
/// Requests of one client between two pauses.
const BURST: usize = 25;
/// A point that is not passed in so many is not passed at all.
const BURSTS_MAX: usize = 500;
/// Longer than the log waits to write its marker, for the kills there.
const PAUSE: Duration = Duration::from_millis(60);
/// How long the call takes in which the member dies, at most.
const LAST_CALL_MAX: Duration = Duration::from_millis(5);
const SEGMENT_BYTES: u32 = 16 << 10;
const LEASE_TTL_SECS: i64 = 100_000;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn killed_at_any_step_a_member_comes_back_as_the_model_says() {
    let (first, count) = (from_env("CRASH_SEED", 1), from_env("CRASH_HISTORIES", 4));
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        seed if seed < first + count => History::new(seed).run(),
                        _ => return,
                    }
                }
            });
        }
    });
}

struct History {
    seed: u64,
    chance: StdRng,
    disk: SimFs,
    engine: Arc<MemoryEngine>,
    past: Arc<Mutex<Past>>,
}

impl History {
    fn new(seed: u64) -> Self {
        let (disk, past) = (SimFs::new(seed), Arc::new(Mutex::new(Past::new())));
        Self { seed, chance: StdRng::seed_from_u64(seed), disk, engine: Arc::default(), past }
    }

    fn run(mut self) {
        let mut ends = Vec::new();
        for point in Point::FREQUENT {
            // The first passings are those of a start.
            ends.extend([1, 2, 6].map(|passing| (point, passing)));
            ends.push((point, self.chance.random_range(7..60)));
        }
        for point in Point::RARE {
            ends.extend([1, 2].map(|passing| (point, passing)));
        }
        ends.shuffle(&mut self.chance);
        for end in ends {
            self.live(Some(end));
        }
        for _ in 0..2 {
            self.live(None);
        }
    }

    fn live(&mut self, end: Option<(Point, u64)>) {
        let last_call = if self.chance.random() { LAST_CALL_MAX } else { Duration::ZERO };
        let life = Life::new(self.disk.clone(), self.engine.clone(), end, last_call);
        let (past, chance) = (self.past.clone(), StdRng::seed_from_u64(self.chance.random()));
        let lived = std::thread::spawn({
            let life = life.clone();
            move || live(&life, &past, chance)
        });
        let died = life.wait();
        if died {
            self.engine.crash();
            if self.chance.random() {
                self.disk.power_cycle()
            } else {
                self.disk.restart()
            }
            life.bury();
        }
        let told = lived.join();
        if let Err(panic) = told
            && !panic.is::<Grave>()
        {
            eprintln!("seed {}, a life that was to end at {end:?}", self.seed);
            std::panic::resume_unwind(panic);
        }
        assert_eq!(died, end.is_some(), "seed {}: {end:?} was not passed", self.seed);
    }
}

/// On a thread of its own, which stops where the member stops.
fn live(life: &Arc<Life>, past: &Mutex<Past>, chance: StdRng) {
    let _end = Ending(life.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = life.died() => {}
            () = serve(life, past, chance) => {}
        }
    });
}

/// Says that the thread goes, also where a comparison failed.
struct Ending(Arc<Life>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

async fn serve(life: &Arc<Life>, past: &Mutex<Past>, mut chance: StdRng) {
    let flushed = Store::open(life.engine()).unwrap().reader().view().unwrap();
    let place = Place::mortal(life.clone()).with(|settings| {
        settings.snapshot_entries = 20;
        settings.catchup_entries = 5;
        settings.log_segment_bytes = SEGMENT_BYTES;
        settings.compaction_entries_per_step = 10;
    });
    let member = match place.try_start().await {
        Ok(member) => member,
        Err(_) if life.is_over() => return,
        Err(error) => panic!("{error:#}"),
    };
    let view = current(&member).await;
    past.lock().unwrap().compare(member.node.reader(), &view);
    if flushed.compacted() == view.compacted() {
        let hash = |hash: quorate_store::KeyspaceHash| hash.hash;
        let (left, then) = (flushed.hash_kv(0).unwrap(), view.hash_kv(flushed.revision()).unwrap());
        assert_eq!(hash(left), hash(then), "what the flush left was never the state");
    }
    drop((flushed, view));
    let Some(pause) = life.chosen().map(|point| if point == Point::Marker { PAUSE } else { Duration::ZERO }) else {
        return member.stop().await;
    };
    let from = past.lock().unwrap().reader().revision() + 1;
    let watching = async {
        let mut watching = member.client.watch_all(from).await;
        loop {
            let events = watching.events().await;
            past.lock().unwrap().saw(events);
        }
    };
    let working = async {
        for _ in 0..BURSTS_MAX {
            grant(&member, past).await;
            let clients = (0..CLIENTS).map(|_| {
                let chance = StdRng::seed_from_u64(chance.random());
                burst(&member, past, chance)
            });
            join_all(clients).await;
            let view = current(&member).await;
            until("the watcher was told of everything", || past.lock().unwrap().seen(view.revision())).await;
            past.lock().unwrap().compare(member.node.reader(), &view);
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = working => {}
    }
}

async fn current(member: &Member) -> Arc<StoreView> {
    member.node.read_view(Consistency::Linearizable).await.unwrap()
}

async fn grant(member: &Member, past: &Mutex<Past>) {
    let id = past.lock().unwrap().next_number().cast_signed();
    ask(member, past, Command::LeaseGrant(pb::LeaseGrantRequest { id, ttl: LEASE_TTL_SECS })).await;
}

async fn burst(member: &Member, past: &Mutex<Past>, mut chance: StdRng) {
    for _ in 0..BURST {
        // Before the lock: whoever looks into the state of the dead does not come back.
        let leases = member.node.reader().view().unwrap().leases().unwrap();
        let lease = leases.get(chance.random_range(0..leases.len().max(1))).map_or(0, |(id, _)| *id);
        let command = draw(&mut chance, &past.lock().unwrap(), lease);
        ask(member, past, command).await;
    }
}

async fn ask(member: &Member, past: &Mutex<Past>, command: Command) {
    let number = past.lock().unwrap().ask(command.clone());
    let outcome = match send(&member.client, command).await {
        Ok(outcome) => outcome,
        Err(refused) if matches!(refused.code(), Code::NotFound | Code::OutOfRange) => Outcome::Nothing,
        Err(_) => return,
    };
    past.lock().unwrap().answered(number, outcome, member.raft.applied());
}

/// `lease` is one that is there, or 0.
fn draw(chance: &mut StdRng, past: &Past, lease: i64) -> Command {
    let number = past.next_number();
    let key = |at: u32| format!("k{:02}", at % KEYS);
    let at = chance.random_range(0..KEYS);
    let value = format!("{number} {}", "x".repeat(chance.random_range(0..VALUE_BYTES_MAX)));
    match chance.random_range(0..40) {
        0..18 => Command::Put(put(&key(at), &value, 0)),
        18..25 => Command::Put(put(&key(at), &value, lease)),
        25..30 => Command::DeleteRange(pb::DeleteRangeRequest { key: key(at).into(), ..Default::default() }),
        30..32 => Command::DeleteRange(pb::DeleteRangeRequest {
            key: key(at).into(),
            range_end: key(at + 4).into(),
            ..Default::default()
        }),
        32..36 => {
            let success = vec![op_put(&key(at), &value, 0), op_delete(&key(at + 1)), op_put(&key(at + 2), &value, 0)];
            Command::Txn(pb::TxnRequest { success, ..Default::default() })
        }
        36..38 if lease != 0 => Command::LeaseRevoke(pb::LeaseRevokeRequest { id: lease }),
        // No further than what is known for certain: events behind it are compared yet.
        _ => {
            let known = past.reader();
            let revision = chance.random_range(known.compacted().max(1)..=known.revision());
            Command::Compaction(pb::CompactionRequest { revision, physical: chance.random() })
        }
    }
}

async fn send(client: &Client, command: Command) -> Result<Outcome, Status> {
    let at = |header: Option<pb::ResponseHeader>| Outcome::DoneAt(header.unwrap().revision);
    Ok(match command {
        Command::Put(request) => at(client.kv.clone().put(request).await?.into_inner().header),
        Command::Txn(request) => at(client.kv.clone().txn(request).await?.into_inner().header),
        Command::DeleteRange(request) => match client.kv.clone().delete_range(request).await?.into_inner() {
            answer if answer.deleted > 0 => at(answer.header),
            _ => Outcome::Nothing,
        },
        Command::Compaction(request) => client.kv.clone().compact(request).await.map(|_| Outcome::Done)?,
        Command::LeaseGrant(request) => client.lease.clone().lease_grant(request).await.map(|_| Outcome::Done)?,
        Command::LeaseRevoke(request) => client.lease.clone().lease_revoke(request).await.map(|_| Outcome::Done)?,
        other => panic!("{other:?}"),
    })
}
