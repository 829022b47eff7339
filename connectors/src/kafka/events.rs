//! Events of the consumer: assignments, revocations and statistics.

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

use super::deliveries::Told;
use super::statistics::Statistics;

/// A change of the assignment. The group waits for its answer, so that records in flight can finish first.
#[derive(Clone)]
pub enum Change {
    /// Assigned partitions.
    Assign(TopicPartitionList),
    /// Revoked partitions; `lost` if the group has already assigned them to another consumer.
    Revoke {
        /// The partitions.
        partitions: TopicPartitionList,
        /// Whether a commit would be too late.
        lost: bool,
    },
}

/// Events that are not handled yet; the client's `poll` adds them, on the pump's thread.
pub struct Events {
    /// Log lines and errors, as for any client.
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

    /// The oldest change that is not answered.
    pub fn next_change(&self) -> Option<Change> {
        self.changes.lock().front().cloned()
    }

    /// Removes the oldest change after its answer.
    pub fn answered(&self) {
        self.changes.lock().pop_front();
    }

    /// The newest statistics, once.
    pub fn take_statistics(&self) -> Option<Statistics> {
        self.statistics.lock().take()
    }

    /// From now on changes are answered at once, because a closing consumer has nothing in flight.
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

/// Tells the group that a change is done. An error means that the client is being closed.
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
