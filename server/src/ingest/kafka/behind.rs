//! How far a consumer is behind, by partition and by topic, and how long it would take to get to the end.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_core::{Nanos, Throughput};

use super::inside::Inside;
use super::places::Source;
use super::statistics::Statistics;
use crate::metrics::Drain;

/// The topics of one consumer.
#[derive(Default)]
pub struct Behind {
    topics: HashMap<String, Topic>,
}

/// One topic.
struct Topic {
    throughput: Throughput,
    drain: Drain,
    look: Look,
}

/// What is seen of a topic in one look.
#[derive(Default)]
struct Look {
    lag: u64,
    finished: u64,
}

impl Behind {
    /// Takes what the client has counted, publishes it, and returns the lag of all partitions.
    pub fn look(&mut self, statistics: &Statistics, inside: &mut Inside, now: Nanos) -> u64 {
        for (topic, known) in statistics.partitions() {
            let Some(place) = inside.places.find(topic, known.number) else {
                continue;
            };
            let source = Arc::clone(inside.places.source(place));
            let Some(ours) = inside.partition_mut(place) else {
                continue;
            };
            let behind = known.lag(ours.committed.or(ours.first), ours.is_empty());
            let look = &mut self.topic(&source, now).look;
            look.finished += std::mem::take(&mut ours.finished);
            if let Some(lag) = behind {
                ours.lag.set(lag);
                look.lag += lag;
            }
        }
        let at_work = inside.limit() as u64;
        let looked = self.topics.values_mut().map(|topic| {
            let Look { lag, finished } = std::mem::take(&mut topic.look);
            topic.throughput.observe(finished, lag, lag > at_work, now);
            topic.drain.set(lag, topic.throughput.rate());
            lag
        });
        looked.sum()
    }

    /// Of topics of which no partition is ours any more, nothing is kept.
    pub fn forget_gone(&mut self, inside: &Inside) {
        self.topics.retain(|topic, _| inside.places.has_topic(topic));
    }

    fn topic(&mut self, source: &Source, now: Nanos) -> &mut Topic {
        let fresh = || Topic {
            throughput: Throughput::new(now),
            drain: Drain::new(Arc::clone(&source.metrics)),
            look: Look::default(),
        };
        self.topics.entry(source.topic.clone()).or_insert_with(fresh)
    }
}
