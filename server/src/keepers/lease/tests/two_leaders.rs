//! Two members that take turns in leading, learn of it late, apply late and confirm late; checked against what their
//! clients were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_proto::etcdserverpb::LeaseCheckpoint;
use quorate_proto::log::proposal::Command;
use quorate_store::{Effects, LeaseEffect, Rejection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::table::Table;
use super::super::{Leases, Seat, Standing};
use super::fake::ELECTION;
use crate::node::RequestError;

const SEEDS: u64 = 300;
const STEPS: usize = 200;
const LEASES: i64 = 6;
/// By then the longest lease has ended: its time, late words, a late log, the slack of a new leader.
const END_MAX: Duration = Duration::from_secs(20);

/// The truth: who leads, what the log holds, which leases it leaves alive, and what was promised.
struct World {
    random: StdRng,
    leader: usize,
    term: u64,
    log: Vec<Effects>,
    alive: BTreeMap<i64, i64>,
    promised: BTreeMap<i64, Instant>,
    ended: usize,
    checkpoints: usize,
    /// What a leader has put into its log is committed in order.
    committing: [Instant; 2],
    wrong: Option<String>,
}

impl World {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn commits_at(&mut self, member: usize) -> Instant {
        let at = Instant::now() + self.delay(3_000);
        self.committing[member] = self.committing[member].max(at);
        self.committing[member]
    }

    fn delay(&mut self, most_ms: u64) -> Duration {
        // Mostly short, sometimes long.
        let most_ms = if self.random.random_bool(0.8) { most_ms / 10 } else { most_ms };
        Duration::from_millis(self.random.random_range(0..=most_ms))
    }

    fn append(&mut self, leases: Vec<LeaseEffect>) -> usize {
        self.log.push(Effects { leases, ..Effects::default() });
        self.log.len()
    }

    fn promise(&mut self, id: i64, ttl_secs: i64) {
        self.check(self.alive.contains_key(&id), || format!("lease {id} is dead and was renewed"));
        let until = Instant::now() + Duration::from_secs(ttl_secs as u64);
        self.promised.insert(id, until);
    }

    fn grant(&mut self, id: i64, ttl_secs: i64) {
        self.append(vec![LeaseEffect::Granted { id, ttl_secs }]);
        self.alive.insert(id, ttl_secs);
        self.promise(id, ttl_secs);
    }

    /// What apply makes of a command.
    fn apply(&mut self, command: &Command) -> Result<usize, Rejection> {
        let (leader_term, checkpoints) = match command {
            Command::LeaseExpire(expire) => return self.expire(expire.leader_term, &expire.ids),
            Command::LeaseRemaining(left) => (left.leader_term, &left.checkpoints),
            Command::LeaseCheckpoint(request) => (self.term, &request.checkpoints),
            other => panic!("{other:?}"),
        };
        if leader_term != self.term {
            return Err(Rejection::NotLeader);
        }
        let alive = checkpoints.iter().filter(|checkpoint| self.alive.contains_key(&checkpoint.id));
        let effect =
            |it: &LeaseCheckpoint| LeaseEffect::Checkpointed { id: it.id, remaining_ttl_secs: it.remaining_ttl };
        let effects: Vec<LeaseEffect> = alive.map(effect).collect();
        self.checkpoints += effects.len();
        Ok(self.append(effects))
    }

    fn expire(&mut self, leader_term: u64, ids: &[i64]) -> Result<usize, Rejection> {
        if leader_term != self.term {
            return Err(Rejection::NotLeader);
        }
        let ids: Vec<i64> = ids.iter().copied().filter(|id| self.alive.remove(id).is_some()).collect();
        for id in &ids {
            let until = self.promised.remove(id).unwrap();
            let now = Instant::now();
            self.check(now >= until, || format!("lease {id} ended {:?} early", until - now));
        }
        self.ended += ids.len();
        Ok(self.append(ids.into_iter().map(|id| LeaseEffect::Revoked { id }).collect()))
    }
}

#[derive(Clone)]
struct Member {
    id: usize,
    world: Arc<Mutex<World>>,
    leases: Leases,
    /// What it has been told.
    believes: watch::Sender<Standing>,
    applied: watch::Sender<usize>,
}

impl Member {
    fn start(id: usize, world: &Arc<Mutex<World>>) -> Self {
        let leases = Leases::new(Table::default(), ELECTION);
        leases.checkpoint_every(Duration::from_secs(1));
        let (believes, applied) = (watch::channel(Standing::default()).0, watch::channel(0).0);
        let member = Self { id, world: world.clone(), leases: leases.clone(), believes, applied };
        tokio::spawn(member.clone().apply());
        tokio::spawn(leases.keep(member.clone()));
        member
    }

    async fn apply(self) {
        loop {
            let delay = self.world.lock().unwrap().delay(1_000);
            sleep(delay + Duration::from_millis(1)).await;
            let applied = *self.applied.borrow();
            let behind = self.world.lock().unwrap().log[applied..].to_vec();
            behind.iter().for_each(|effects| self.leases.follow(effects));
            self.applied.send_replace(applied + behind.len());
        }
    }

    async fn late(&self, most_ms: u64) {
        let delay = self.world.lock().unwrap().delay(most_ms);
        sleep(delay).await;
    }

    fn leads(&self) -> Result<usize, RequestError> {
        let world = self.world.lock().unwrap();
        if world.leader == self.id { Ok(world.log.len()) } else { Err(RequestError::NotLeader) }
    }

    async fn wait_applied(&self, upto: usize) {
        self.applied.subscribe().wait_for(|applied| *applied >= upto).await.unwrap();
    }
}

impl Seat for Member {
    fn standing(&self) -> Standing {
        *self.believes.borrow()
    }

    async fn standing_changed(&self, since: Standing) -> Option<Standing> {
        Some(*self.believes.subscribe().wait_for(|now| *now != since).await.unwrap())
    }

    async fn confirm(&self) -> Result<(), RequestError> {
        self.late(500).await;
        self.leads()?;
        self.late(2_000).await;
        Ok(())
    }

    async fn prove(&self) -> Result<(), RequestError> {
        self.late(500).await;
        let upto = self.leads()?;
        self.wait_applied(upto).await;
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<(), RequestError> {
        self.leads()?;
        // It stands in this member's log from now on; whether it is ever committed shows later.
        let (member, (term, at)) = (self.clone(), {
            let mut world = self.world.lock().unwrap();
            (world.term, world.commits_at(self.id))
        });
        let committed = tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let mut world = member.world.lock().unwrap();
            if world.term != term {
                return Err(RequestError::LeaderChanged);
            }
            Ok(world.apply(&command))
        });
        match tokio::time::timeout(Duration::from_secs(1), committed).await {
            Err(_) => Err(RequestError::TimedOut),
            Ok(outcome) => {
                self.wait_applied(outcome.unwrap()??).await;
                Ok(())
            }
        }
    }
}

