//! `--force-new-cluster` on a member whose others are gone: it goes on alone with all it has, whenever it is killed on the way.

#![allow(clippy::unwrap_used, reason = "a test says by it what it takes for granted")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use quorate_server::node::Consistency;
use quorate_server::raft::MemberChange;
use quorate_server::raft::log::sim::SimFs;
use quorate_store::engine::MemoryEngine;
use support::life::{Grave, Life, Point};
use support::member::{Member, Place};

/// Members that never ran: entries about them are all that there is of them.
const VOTER: u64 = 0x0a;
const LEARNER: u64 = 0x0b;

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn place(life: &Arc<Life>, force: bool) -> Place {
    Place::mortal(life.clone()).with(|settings| {
        settings.force_new_cluster = force;
        settings.request_timeout = Duration::from_millis(300);
    })
}

fn add(id: u64, is_learner: bool) -> MemberChange {
    MemberChange::Add { id, peer_urls: vec![format!("http://127.0.0.1:{id}")], is_learner }
}

/// What a member has after a start.
#[derive(Debug, PartialEq, Eq)]
struct Has {
    keys: Vec<String>,
    /// By id, and whether they learn.
    members: Vec<(u64, bool)>,
    removed: Vec<u64>,
}

impl Has {
    async fn of(member: &Member) -> Self {
        member.node.read_view(Consistency::Linearizable).await.unwrap();
        let keys = member.client.all().await.unwrap().kvs.into_iter();
        let reader = member.node.reader();
        Self {
            keys: keys.map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect(),
            members: reader.members().into_iter().map(|member| (member.id, member.is_learner)).collect(),
            removed: reader.removed_members(),
        }
    }
}

/// The disk of a member to which a learner and a voter were added that never came. Nothing of it was flushed, so all there is is
/// the log.
fn bereft() -> (SimFs, u64) {
    let disk = SimFs::new(1);
    let life = Life::new(disk.clone(), Arc::default(), None, Duration::ZERO);
    let own = run(async {
        let member = place(&life, false).start().await;
        member.put("a", "1").await.unwrap();
        member.raft.change_members(add(LEARNER, true)).await.unwrap();
        member.put("b", "2").await.unwrap();
        member.raft.change_members(add(VOTER, false)).await.unwrap();
        member.put("c", "3").await.unwrap();
        let own = member.node.identity().member_id;
        member.stop().await;
        own
    });
    life.ended();
    (disk, own)
}

/// Starts the member by force, and kills it where `end` says. What it had when it served, if it came to that; whether it died.
fn force(disk: &SimFs, end: Option<(Point, u64)>) -> (Option<Has>, bool) {
    let engine = Arc::<MemoryEngine>::default();
    let life = Life::new(disk.clone(), engine, end, Duration::ZERO);
    std::thread::scope(|scope| {
        let living = life.clone();
        let lived = scope.spawn(move || {
            let _end = Ending(living.clone());
            run(async {
                tokio::select! {
                    biased;
                    () = living.died() => None,
                    has = serve(&living) => has,
                }
            })
        });
        let died = life.wait();
        if died {
            disk.power_cycle();
            life.bury();
        } else {
            disk.restart();
        }
        match lived.join() {
            Ok(has) => (has, died),
            Err(panic) if panic.is::<Grave>() => (None, died),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

async fn serve(life: &Arc<Life>) -> Option<Has> {
    let member = match place(life, true).try_start().await {
        Ok(member) => member,
        Err(_) if life.is_over() => return None,
        Err(error) => panic!("{error:#}"),
    };
    let has = Has::of(&member).await;
    member.stop().await;
    Some(has)
}

/// Says that the thread goes, also where a comparison failed.
struct Ending(Arc<Life>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn alone(own: u64) -> Has {
    Has {
        keys: ["a", "b", "c"].map(str::to_owned).to_vec(),
        members: vec![(own, false)],
        removed: vec![VOTER, LEARNER],
    }
}

#[test]
fn a_member_goes_on_alone_with_all_that_its_log_has() {
    let (disk, own) = bereft();
    for start in 1..=3 {
        assert_eq!(force(&disk, None), (Some(alone(own)), false), "start {start}");
    }
}

#[test]
fn killed_while_it_is_forced_it_is_forced_by_the_next_start() {
    let (disk, own) = bereft();
    // The vote, the entry, and what any lone voter writes when it starts.
    let ends = [Point::Append, Point::Torn, Point::Written, Point::Synced, Point::Apply, Point::Applied];
    for point in ends {
        for passing in 1..=2 {
            let disk = disk.fork();
            let (_, died) = force(&disk, Some((point, passing)));
            assert!(died, "{point:?} was not passed {passing} times");
            assert_eq!(force(&disk, None), (Some(alone(own)), false), "killed at {point:?}, {passing}");
        }
    }
}
