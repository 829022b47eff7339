//! The used part of librdkafka's statistics: positions of partitions, and connections to brokers.

use std::collections::HashMap;

use serde::Deserialize;

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
    partitions: HashMap<String, PartitionStatistics>,
}

/// One partition, as the consumer sees it.
#[derive(Debug, Deserialize)]
pub struct PartitionStatistics {
    /// −1 stands for no partition.
    #[serde(rename = "partition")]
    pub number: i32,
    /// Records that are fetched and not polled.
    #[serde(default)]
    pub fetchq_cnt: i64,
    /// Next offset to fetch.
    #[serde(default)]
    pub next_offset: i64,
    /// End of the committed transactions; negative while unknown.
    #[serde(default)]
    pub ls_offset: i64,
    /// Start of the log; negative while unknown.
    #[serde(default)]
    pub lo_offset: i64,
    #[serde(default)]
    fetch_state: String,
}

/// State of a partition's lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not known yet.
    Unknown,
    /// Number of records that are not committed.
    ConsumerLag(u64),
    /// The log ends before the read position: it is another log, or was truncated. The number is its records.
    Beyond(u64),
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

    /// Every partition with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &PartitionStatistics)> {
        self.topics.iter().flat_map(|(topic, known)| {
            let real = known.partitions.values().filter(|p| p.number >= 0);
            real.map(move |partition| (topic.as_str(), partition))
        })
    }

    /// True when a broker is connected, or none was ever needed.
    pub fn connected(&self) -> bool {
        let mut members = self
            .brokers
            .values()
            .filter(|broker| broker.nodeid >= 0)
            .peekable();
        members.peek().is_none() || members.any(|broker| broker.state == "UP")
    }
}

impl PartitionStatistics {
    /// Lag of a partition with the position `committed`, or without one, its first read record. With nothing
    /// in flight or fetched, the rest of the log is transaction markers, so there is no lag. Without a read
    /// record, the next fetch is the position.
    pub fn standing(&self, committed: Option<i64>, idle: bool) -> Standing {
        if self.ls_offset < 0 {
            return Standing::Unknown;
        }
        let fetched = (self.next_offset >= 0).then_some(self.next_offset - self.fetchq_cnt);
        let read = fetched.filter(|_| committed.is_none() || (idle && self.fetchq_cnt == 0));
        match (read.max(committed), committed) {
            (_, Some(committed)) if committed > self.ls_offset => {
                Standing::Beyond((self.ls_offset - self.lo_offset.max(0)).max(0) as u64)
            }
            // A fetch beyond the known end is no contradiction; the end is only older.
            (Some(stands), _) => Standing::ConsumerLag((self.ls_offset - stands).max(0) as u64),
            (None, _) => Standing::Unknown,
        }
    }

    /// Whether the client fetches this partition.
    pub fn is_fetched(&self) -> bool {
        self.fetch_state == "active"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(ls_offset: i64, next_offset: i64, fetchq_cnt: i64) -> PartitionStatistics {
        PartitionStatistics {
            number: 0,
            fetchq_cnt,
            next_offset,
            ls_offset,
            lo_offset: 7,
            fetch_state: "active".into(),
        }
    }

    #[test]
    fn the_lag_counts_from_what_is_committed() {
        assert_eq!(
            partition(100, 90, 5).standing(Some(40), false),
            Standing::ConsumerLag(60)
        );
        assert_eq!(
            partition(100, 90, 5).standing(None, false),
            Standing::ConsumerLag(15)
        );
        assert_eq!(partition(100, -1001, 0).standing(None, false), Standing::Unknown);
        assert_eq!(partition(-1001, 0, 0).standing(Some(40), true), Standing::Unknown);
    }

    #[test]
    fn a_marker_at_the_end_is_no_lag() {
        assert_eq!(
            partition(101, 101, 0).standing(Some(100), true),
            Standing::ConsumerLag(0)
        );
        assert_eq!(
            partition(101, 101, 0).standing(Some(90), false),
            Standing::ConsumerLag(11)
        );
    }

    #[test]
    fn a_log_that_ends_before_what_was_read_is_no_lag_of_0() {
        assert_eq!(
            partition(100, 200, 0).standing(Some(200), true),
            Standing::Beyond(93)
        );
        assert_eq!(
            partition(100, 60, 0).standing(Some(101), false),
            Standing::Beyond(93)
        );
    }

    #[test]
    fn the_json_of_the_client_is_read() {
        let json = br#"{"brokers":{"a:1/1":{"nodeid":1,"state":"UP","x":2},"a:1/bootstrap":{"nodeid":-1,"state":"DOWN"}},
            "topics":{"t":{"partitions":{"3":{"partition":3,"fetchq_cnt":1,"next_offset":7,"ls_offset":9,"fetch_state":"active"},
            "-1":{"partition":-1}}}}}"#;
        let statistics = Statistics::read(json).unwrap();
        assert!(statistics.connected());
        let partitions: Vec<_> = statistics.partitions().collect();
        assert_eq!(partitions.len(), 1);
        assert_eq!((partitions[0].0, partitions[0].1.number), ("t", 3));
        assert!(partitions[0].1.is_fetched());
    }
}
