//! The same promises with real threads: one applies, a pool reads history, several clients poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use quorate_store::KeyRange;

use super::support::{World, key, put, request, span};
use crate::watch::{Executor, Job, Limits, Output, WatchCreate, WatchStream};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Pool(mpsc::Sender<Job>);

impl Executor for Pool {
    fn run(&self, job: Job) {
        self.0.send(job).expect("the pool outlives the hub");
    }
}

const REVISIONS: i64 = 20_000;

/// Follows one range to the end; whatever the threads do, it sees its revisions once and in order.
fn follow(mut stream: WatchStream, number: i64, stop: &AtomicBool) {
    let keys = number % 8;
    let range: KeyRange = if number % 2 == 0 { key(&format!("k{keys}")) } else { span("k0", "k8") };
    let step = if number % 2 == 0 { 8 } else { 1 };
    let first = if number % 2 == 0 && keys < 2 {
        8
    } else if number % 2 == 0 {
        keys
    } else {
        2
    };
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    stream.handle().create(&WatchCreate { start_revision: 2, prev_kv: true, ..request(range) });
    let mut next = first;
    let mut progress = false;
    while next <= REVISIONS || !progress {
        let mut out = Vec::new();
        match stream.poll_outputs(&mut Context::from_waker(&waker), &mut out) {
            Poll::Pending => thread::park(),
            Poll::Ready(end) => end.unwrap(),
        }
        for output in out {
            match output {
                Output::Events(delivery) => {
                    for (record, _) in delivery.events() {
                        assert_eq!(record.revision(), next);
                        next += step;
                    }
                }
                Output::Progress { revision, .. } => {
                    assert!(next > revision, "progress at {revision} before the event at {next}");
                    progress = next > REVISIONS;
                }
                Output::Created { .. } => {}
                Output::Refused { .. } | Output::Canceled { .. } | Output::Compacted { .. } => panic!("{output:?}"),
            }
        }
        if number % 3 == 0 || next > REVISIONS {
            stream.handle().progress();
        }
        // A slow client.
        if number % 5 == 0 && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

#[test]
fn threads_agree_with_the_order_of_revisions() {
    let (jobs, work) = mpsc::channel::<Job>();
    let worker = thread::spawn(move || work.into_iter().for_each(|job| job()));
    let limits = Limits { stream_bytes: 2_000, ring_bytes: 20_000, page_bytes: 2_000, ..Limits::default() };
    let mut world = World::with(limits, Arc::new(Pool(jobs)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..12 {
            let stream = world.hub.stream();
            let stop = &stop;
            scope.spawn(move || follow(stream, number, stop));
        }
        for revision in 2..=REVISIONS {
            world.txn(vec![put(&format!("k{}", revision % 8), "v")]);
            // Streams come and go meanwhile.
            if revision % 50 == 0 {
                world.client().watch(0, span("k", "l"), revision / 2);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.hub.stats(), crate::watch::HubStats::default());
    drop(world);
    worker.join().unwrap();
}
