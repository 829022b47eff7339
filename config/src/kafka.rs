//! The routes: each reads topics, scores their records with a model and writes the results to another topic.

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
    /// `HOST:PORT`, several separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// Input topics.
    pub input: KafkaInput,
    /// Topic for scores; never one that this configuration reads.
    pub output: String,
    /// Topic for records that cannot be scored; never one that this configuration reads.
    pub dead_letter: String,
    /// A configured model.
    pub model: String,
    /// Its version; empty is the newest.
    pub version: String,
    /// Path of the text in a JSON value; `None` if the whole value is the text.
    pub field: Option<String>,
    /// Guarantee of delivery.
    pub delivery: Delivery,
    /// Default class of the records; a header may override it.
    pub class: Class,
    /// Consumers, each with a thread, a producer and bounds of its own.
    pub consumers: usize,
    /// Time between two commits.
    pub commit_interval: Duration,
    /// Commit interval during a backlog; at least `commit_interval`.
    pub commit_interval_max: Duration,
    /// Finished records that cause a commit before the interval ends.
    pub commit_records_max: usize,
    /// Bound on one consumer's records in flight.
    pub in_flight_records_max: usize,
    /// Bound on their bytes; at least one record of `record_bytes_max`.
    pub in_flight_bytes_max: usize,
    /// Bound on one partition's records in flight.
    pub partition_in_flight_records_max: usize,
    /// Bound on their bytes; at least one record of `record_bytes_max`.
    pub partition_in_flight_bytes_max: usize,
    /// Largest value that is read.
    pub record_bytes_max: usize,
    /// Longest time to finish a revoked partition's records before they are given up.
    pub revoke_timeout: Duration,
    /// Time after which the broker aborts a transaction that stays open.
    pub transaction_timeout: Duration,
    /// Headers that the route honours.
    pub honour: Honour,
    /// Whether a text longer than the model's window is cut; otherwise its record is a dead letter.
    pub truncate: bool,
    /// Bound on pattern topics with metrics of their own.
    pub topics_max: usize,
    /// Properties of librdkafka, without those that the settings above decide.
    pub client: BTreeMap<String, Secret<String>>,
    /// Sources of the properties that do not stand in the file.
    pub client_sources: BTreeMap<String, ClientSource>,
    /// Name of this process among several.
    pub instance: String,
    /// Whether the name was configured: a later process may then have the same name.
    pub instance_given: bool,
}

/// Bound on the rest of a record: its key, its headers, and the headers added here.
const BESIDE_BYTES_MAX: usize = 64 << 10;

impl KafkaRoute {
    /// Largest record that is written: key, headers and value together.
    pub fn written_bytes_max(&self) -> usize {
        self.record_bytes_max + BESIDE_BYTES_MAX
    }

    /// Prefix of its transactional ids; the consumer's number follows. A later producer with the same id
    /// fences the earlier one.
    pub fn transactional_id(&self) -> String {
        format!("{}-{}-{}", self.group, self.name, self.instance)
    }
}

/// Input topics of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaInput {
    /// These topics.
    Topics(Vec<String>),
    /// Every topic whose name matches; begins with `^`.
    Pattern(String),
}

/// Guarantee for a record when something fails between reading and committing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Output and offset are in one transaction: the output is visible once, whatever fails.
    ExactlyOnce,
    /// The offset is committed after the output is acknowledged: the output may be written again.
    AtLeastOnce,
}

impl Delivery {
    /// Both guarantees.
    pub const ALL: [Delivery; 2] = [Delivery::ExactlyOnce, Delivery::AtLeastOnce];

    /// The name in configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

/// Headers that the route honours. Anyone who may write to the topic can set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Honour {
    /// `model`: another configured model.
    pub model: bool,
    /// `priority`: another class.
    pub priority: bool,
    /// `deadline-ms`: the time after which the score is worthless.
    pub deadline: bool,
}

/// Source of a property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSource {
    /// A file that holds it.
    File(String),
    /// An environment variable.
    Environment(String),
}
