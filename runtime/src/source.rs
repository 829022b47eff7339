//! The seam to a stream that is read: partitioned logs, shared among the members of a group.
//!
//! A pump owns its source and calls it from one thread. Every call has a bound of its own.

use std::time::Duration;

use crate::record::{Record, TopicPartition};
use crate::trouble::Trouble;

/// A member of a group that reads partitions of logs.
pub trait Source {
    /// Membership as of now, which a sink checks at a commit. A member that missed a rebalance cannot commit.
    type Group;

    /// The next record; waits at most `wait`. Records of one partition come in the order of their offsets.
    fn poll(&mut self, wait: Duration) -> Result<Option<Record>, Trouble>;

    /// The oldest change of the assignment that is not answered. Records of revoked partitions may still
    /// finish until then.
    fn next_change(&mut self) -> Option<Change>;

    /// Answers the oldest change, for which the group waits. It counts as answered even if this fails.
    fn answer(&mut self) -> Result<(), Trouble>;

    /// Stops reading partitions.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble>;

    /// Reads partitions again; those that are not paused are left as they are.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), Trouble>;

    /// Committed positions, of those partitions that have one.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Committed>, Trouble>;

    /// Reads on from these positions. Records read before are not returned any more.
    fn seek(&mut self, targets: &[Target]) -> Result<(), Trouble>;

    /// Membership, read anew at each commit.
    fn group(&self) -> Self::Group;

    /// New figures about the partitions, if there are any since the last call.
    fn statistics(&mut self) -> Option<LogStatistics>;

    /// Reason why aborting once more would not help, such as an output topic that lost partitions.
    fn outlived(&mut self) -> Option<String>;
}

/// Identity of the logs of a source. A log may be replaced by another one under its name, or lose its end; its
/// positions then mean other records.
pub trait LogIdentity {
    /// Whether the identities of logs should be asked for. While records are to be committed (`busy`), they
    /// are asked for more often.
    fn is_due(&self, busy: bool) -> bool;

    /// Asks for the identities of these topics; the answer comes later.
    fn ask(&mut self, topics: &[String]);

    /// Asks for the identities of these topics and waits briefly for the answer.
    fn ask_now(&mut self, topics: &[String]) -> Result<(), Trouble>;

    /// Handles an answer, if one came. Fails if a log was replaced.
    fn hear(&mut self) -> Result<(), Trouble>;

    /// Requests a question soon, after an event that a replaced log may cause.
    fn hurry(&mut self);

    /// Whether positions of these topics may be committed: each log was, very recently, the known one.
    fn vouches<'a>(&mut self, topics: impl Iterator<Item = &'a str>) -> bool;

    /// Whether the identity of this topic's log is final.
    fn is_settled(&self, topic: &str) -> bool;

    /// Identity of a topic's log, in a form that can be stored with a position.
    fn identity(&self, topic: &str) -> Option<String>;

    /// Start of each of these partitions, compared with the log it was committed for.
    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Start>, Trouble>;

    /// Remembers a partition that is given up, because it may come back.
    fn remember(&mut self, partition: &TopicPartition, committed: Option<i64>);

    /// Bounds the topics that are no longer read.
    fn make_room(&mut self, is_read: impl Fn(&str) -> bool);
}

/// A change of the assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Assigned partitions.
    Assign(Vec<TopicPartition>),
    /// Revoked partitions.
    Revoke {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether the group has already assigned them to another member, so that a commit would be too late.
        lost: bool,
    },
}

/// A committed position.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The partition.
    pub partition: TopicPartition,
    /// Offset of the next record to read.
    pub position: i64,
    /// Leader epoch of the record before it.
    pub leader_epoch: Option<i32>,
}

/// Target of a seek.
#[derive(Clone, Debug)]
pub struct Target {
    /// The partition.
    pub partition: TopicPartition,
    /// The position.
    pub to: SeekTo,
    /// Leader epoch of the record before it, so that a log without that record is noticed.
    pub leader_epoch: Option<i32>,
}

/// Position of a seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// This offset.
    Offset(i64),
    /// The first record of the log.
    Beginning,
}

/// Start of a partition.
#[derive(Clone, Debug)]
pub struct Start {
    /// The partition.
    pub partition: TopicPartition,
    /// Committed or remembered position.
    pub from: Option<i64>,
    /// Leader epoch of the record before it.
    pub leader_epoch: Option<i32>,
    /// Whether the position belongs to an earlier log of this name.
    pub remade: bool,
}

/// Figures of a source.
#[derive(Clone, Debug, Default)]
pub struct LogStatistics {
    /// Whether the source is connected.
    pub connected: bool,
    /// Its partitions.
    pub partitions: Vec<(TopicPartition, PartitionStatistics)>,
}

/// Figures of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStatistics {
    /// Records that are fetched and not polled.
    pub prefetched: i64,
    /// Next offset to fetch; negative while unknown.
    pub next_offset: i64,
    /// End of the log, as far as it is committed; negative while unknown.
    pub end: i64,
    /// Start of the log; negative while unknown.
    pub beginning: i64,
    /// Whether the partition is fetched.
    pub is_fetched: bool,
}
