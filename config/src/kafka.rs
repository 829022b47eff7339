//! The routes: each reads topics, scores their records with a model and writes what comes out to another
//! topic.

mod client;
pub(super) mod raw;
pub(super) mod resolve;

mod relations;
mod topics;

mod show;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_core::Class;

use super::secret::Secret;

/// One checked `[[kafka]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaRoute {
    /// Unique among the routes; a metric label and a part of the `transactional.id`.
    pub name: String,
    /// `HOST:PORT`, several with commas between them.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// What is read.
    pub input: KafkaInput,
    /// The topic that scores go to; never one that is read here.
    pub output: String,
    /// The topic that records go to which cannot be scored; never one that is read here.
    pub dead_letter: String,
    /// A configured model.
    pub model: String,
    /// Its version; empty is the newest.
    pub version: String,
    /// Where the text stands in a JSON value; `None` is the value itself.
    pub field: Option<String>,
    /// What happens to a record when something breaks.
    pub delivery: Delivery,
    /// Of the records, where no header says otherwise.
    pub class: Class,
    /// Consumers, each with a thread, a producer and bounds of its own.
    pub consumers: usize,
    /// The time between commits.
    pub commit_interval: Duration,
    /// The same while the route is far behind; at least that.
    pub commit_interval_max: Duration,
    /// Records after which there is a commit before that time.
    pub commit_records_max: usize,
    /// Records of one consumer that are read and not done with.
    pub in_flight_records_max: usize,
    /// Their bytes; at least one record of `record_bytes_max`.
    pub in_flight_bytes_max: usize,
    /// Records of one partition that are read and not done with.
    pub partition_in_flight_records_max: usize,
    /// Their bytes; at least one record of `record_bytes_max`.
    pub partition_in_flight_bytes_max: usize,
    /// A larger value is not read.
    pub record_bytes_max: usize,
    /// How long a revoked partition's records may take to be finished before they are given up.
    pub revoke_timeout: Duration,
    /// After which the broker aborts a transaction that nobody ends.
    pub transaction_timeout: Duration,
    /// Which headers of a record count.
    pub honour: Honour,
    /// Whether a text longer than the model's window is cut, or its record a dead letter.
    pub truncate: bool,
    /// Topics of a pattern that have metrics of their own.
    pub topics_max: usize,
    /// Properties of librdkafka, none of them one that the settings above decide.
    pub client: BTreeMap<String, Secret<String>>,
    /// Where those properties come from that do not stand in the file.
    pub client_sources: BTreeMap<String, ClientSource>,
    /// Which of several processes this one is.
    pub instance: String,
    /// Whether that name was given: another process may have it after this one.
    pub instance_given: bool,
}

/// What a record may carry beside its value: its key, its headers, and ours.
const BESIDE_BYTES_MAX: usize = 64 << 10;

impl KafkaRoute {
    /// What is written is never larger: key, headers and value together.
    pub fn written_bytes_max(&self) -> usize {
        self.record_bytes_max + BESIDE_BYTES_MAX
    }

    /// What its transactional ids begin with; the consumer's number follows. Whoever comes later under the same
    /// id fences the one before.
    pub fn transactional_id(&self) -> String {
        format!("{}-{}-{}", self.group, self.name, self.instance)
    }
}

/// What a route reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaInput {
    /// These topics.
    Topics(Vec<String>),
    /// Every topic whose name matches; begins with `^`.
    Pattern(String),
}

/// What a record's fate is when something breaks between reading and committing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Its output and its offset stand in one transaction: it is written once, whatever breaks.
    ExactlyOnce,
    /// Its offset is committed after its output is acknowledged: it may be written again.
    AtLeastOnce,
}

impl Delivery {
    /// Both.
    pub const ALL: [Delivery; 2] = [Delivery::ExactlyOnce, Delivery::AtLeastOnce];

    /// The name in configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

/// Which headers of a record count. Whoever may write to the topic decides by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Honour {
    /// `model`: another configured model.
    pub model: bool,
    /// `priority`: another class.
    pub priority: bool,
    /// `deadline-ms`: when the score is worth nothing any more.
    pub deadline: bool,
}

/// Where a property's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSource {
    /// A file that holds it.
    File(String),
    /// An environment variable.
    Environment(String),
}
