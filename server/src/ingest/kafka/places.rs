//! The partitions that a pump has ever seen, each under a number: what happens to every record should not
//! compare names.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::topic_partition_list::TopicPartitionList;

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u32);

/// Where a record comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// All places.
#[derive(Default)]
pub struct Places {
    sources: Vec<Arc<Source>>,
    topics: HashMap<String, HashMap<i32, Place>>,
}

impl Places {
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

    #[test]
    fn a_partition_keeps_its_place() {
        let mut places = Places::default();
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
