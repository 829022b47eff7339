//! Lag of a consumer, by partition and by topic, and its time to drain.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::throughput::drain_seconds;
use penstock_core::{Nanos, Throughput};
use tracing::warn;

use crate::in_flight_records::InFlightRecords;
use crate::partition_ids::Origin;
use crate::source::LogStatistics;
use crate::statistics::{Standing, standing};
use penstock_telemetry::metrics::Drain;

/// The topics of one consumer.
#[derive(Default)]
pub struct ConsumerLag {
    topics: HashMap<String, Topic>,
}

/// One topic.
struct Topic {
    throughput: Throughput,
    drain: Drain,
    look: Look,
}

/// Totals of all topics in one observation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outlook {
    /// Records that are not committed.
    pub lag: u64,
    /// Shortest time to drain of a topic with lag and throughput.
    pub drain: Option<Duration>,
    /// Whether a log ends before its read position.
    pub beyond: bool,
}

/// Observations after which a log's early end is believed; its replicas may differ for a moment.
const BELIEVED: u32 = 2;

/// Totals of one topic in one observation.
#[derive(Default)]
struct Look {
    lag: u64,
    finished: u64,
}

impl ConsumerLag {
    /// Reads the source's statistics and publishes the lag.
    pub fn look(&mut self, statistics: &LogStatistics, inside: &mut InFlightRecords, now: Nanos) -> Outlook {
        let mut outlook = Outlook::default();
        for (partition, known) in &statistics.partitions {
            let Some(place) = inside.places.find(&partition.topic, partition.partition) else {
                continue;
            };
            let origin = Arc::clone(inside.places.origin(place));
            let Some(ours) = inside.partition_mut(place) else {
                continue;
            };
            ours.fetched |= known.is_fetched;
            let position = ours.committed.or(ours.first);
            let standing = standing(known, position, ours.is_empty());
            let look = &mut self.topic(&origin, now).look;
            look.finished += std::mem::take(&mut ours.finished);
            let is_beyond = matches!(standing, Standing::Beyond(_));
            ours.beyond = if is_beyond {
                ours.beyond.saturating_add(1)
            } else {
                0
            };
            outlook.beyond |= is_beyond;
            if ours.beyond == BELIEVED {
                let (topic, partition, end) = (&origin.topic, origin.partition, known.end);
                warn!(
                    topic,
                    partition,
                    ?position,
                    end,
                    "the log ends before what was read of it"
                );
            }
            let lag = match standing {
                Standing::ConsumerLag(lag) => lag,
                Standing::Beyond(lag) if ours.beyond >= BELIEVED => lag,
                Standing::Beyond(_) | Standing::Unknown => continue,
            };
            ours.lag.set(lag);
            look.lag += lag;
        }
        let at_work = inside.limit() as u64;
        for topic in self.topics.values_mut() {
            let Look { lag, finished } = std::mem::take(&mut topic.look);
            topic.throughput.observe(finished, lag, lag > at_work, now);
            let rate = topic.throughput.rate();
            topic.drain.set(lag, rate);
            outlook.lag += lag;
            if rate > 0.0 && lag + finished > 0 {
                let drain = Duration::from_secs_f64(drain_seconds(lag, rate));
                outlook.drain = Some(outlook.drain.map_or(drain, |least| least.min(drain)));
            }
        }
        outlook
    }

    /// Drops topics without an assigned partition.
    pub fn forget_gone(&mut self, inside: &InFlightRecords) {
        self.topics.retain(|topic, _| inside.places.has_topic(topic));
    }

    fn topic(&mut self, origin: &Origin, now: Nanos) -> &mut Topic {
        let fresh = || Topic {
            throughput: Throughput::new(now),
            drain: Drain::new(Arc::clone(&origin.metrics)),
            look: Look::default(),
        };
        self.topics.entry(origin.topic.clone()).or_insert_with(fresh)
    }
}
