//! The partitions that a pump has ever seen, each under a number: what happens to every record should not
//! compare names.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::topic_partition_list::TopicPartitionList;

use crate::metrics::TopicMetrics;

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u32);

/// Where a record comes from.
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The topic's series.
    pub metrics: Arc<TopicMetrics>,
}

/// Gives a topic its series.
pub type Series = Box<dyn Fn(&str) -> Arc<TopicMetrics> + Send>;

/// All places.
pub struct Places {
    series: Series,
    sources: Vec<Arc<Source>>,
    topics: HashMap<String, HashMap<i32, Place>>,
}

impl Places {
    /// None seen yet.
    pub fn new(series: Series) -> Places {
        Places {
            series,
            sources: Vec::new(),
            topics: HashMap::new(),
        }
    }

    /// The place of a partition that was assigned before.
    pub fn find(&self, topic: &str, partition: i32) -> Option<Place> {
        self.topics.get(topic)?.get(&partition).copied()
    }

    /// The places of a list, those that are new included.
    pub fn of(&mut self, list: &TopicPartitionList) -> Vec<Place> {
        let elements = list.elements();
        let place = elements.iter().map(|e| self.place(e.topic(), e.partition()));
        place.collect()
    }

    /// What a place is called.
    pub fn source(&self, place: Place) -> &Arc<Source> {
        &self.sources[place.0 as usize]
    }

    /// A list of places, without offsets.
    pub fn list(&self, places: impl IntoIterator<Item = Place>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for place in places {
            let source = self.source(place);
            list.add_partition(&source.topic, source.partition);
        }
        list
    }

    fn place(&mut self, topic: &str, partition: i32) -> Place {
        if let Some(known) = self.find(topic, partition) {
            return known;
        }
        let place = Place(self.sources.len() as u32);
        self.sources.push(Arc::new(Source {
            topic: topic.to_owned(),
            partition,
            metrics: (self.series)(topic),
        }));
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
    use crate::clock::Clock;
    use crate::metrics::Metrics;

    #[test]
    fn a_partition_keeps_its_place() {
        let metrics = Metrics::new(Clock::start());
        let mut places = Places::new(Box::new(move |name| metrics.topic(name, usize::MAX)));
        let mut list = TopicPartitionList::new();
        list.add_partition("a", 0);
        list.add_partition("a", 1);
        list.add_partition("b", 0);
        let first = places.of(&list);
        assert_eq!(places.of(&list), first);
        assert_eq!(places.find("b", 0), Some(first[2]));
        assert_eq!(places.find("b", 7), None);
        assert_eq!(places.source(first[1]).partition, 1);
        assert_eq!(places.list(first).count(), 3);
    }
}
