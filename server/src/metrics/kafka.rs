//! What is published of the Kafka routes: of each consumer, each topic and each partition.

#[cfg(test)]
pub(in crate::metrics) mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;
use penstock_core::throughput::drain_seconds;

use super::labels::DeadReason;
use super::level::Level;
use super::names;
use super::series::Series;

/// One consumer of a route. The consumers of a route share its series.
pub struct KafkaMetrics {
    committed: Ended,
    aborted: Ended,
    assigned: Counter,
    revoked: Counter,
    lost: Counter,
    durations: Histogram,
    latency: Histogram,
    records: Level,
    bytes: Level,
    paused: Level,
}

/// Transactions with one outcome.
struct Ended {
    count: Counter,
    durations: Histogram,
}

impl Ended {
    fn add(&self, took: Duration) {
        self.count.increment(1);
        self.durations.record(took);
    }
}

impl KafkaMetrics {
    pub(super) fn new(series: &Series, route: &str) -> KafkaMetrics {
        let ended = |outcome| Ended {
            count: series.counter(&names::KAFKA_TRANSACTIONS, &[route, outcome]),
            durations: series.histogram(&names::KAFKA_TRANSACTION_DURATION, &[route, outcome]),
        };
        let rebalance = |kind| series.counter(&names::KAFKA_REBALANCES, &[route, kind]);
        let level = |family| Level::new(series.gauge(family, &[route]));
        KafkaMetrics {
            committed: ended("committed"),
            aborted: ended("aborted"),
            assigned: rebalance("assigned"),
            revoked: rebalance("revoked"),
            lost: rebalance("lost"),
            durations: series.histogram(&names::KAFKA_DURATION, &[route]),
            latency: series.histogram(&names::KAFKA_LATENCY, &[route]),
            records: level(&names::KAFKA_IN_FLIGHT_RECORDS),
            bytes: level(&names::KAFKA_IN_FLIGHT_BYTES),
            paused: level(&names::KAFKA_PAUSED),
        }
    }

    /// A transaction was committed, so long after it was begun.
    pub fn committed(&self, took: Duration) {
        self.committed.add(took);
    }

    /// One was aborted.
    pub fn aborted(&self, took: Duration) {
        self.aborted.add(took);
    }

    /// Partitions came.
    pub fn assigned(&self) {
        self.assigned.increment(1);
    }

    /// Partitions went; `lost` when somebody else had them already.
    pub fn revoked(&self, lost: bool) {
        let kind = if lost { &self.lost } else { &self.revoked };
        kind.increment(1);
    }

    /// What records of these times, in milliseconds since 1970, became is committed now.
    pub fn acknowledged(&self, times: &[i64]) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = since_1970.as_millis() as i64;
        // Times come in order more often than not, and many share a millisecond.
        for same in times.chunk_by(|a, b| a == b) {
            // A clock that is ahead of ours makes no latency.
            let took = Duration::from_millis(now.saturating_sub(same[0]).max(0) as u64);
            self.durations.record_many(took, same.len());
            self.latency.record_many(took, same.len());
        }
    }

    /// So much is inside now.
    pub fn inside(&self, records: usize, bytes: usize, paused: usize) {
        self.records.set(records);
        self.bytes.set(bytes);
        self.paused.set(paused);
    }
}

/// What has left of a topic since the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Records that were scored.
    pub scored: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Dead letters, by reason.
    pub dead: [u64; DeadReason::ALL.len()],
    /// Bytes of keys and values that were read.
    pub bytes_read: u64,
    /// Bytes of keys and values that were written.
    pub bytes_written: u64,
}

impl Left {
    /// All records.
    pub fn records(&self) -> u64 {
        self.scored + self.tombstones + self.dead_letters()
    }

    fn dead_letters(&self) -> u64 {
        self.dead.iter().sum()
    }
}

/// One topic that is read.
pub struct TopicMetrics {
    name: String,
    series: Arc<Series>,
    scored: Counter,
    tombstones: Counter,
    dead_letters: Counter,
    dead: [Counter; DeadReason::ALL.len()],
    bytes_read: Counter,
    bytes_written: Counter,
    drain: Mutex<Totals>,
    drain_seconds: Gauge,
}

/// Over all consumers of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    lag: i64,
    /// In thousandths of a record a second, so that what is added and taken away leaves nothing behind.
    rate_milli: i64,
}

impl TopicMetrics {
    pub(super) fn new(series: Arc<Series>, name: &str) -> TopicMetrics {
        let records = |outcome| series.counter(&names::KAFKA_RECORDS, &[name, outcome]);
        let bytes = |direction| series.counter(&names::KAFKA_BYTES, &[name, direction]);
        TopicMetrics {
            name: name.to_owned(),
            scored: records("scored"),
            tombstones: records("tombstone"),
            dead_letters: records("dead_letter"),
            dead: DeadReason::ALL.map(|reason| series.counter(&names::DEAD_LETTERS, &[name, reason.name()])),
            bytes_read: bytes("read"),
            bytes_written: bytes("written"),
            drain: Mutex::default(),
            drain_seconds: series.gauge(&names::KAFKA_DRAIN, &[name]),
            series,
        }
    }

    /// What has left is committed.
    pub fn committed(&self, left: &Left) {
        self.scored.increment(left.scored);
        self.tombstones.increment(left.tombstones);
        self.dead_letters.increment(left.dead_letters());
        for (counter, count) in self.dead.iter().zip(left.dead) {
            counter.increment(count);
        }
        self.bytes_read.increment(left.bytes_read);
        self.bytes_written.increment(left.bytes_written);
    }

    /// The lag of a partition, published until it is dropped. Topics without series of their own share one.
    pub fn lag(&self, partition: i32) -> Lag {
        let partition = if self.name == names::OTHER_TOPICS {
            names::OTHER_TOPICS.to_owned()
        } else {
            partition.to_string()
        };
        Lag(Level::new(
            self.series.gauge(&names::KAFKA_LAG, &[&self.name, &partition]),
        ))
    }

    fn change(&self, lag: i64, rate_milli: i64) {
        let mut totals = self.drain.lock();
        totals.lag += lag;
        totals.rate_milli += rate_milli;
        let Totals { lag, rate_milli } = *totals;
        self.drain_seconds
            .set(drain_seconds(lag.max(0) as u64, rate_milli as f64 / 1000.0));
    }
}

/// The lag of one partition.
pub struct Lag(Level);

impl Lag {
    /// So many records are behind.
    pub fn set(&self, records: u64) {
        self.0.set(records as usize);
    }
}

/// One of what a gauge counts, until it is dropped.
pub struct Counted {
    _level: Level,
}

impl Counted {
    pub(super) fn new(gauge: Gauge) -> Counted {
        let level = Level::new(gauge);
        level.set(1);
        Counted { _level: level }
    }
}

/// What one consumer has to do of a topic, and how fast it does it: a part of the topic's time to drain
/// until it is dropped.
pub struct Drain {
    topic: Arc<TopicMetrics>,
    part: Totals,
}

impl Drain {
    /// Nothing to do yet.
    pub fn new(topic: Arc<TopicMetrics>) -> Drain {
        Drain {
            topic,
            part: Totals::default(),
        }
    }

    /// So many records are behind, and so many are done a second.
    pub fn set(&mut self, lag: u64, rate: f64) {
        let part = Totals {
            lag: lag as i64,
            rate_milli: (rate * 1000.0) as i64,
        };
        self.topic
            .change(part.lag - self.part.lag, part.rate_milli - self.part.rate_milli);
        self.part = part;
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.set(0, 0.0);
    }
}