async fn step(world: &Arc<Mutex<World>>, members: &[Member; 2]) {
    let (what, id, pause) = {
        let mut world = world.lock().unwrap();
        (world.random.random_range(0..10), world.random.random_range(1..=LEASES), world.delay(2_000))
    };
    sleep(pause).await;
    match what {
        0 => change_leader(world, members),
        1..3 => {
            let mut world = world.lock().unwrap();
            let ttl_secs = world.random.random_range(1..6);
            if !world.alive.contains_key(&id) {
                world.grant(id, ttl_secs);
            }
        }
        _ => {
            // Clients ask whomever they believe to lead, who may believe it, too.
            let member = members[what % 2].clone();
            tokio::spawn(async move {
                if let Ok(Some(ttl_secs)) = member.leases.renew(&member, id).await {
                    member.world.lock().unwrap().promise(id, ttl_secs);
                }
            });
        }
    }
}

fn change_leader(world: &Arc<Mutex<World>>, members: &[Member; 2]) {
    let (leader, term, delays) = {
        let mut world = world.lock().unwrap();
        world.term += 1;
        world.leader = 1 - world.leader;
        (world.leader, world.term, [world.delay(1_500), world.delay(1_500)])
    };
    for (member, delay) in members.iter().zip(delays) {
        let (believes, leads) = (member.believes.clone(), member.id == leader);
        tokio::spawn(async move {
            sleep(delay).await;
            believes.send_if_modified(|now| {
                let newer = now.term < term;
                if newer {
                    *now = Standing { term, leads };
                }
                newer
            });
        });
    }
}

async fn run(seed: u64) -> (usize, usize) {
    let world = Arc::new(Mutex::new(World {
        random: StdRng::seed_from_u64(seed),
        leader: 0,
        term: 0,
        log: Vec::new(),
        alive: BTreeMap::new(),
        promised: BTreeMap::new(),
        ended: 0,
        checkpoints: 0,
        committing: [Instant::now(); 2],
        wrong: None,
    }));
    let members = [Member::start(0, &world), Member::start(1, &world)];
    change_leader(&world, &members);
    for _ in 0..STEPS {
        step(&world, &members).await;
    }
    // Nobody renews any more: all of them end.
    sleep(END_MAX).await;
    let world = world.lock().unwrap();
    assert_eq!(world.wrong, None, "seed {seed}");
    assert!(world.alive.is_empty(), "seed {seed}: {:?} never ended", world.alive);
    (world.ended, world.checkpoints)
}

#[test]
fn no_lease_ends_before_what_its_client_was_last_promised() {
    let (mut ended, mut checkpoints) = (0, 0);
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (more_ended, more_checkpoints) = runtime.block_on(run(seed));
        (ended, checkpoints) = (ended + more_ended, checkpoints + more_checkpoints);
    }
    assert!(checkpoints > SEEDS as usize * 20, "only {checkpoints} checkpoints were made");
    assert!(ended > SEEDS as usize * 5, "only {ended} leases ended");
}
