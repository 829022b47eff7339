//! The series of input topics. The exporter keeps every series for ever, but topics come and go. Their series
//! are therefore kept here, and one that is no longer read makes room for another.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;
use penstock_core::throughput::drain_seconds;

use super::kafka::Left;
use super::labels::{DeadReason, ResetReason};
use super::level::Level;
use super::names::{self, Family, Kind, OTHER_TOPICS};

/// Topics of all routes; two routes that read the same topic share its series.
#[derive(Default)]
pub(super) struct Topics(Mutex<BTreeMap<String, Arc<TopicMetrics>>>);

impl Topics {
    /// The series of a topic. At most `found_max` topics of patterns have series of their own. A topic that
    /// is no longer read makes room; while all are read, the rest share one set.
    pub(super) fn get(&self, name: &str, found_max: Option<usize>) -> Arc<TopicMetrics> {
        let mut topics = self.0.lock();
        let mut name = name;
        if let Some(found_max) = found_max.filter(|_| !topics.contains_key(name)) {
            let found = || topics.iter().filter(|(_, topic)| topic.is_found());
            if found().count() >= found_max {
                // Readers hold an `Arc` of the series.
                let unread = found().find(|(_, topic)| Arc::strong_count(topic) == 1);
                match unread.map(|(name, _)| name.clone()) {
                    Some(unread) => drop(topics.remove(&unread)),
                    None => name = OTHER_TOPICS,
                }
            }
        }
        let topic = topics
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(TopicMetrics::new(name == OTHER_TOPICS)));
        if found_max.is_none() {
            topic.configured.store(true, Ordering::Relaxed);
        }
        Arc::clone(topic)
    }

    /// Appends all series to the page.
    pub(super) fn render(&self, page: &mut String) {
        let topics = self.0.lock();
        family(page, &names::KAFKA_RECORDS, &topics, |topic, sample| {
            sample("scored", &topic.scored.load(Ordering::Relaxed));
            sample("tombstone", &topic.tombstones.load(Ordering::Relaxed));
            let dead = topic.dead.iter().map(|dead| dead.load(Ordering::Relaxed));
            sample("dead_letter", &dead.sum::<u64>());
        });
        family(page, &names::KAFKA_BYTES, &topics, |topic, sample| {
            sample("read", &topic.bytes_read.load(Ordering::Relaxed));
            sample("written", &topic.bytes_written.load(Ordering::Relaxed));
        });
        family(page, &names::DEAD_LETTERS, &topics, |topic, sample| {
            for reason in DeadReason::ALL {
                sample(
                    reason.name(),
                    &topic.dead[reason as usize].load(Ordering::Relaxed),
                );
            }
        });
        family(page, &names::KAFKA_POSITION_RESETS, &topics, |topic, sample| {
            for reason in ResetReason::ALL {
                sample(
                    reason.name(),
                    &topic.resets[reason as usize].load(Ordering::Relaxed),
                );
            }
        });
        family(page, &names::KAFKA_LAG, &topics, |topic, sample| {
            for (partition, lag) in topic.lags.lock().iter() {
                let lag = f64::from_bits(lag.load(Ordering::Relaxed));
                let partition =
                    partition.map_or_else(|| OTHER_TOPICS.to_owned(), |number| number.to_string());
                sample(&partition, &lag);
            }
        });
        family(page, &names::KAFKA_DRAIN, &topics, |topic, sample| {
            if let Some(seconds) = topic.drain.lock().drain_seconds() {
                sample("", &seconds);
            }
        });
    }
}

/// Writes a family; each topic gives its samples with the value of the second label, if the family has one.
fn family(
    page: &mut String,
    family: &Family,
    topics: &BTreeMap<String, Arc<TopicMetrics>>,
    samples: impl Fn(&TopicMetrics, &mut dyn FnMut(&str, &dyn Display)),
) {
    if topics.is_empty() {
        return;
    }
    let Family {
        name, labels, help, ..
    } = family;
    let kind = if matches!(family.kind, Kind::Counter) {
        "counter"
    } else {
        "gauge"
    };
    // Writing to a `String` cannot fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (topic, series) in topics {
        samples(series, &mut |second, value| {
            // Topic names hold no character that needs escaping.
            let second = labels.get(1).map(|label| format!(",{label}=\"{second}\""));
            let second = second.unwrap_or_default();
            let _ = writeln!(page, "{name}{{topic=\"{topic}\"{second}}} {value}");
        });
    }
    page.push('\n');
}

