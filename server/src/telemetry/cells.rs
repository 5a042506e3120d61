//! The kinds of figures. All are lock-free where they are counted, but for the labelled ones, which change rarely.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A figure that can write itself down in Prometheus text.
pub(super) trait Figure {
    const KIND: &'static str;

    /// One line for each series; `labels` is without braces, and may be empty.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

pub(super) fn sample(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let written =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
    written.expect("a String takes all that is written");
}

pub(super) fn heading(out: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes all that is written");
}

/// Only grows. On a cache line of its own, so that threads that count different things do not slow each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// For what is counted elsewhere and copied here on a scrape.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Figure for Counter {
    const KIND: &'static str = "counter";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// Of a revision, a size or an index; what does not fit is the largest that does.
    pub fn set_u64(&self, n: u64) {
        self.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    pub fn set_bool(&self, on: bool) {
        self.set(i64::from(on));
    }

    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.add(-1);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Figure for Gauge {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

/// Durations by bucket.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in nanoseconds, ascending.
    bounds: Vec<u64>,
    /// One more than bounds: the last is for what is above all of them.
    buckets: Vec<AtomicU64>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: Vec<u64>) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_nanos: AtomicU64::new(0) }
    }

    /// `count` bounds, each twice the one before.
    pub(super) fn doubling(first: Duration, count: u32) -> Self {
        Self::new((0..count).map(|i| nanos(first) << i).collect())
    }

    pub fn observe(&self, took: Duration) {
        let nanos = nanos(took);
        let bucket = self.bounds.iter().position(|bound| nanos <= *bound).unwrap_or(self.bounds.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

impl Figure for Histogram {
    const KIND: &'static str = "histogram";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket_name = format!("{name}_bucket");
        let bounds = self.bounds.iter().map(|bound| seconds(*bound).to_string()).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            total += bucket.load(Relaxed);
            sample(out, &bucket_name, &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        sample(out, &format!("{name}_sum"), labels, seconds(self.sum_nanos.load(Relaxed)));
        sample(out, &format!("{name}_count"), labels, total);
    }
}

/// A duration that is as it was last set.
#[derive(Debug, Default)]
pub struct DurationGauge(AtomicU64);

impl DurationGauge {
    pub fn set(&self, duration: Duration) {
        self.0.store(nanos(duration), Relaxed);
    }
}

impl Figure for DurationGauge {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, seconds(self.0.load(Relaxed)));
    }
}

/// Histograms told apart by one label that is known only at run time.
#[derive(Debug)]
pub struct LabelledHistogram {
    label: &'static str,
    new: fn() -> Histogram,
    series: Mutex<BTreeMap<String, Histogram>>,
}

impl LabelledHistogram {
    pub(super) fn new(label: &'static str, new: fn() -> Histogram) -> Self {
        Self { label, new, series: Mutex::default() }
    }

    pub fn observe(&self, value: &str, took: Duration) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.entry(join(&[(self.label, value)])).or_insert_with(self.new).observe(took);
    }
}

impl Figure for LabelledHistogram {
    const KIND: &'static str = "histogram";

    fn write(&self, name: &str, _: &str, out: &mut String) {
        for (labels, histogram) in self.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            histogram.write(name, labels, out);
        }
    }
}

/// Gauges told apart by labels that are known only at run time: versions, IDs, alarms.
#[derive(Debug, Default)]
pub struct LabelledGauge(Mutex<BTreeMap<String, i64>>);

impl LabelledGauge {
    pub fn set(&self, labels: &[(&str, &str)], value: i64) {
        self.series().insert(join(labels), value);
    }

    /// Sets this one to 1 and forgets the others: the version changed.
    pub fn become_only(&self, labels: &[(&str, &str)]) {
        let mut series = self.series();
        series.clear();
        series.insert(join(labels), 1);
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        // Nothing is left half done in there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn join(labels: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect::<Vec<_>>().join(",")
}

impl Figure for LabelledGauge {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, _: &str, out: &mut String) {
        for (labels, value) in self.series().iter() {
            sample(out, name, labels, value);
        }
    }
}
