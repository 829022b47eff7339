//! Ids of the assigned partitions, so that work on each record compares numbers instead of names.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::record::TopicPartition;
use penstock_telemetry::metrics::TopicMetrics;

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u32);

/// Origin of a record.
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The topic's series.
    pub metrics: Arc<TopicMetrics>,
}

/// Gives a topic its series.
pub type Series = Box<dyn Fn(&str) -> Arc<TopicMetrics> + Send>;

/// Ids of all partitions.
pub struct PartitionIds {
    series: Series,
    origins: HashMap<PartitionId, Arc<Origin>>,
    topics: BTreeMap<String, HashMap<i32, PartitionId>>,
    /// Next partition id. Ids are never reused, so a late answer cannot be credited to another partition.
    next: u32,
}

impl PartitionIds {
    /// No id assigned yet.
    pub fn new(series: Series) -> PartitionIds {
        PartitionIds {
            series,
            origins: HashMap::new(),
            topics: BTreeMap::new(),
            next: 0,
        }
    }

    /// Id of an assigned partition.
    pub fn find(&self, topic: &str, partition: i32) -> Option<PartitionId> {
        self.topics.get(topic)?.get(&partition).copied()
    }

    /// Ids of a list's partitions; new partitions get one.
    pub fn of(&mut self, list: &[TopicPartition]) -> Vec<PartitionId> {
        let place = list.iter().map(|one| self.place(&one.topic, one.partition));
        place.collect()
    }

    /// Whether a partition of this topic is assigned.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// At most `most` topics in circular order, from the one after `last`.
    pub fn topics_after(&self, last: &str, most: usize) -> Vec<String> {
        let after = self
            .topics
            .range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
        let before = self
            .topics
            .range::<str, _>((Bound::Unbounded, Bound::Included(last)));
        let topics = after.chain(before).map(|(topic, _)| topic.clone());
        topics.take(most).collect()
    }

    /// Topic and partition of an id.
    pub fn origin(&self, place: PartitionId) -> &Arc<Origin> {
        &self.origins[&place]
    }

    /// Forgets a revoked partition. Topics come and go, so its id must not stay.
    pub fn forget(&mut self, place: PartitionId) {
        let Some(origin) = self.origins.remove(&place) else {
            return;
        };
        if let Some(partitions) = self.topics.get_mut(&origin.topic) {
            partitions.remove(&origin.partition);
            if partitions.is_empty() {
                self.topics.remove(&origin.topic);
            }
        }
    }

    /// Partitions by name.
    pub fn list(&self, places: impl IntoIterator<Item = PartitionId>) -> Vec<TopicPartition> {
        places.into_iter().map(|place| self.name(place)).collect()
    }

    /// A partition by name.
    pub fn name(&self, place: PartitionId) -> TopicPartition {
        let origin = self.origin(place);
        TopicPartition {
            topic: origin.topic.clone(),
            partition: origin.partition,
        }
    }

    fn place(&mut self, topic: &str, partition: i32) -> PartitionId {
        if let Some(known) = self.find(topic, partition) {
            return known;
        }
        let place = PartitionId(self.next);
        self.next += 1;
        let origin = Origin {
            topic: topic.to_owned(),
            partition,
            metrics: (self.series)(topic),
        };
        self.origins.insert(place, Arc::new(origin));
        self.topics
            .entry(topic.to_owned())
            .or_default()
            .insert(partition, place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::Metrics;

    #[test]
    fn a_partition_keeps_its_place() {
        let metrics = Metrics::new(Clock::start());
        let mut places = PartitionIds::new(Box::new(move |name| metrics.topic(name, None)));
        let list = [("a", 0), ("a", 1), ("b", 0)].map(|(topic, partition)| TopicPartition {
            topic: topic.into(),
            partition,
        });
        let first = places.of(&list);
        assert_eq!(places.of(&list), first);
        assert_eq!(places.find("b", 0), Some(first[2]));
        assert_eq!(places.find("b", 7), None);
        assert_eq!(places.origin(first[1]).partition, 1);
        assert_eq!(places.list(first.clone()), list);
        assert_eq!(places.topics_after("", 9), ["a", "b"]);
        assert_eq!(places.topics_after("a", 9), ["b", "a"]);
        assert_eq!(places.topics_after("a", 1), ["b"]);
        places.forget(first[0]);
        assert!(places.has_topic("a") && places.find("a", 0).is_none());
        places.forget(first[1]);
        assert!(!places.has_topic("a") && places.has_topic("b"));
        assert_ne!(
            places.of(&list)[0],
            first[0],
            "what is late is not taken for another's"
        );
        assert_eq!(places.of(&list)[2], first[2]);
    }
}
