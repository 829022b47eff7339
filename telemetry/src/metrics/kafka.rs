//! Metrics of each consumer of a Kafka route. Metrics of topics are in `topics`.

#[cfg(test)]
pub(in crate::metrics) mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram};

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

    /// Counts a committed transaction and its duration.
    pub fn committed(&self, took: Duration) {
        self.committed.add(took);
    }

    /// Counts an aborted transaction.
    pub fn aborted(&self, took: Duration) {
        self.aborted.add(took);
    }

    /// Counts assigned partitions.
    pub fn assigned(&self) {
        self.assigned.increment(1);
    }

    /// Counts revoked partitions; `lost` if another consumer had them already.
    pub fn revoked(&self, lost: bool) {
        let kind = if lost { &self.lost } else { &self.revoked };
        kind.increment(1);
    }

    /// Records the latencies of committed records from their timestamps, in milliseconds since 1970.
    pub fn acknowledged(&self, times: &[i64]) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = since_1970.as_millis() as i64;
        // Timestamps are mostly in order, and many share a millisecond.
        for same in times.chunk_by(|a, b| a == b) {
            // A timestamp in the future yields no latency.
            let took = Duration::from_millis(now.saturating_sub(same[0]).max(0) as u64);
            self.durations.record_many(took, same.len());
            self.latency.record_many(took, same.len());
        }
    }

    /// Sets the records and bytes in flight.
    pub fn inside(&self, records: usize, bytes: usize, paused: usize) {
        self.records.set(records);
        self.bytes.set(bytes);
        self.paused.set(paused);
    }
}

/// Finished records of a topic since the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Scored records.
    pub scored: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Dead letters, by reason.
    pub dead: [u64; DeadReason::ALL.len()],
    /// Bytes of keys and values read.
    pub bytes_read: u64,
    /// Bytes of keys and values written.
    pub bytes_written: u64,
}

impl Left {
    /// All records.
    pub fn records(&self) -> u64 {
        self.scored + self.tombstones + self.dead.iter().sum::<u64>()
    }
}

/// One unit of a gauge, counted until it is dropped.
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
