//! The used part of librdkafka's statistics: positions of partitions, and connections to brokers.

use std::collections::HashMap;

use serde::Deserialize;

use penstock_runtime::record::TopicPartition;
use penstock_runtime::source::{LogStatistics, PartitionStatistics};

/// The used part of the statistics.
#[derive(Debug, Default, Deserialize)]
pub struct Statistics {
    #[serde(default)]
    topics: HashMap<String, Topic>,
    #[serde(default)]
    brokers: HashMap<String, Broker>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

/// One partition, as the consumer sees it.
#[derive(Debug, Deserialize)]
struct Partition {
    /// −1 stands for no partition.
    #[serde(rename = "partition")]
    number: i32,
    /// Records that are fetched and not polled.
    #[serde(default)]
    fetchq_cnt: i64,
    /// Next offset to fetch.
    #[serde(default)]
    next_offset: i64,
    /// End of the committed transactions; negative while unknown.
    #[serde(default)]
    ls_offset: i64,
    /// Start of the log; negative while unknown.
    #[serde(default)]
    lo_offset: i64,
    #[serde(default)]
    fetch_state: String,
}

#[derive(Debug, Deserialize)]
struct Broker {
    #[serde(default)]
    nodeid: i32,
    #[serde(default)]
    state: String,
}

impl Statistics {
    /// Parses the client's JSON.
    pub fn read(json: &[u8]) -> Result<Statistics, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The figures of every partition.
    pub fn figures(self) -> LogStatistics {
        let connected = self.connected();
        let mut partitions = Vec::new();
        for (topic, known) in self.topics {
            for figures in known.partitions.into_values().filter(|one| one.number >= 0) {
                let partition = TopicPartition {
                    topic: topic.clone(),
                    partition: figures.number,
                };
                partitions.push((partition, figures.read()));
            }
        }
        LogStatistics {
            connected,
            partitions,
        }
    }

    /// True when a broker is connected, or none was ever needed.
    fn connected(&self) -> bool {
        let mut members = self
            .brokers
            .values()
            .filter(|broker| broker.nodeid >= 0)
            .peekable();
        members.peek().is_none() || members.any(|broker| broker.state == "UP")
    }
}

impl Partition {
    fn read(&self) -> PartitionStatistics {
        PartitionStatistics {
            prefetched: self.fetchq_cnt,
            next_offset: self.next_offset,
            end: self.ls_offset,
            beginning: self.lo_offset,
            is_fetched: self.fetch_state == "active",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_the_client_is_read() {
        let json = br#"{"brokers":{"a:1/1":{"nodeid":1,"state":"UP","x":2},"a:1/bootstrap":{"nodeid":-1,"state":"DOWN"}},
            "topics":{"t":{"partitions":{"3":{"partition":3,"fetchq_cnt":1,"next_offset":7,"ls_offset":9,"fetch_state":"active"},
            "-1":{"partition":-1}}}}}"#;
        let statistics = Statistics::read(json).unwrap();
        let LogStatistics {
            connected,
            partitions,
        } = statistics.figures();
        let expected = TopicPartition {
            topic: "t".into(),
            partition: 3,
        };
        let figures = PartitionStatistics {
            prefetched: 1,
            next_offset: 7,
            end: 9,
            beginning: 0,
            is_fetched: true,
        };
        assert!(connected);
        assert_eq!(partitions, [(expected, figures)]);
    }
}
