//! What the consumer tells beside records: partitions that come and go, and its statistics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::debug;

use super::statistics::Statistics;
use crate::respond::kafka::Told;

/// A change of the partitions that are ours. The group waits for our answer, so that what is in flight can
/// be finished first.
#[derive(Clone)]
pub enum Change {
    /// These come.
    Assign(TopicPartitionList),
    /// These go; `lost` when the group has already given them to somebody else.
    Revoke {
        /// Which.
        partitions: TopicPartitionList,
        /// Whether a commit would come too late.
        lost: bool,
    },
}

/// What the consumer told and nobody has taken yet; its `poll` calls it, on the pump's thread.
pub struct Events {
    /// Like any client.
    pub told: Told,
    route: String,
    changes: Mutex<VecDeque<Change>>,
    statistics: Mutex<Option<Statistics>>,
    closing: AtomicBool,
}

impl Events {
    /// Nothing told yet.
    pub fn new(route: &str) -> Events {
        Events {
            told: Told::new(route),
            route: route.to_owned(),
            changes: Mutex::default(),
            statistics: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// The oldest change of the assignment that has no answer yet.
    pub fn next_change(&self) -> Option<Change> {
        self.changes.lock().front().cloned()
    }

    /// That one has its answer.
    pub fn answered(&self) {
        self.changes.lock().pop_front();
    }

    /// The newest statistics, once.
    pub fn take_statistics(&self) -> Option<Statistics> {
        self.statistics.lock().take()
    }

    /// From now on changes are answered at once: whoever closes the consumer has nothing in flight any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, line: &str) {
        self.told.log(level, fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.told.error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        match Statistics::read(json) {
            Ok(statistics) => *self.statistics.lock() = Some(statistics),
            Err(e) => debug!(route = self.route, error = %e, "statistics that cannot be read"),
        }
    }
}

impl ConsumerContext for Events {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Events>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assign = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let _ = answer(consumer, assign, partitions);
            return;
        }
        let partitions = partitions.clone();
        self.changes.lock().push_back(if assign {
            Change::Assign(partitions)
        } else {
            let lost = consumer.assignment_lost();
            Change::Revoke { partitions, lost }
        });
    }
}

/// Tells the group that a change is carried out. An error means that the client is being closed.
pub fn answer(
    consumer: &BaseConsumer<Events>,
    assign: bool,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    match (assign, cooperative) {
        (true, true) => consumer.incremental_assign(partitions),
        (true, false) => consumer.assign(partitions),
        (false, true) => consumer.incremental_unassign(partitions),
        (false, false) => consumer.unassign(),
    }
}