/// One input topic.
#[derive(Default)]
pub struct TopicMetrics {
    /// The topic is configured: its series stay.
    configured: AtomicBool,
    /// The entry shared by all topics without series of their own.
    shared: bool,
    scored: AtomicU64,
    tombstones: AtomicU64,
    dead: [AtomicU64; DeadReason::ALL.len()],
    resets: [AtomicU64; ResetReason::ALL.len()],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    lags: Mutex<BTreeMap<Option<i32>, Arc<AtomicU64>>>,
    drain: Mutex<Totals>,
}

/// Sums over all consumers of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    lag: i64,
    /// Thousandths of a record a second: integers, so that adding and subtracting leaves no residue.
    rate_milli: i64,
    /// Consumers with a known throughput, and consumers without one so far.
    told: usize,
    untold: usize,
}

impl TopicMetrics {
    fn new(shared: bool) -> TopicMetrics {
        TopicMetrics {
            shared,
            ..TopicMetrics::default()
        }
    }

    fn is_found(&self) -> bool {
        !self.shared && !self.configured.load(Ordering::Relaxed)
    }

    /// Counts the finished records of a commit.
    pub fn committed(&self, left: &Left) {
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.scored, left.scored);
        add(&self.tombstones, left.tombstones);
        for (counter, count) in self.dead.iter().zip(left.dead) {
            add(counter, count);
        }
        add(&self.bytes_read, left.bytes_read);
        add(&self.bytes_written, left.bytes_written);
    }

    /// Counts a partition whose position went back without a seek.
    pub fn reset(&self, reason: ResetReason) {
        self.resets[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Lag of a partition, published until the handle is dropped.
    pub fn lag(&self, partition: i32) -> Lag {
        let partition = (!self.shared).then_some(partition);
        let gauge = Arc::clone(self.lags.lock().entry(partition).or_default());
        Lag(Level::new(Gauge::from_arc(gauge)))
    }
}

impl Totals {
    fn drain_seconds(self) -> Option<f64> {
        let seconds = || drain_seconds(self.lag.max(0) as u64, self.rate_milli as f64 / 1000.0);
        (self.told > 0 || self.untold == 0).then(seconds)
    }
}

/// The lag of one partition.
pub struct Lag(Level);

impl Lag {
    /// Sets the number of records in the lag.
    pub fn set(&self, records: u64) {
        self.0.set(records as usize);
    }
}

/// One consumer's lag and throughput on a topic: a part of the topic's time to drain, until it is dropped.
pub struct Drain {
    topic: Arc<TopicMetrics>,
    part: Totals,
    began: Instant,
}

/// Time for which a consumer with lag and no finished record reports no time to drain, because it may be new.
/// An autoscaler on the maximum over replicas would otherwise answer each new replica with another.
const SILENCE_MAX: Duration = Duration::from_secs(10);

impl Drain {
    /// A consumer without lag.
    pub fn new(topic: Arc<TopicMetrics>) -> Drain {
        let mut drain = Drain {
            topic,
            part: Totals::default(),
            began: Instant::now(),
        };
        drain.replace(Totals {
            untold: 1,
            ..Totals::default()
        });
        drain
    }

    /// Sets the records in the lag and the records finished a second.
    pub fn set(&mut self, lag: u64, rate: f64) {
        let says = self.part.told > 0 || lag == 0 || rate > 0.0 || self.began.elapsed() >= SILENCE_MAX;
        if says {
            self.replace(Totals {
                lag: lag as i64,
                rate_milli: (rate * 1000.0) as i64,
                told: 1,
                untold: 0,
            });
        }
    }

    fn replace(&mut self, part: Totals) {
        let before = std::mem::replace(&mut self.part, part);
        let mut all = self.topic.drain.lock();
        all.lag += part.lag - before.lag;
        all.rate_milli += part.rate_milli - before.rate_milli;
        all.told = all.told + part.told - before.told;
        all.untold = all.untold + part.untold - before.untold;
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.replace(Totals::default());
    }
}
