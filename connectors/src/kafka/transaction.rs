//! Atomic writes: outputs, dead letters and the input's positions.
//!
//! Exactly once, they are one transaction. At least once, the positions are committed after every earlier
//! record is acknowledged. Every wait has a bound; after it the route begins anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::call_with_timeout::{Stuck, TimedCalls};
use super::client_shutdown::ClientShutdown;
use super::deliveries::{Deliveries, Refused, Undelivered};
use super::produce::Partitions;
use super::progress::Progress;
use super::trouble::Trouble;
use penstock_config::Delivery;

/// Timeout of one client call, which continues when it is called again.
const CALL_MAX: Duration = Duration::from_secs(5);

/// Time after which a call counts as one that never returns.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Interval between two calls that fail at once.
const CALL_AGAIN: Duration = Duration::from_millis(50);

/// Polling interval of acknowledgements.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// The producer of a route.
pub struct Writer {
    pub(super) producer: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
    apart: TimedCalls,
    progress: Arc<Progress>,
    pub(super) partitions: Partitions,
    pub(super) delivery: Delivery,
    /// Longest time for repeating a call, and for waiting for acknowledgements.
    pub(super) patience: Duration,
    /// Time after which the broker aborts a transaction and fences its producer.
    timeout: Duration,
    open: Option<Open>,
}

/// Records sent since the last commit.
#[derive(Clone, Copy)]
struct Open {
    since: Instant,
    records: usize,
}

impl Writer {
    /// Takes over the transactional id; the open transaction of an earlier producer is aborted.
    pub fn open(
        producer: ClientShutdown<BaseProducer<Deliveries>>,
        partitions: Partitions,
        delivery: Delivery,
        (patience, timeout): (Duration, Duration),
        progress: Arc<Progress>,
    ) -> Result<Writer, Trouble> {
        let name = format!("kafka-{}-apart", producer.context().told.route());
        let apart =
            TimedCalls::start(name).map_err(|e| Trouble::Restart(format!("no thread can be had: {e}")))?;
        let writer = Writer {
            producer: Arc::new(producer),
            apart,
            progress,
            partitions,
            delivery,
            patience,
            timeout,
            open: None,
        };
        if delivery == Delivery::ExactlyOnce {
            writer.again("init_transactions", |producer| {
                producer.init_transactions(CALL_MAX)
            })?;
        }
        Ok(writer)
    }

    /// True when a commit is due, by the age or the number of sent records.
    pub fn due(&self, interval: Duration, records_max: usize) -> bool {
        self.open
            .is_some_and(|open| open.records >= records_max || open.since.elapsed() >= interval)
    }

    /// Partitions of the output topics, as of the start.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// The producer, for a question that may outlast a turn.
    pub fn share(&self) -> Arc<ClientShutdown<BaseProducer<Deliveries>>> {
        Arc::clone(&self.producer)
    }

    /// True when sent records are uncommitted.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Time since the oldest uncommitted record was sent.
    pub fn open_for(&self) -> Option<Duration> {
        self.open.map(|open| open.since.elapsed())
    }

    /// Begins a transaction before its first record.
    pub(super) fn begin(&mut self) -> Result<(), Trouble> {
        self.opened()?.records += 1;
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Open, Trouble> {
        if self.open.is_none() && self.delivery == Delivery::ExactlyOnce {
            self.again("begin_transaction", Producer::begin_transaction)?;
        }
        Ok(self.open.get_or_insert_with(|| Open {
            since: Instant::now(),
            records: 0,
        }))
    }

    /// Commits all sent records, possibly none, and the input's positions. Returns the time since the first
    /// of them was sent.
    pub fn commit<C: ConsumerContext + 'static>(
        &mut self,
        consumer: Arc<ClientShutdown<BaseConsumer<C>>>,
        positions: TopicPartitionList,
    ) -> Result<Duration, Trouble> {
        let began = self.opened()?.since;
        match self.delivery {
            Delivery::ExactlyOnce => {
                let lost = || Trouble::Restart("the consumer has left its group".into());
                // Read anew each time. The broker refuses positions of an earlier generation, so a consumer
                // that missed a rebalance cannot commit.
                let group = consumer.group_metadata().ok_or_else(lost)?;
                self.again("send_offsets_to_transaction", move |producer| {
                    producer.send_offsets_to_transaction(&positions, &group, CALL_MAX)
                })?;
                self.acknowledged()?;
                self.again("commit_transaction", |producer| {
                    producer.commit_transaction(CALL_MAX)
                })?;
            }
            Delivery::AtLeastOnce => {
                self.acknowledged()?;
                let name = "committing offsets";
                self.progress.doing(name);
                // The client waits for the group's coordinator without a bound.
                let call = move || consumer.commit(&positions, CommitMode::Sync);
                let listen = || self.producer.poll(LOOK);
                self.apart
                    .call(SILENCE_MAX, call, listen)
                    .map_err(|Stuck| stuck(name))?
                    .map_err(|e| Trouble::Abort(format!("the offsets could not be committed: {e}")))?;
            }
        }
        self.open = None;
        Ok(began.elapsed())
    }

    /// Aborts all records since the last commit, if possible. Returns the time since the first of them was
    /// sent.
    pub fn abort(&mut self) -> Result<Duration, Trouble> {
        let began = self.began();
        if self.delivery == Delivery::AtLeastOnce {
            // Without transactions sent records cannot be undone. Records under way are waited for, so that a
            // failure is not credited to a later record.
            let settled = self.emptied();
            self.producer.context().take_undelivered();
            self.open = None;
            return settled.map(|()| began.elapsed());
        }
        if self.open.is_none() {
            return Ok(Duration::ZERO);
        }
        // The client's own abort never serves delivery reports, and cannot end while any is outstanding. It
        // waits for the end of this purge and of its own.
        let purged = PurgeConfig::default().queue().inflight().non_blocking();
        self.producer.purge(purged);
        self.emptied()?;
        self.producer.context().take_undelivered();
        self.again("abort_transaction", |producer| {
            producer.abort_transaction(CALL_MAX)
        })?;
        self.open = None;
        Ok(began.elapsed())
    }

    /// Records that the broker refused for their content since the last call.
    pub fn take_refused(&self) -> Vec<Refused> {
        self.producer.context().take_refused()
    }

    fn began(&self) -> Instant {
        self.open.map_or_else(Instant::now, |open| open.since)
    }

    /// Waits until the broker has acknowledged all sent records. The client's commit waits for that as well,
    /// but polls every 100 ms.
    pub(super) fn acknowledged(&self) -> Result<(), Trouble> {
        self.emptied()?;
        self.producer
            .context()
            .take_undelivered()
            .map_or(Ok(()), |undelivered| Err(refused(&undelivered)))
    }

    /// An undelivered record, if one is known.
    pub(super) fn producer_trouble(&self) -> Option<Undelivered> {
        self.producer.poll(Duration::ZERO);
        self.producer.context().take_undelivered()
    }

    fn emptied(&self) -> Result<(), Trouble> {
        self.progress.doing("waiting for acknowledgements");
        let since = Instant::now();
        while self.producer.in_flight_count() > 0 {
            if since.elapsed() > self.patience {
                let left = self.producer.in_flight_count();
                return Err(Trouble::Restart(format!(
                    "{left} records were not acknowledged within {:?}",
                    self.patience
                )));
            }
            self.producer.poll(LOOK);
        }
        Ok(())
    }

    /// Calls until it succeeds, fails for good, or `patience` is over.
    fn again<F>(&self, name: &'static str, call: F) -> Result<(), Trouble>
    where
        F: Fn(&BaseProducer<Deliveries>) -> KafkaResult<()> + Send + Sync + 'static,
    {
        let since = Instant::now();
        let call = Arc::new(call);
        self.progress.doing(name);
        loop {
            let (producer, once) = (Arc::clone(&self.producer), Arc::clone(&call));
            // The client's events are polled during the call.
            let listen = || self.producer.poll(LOOK);
            let called = self.apart.call(SILENCE_MAX, move || once(&producer), listen);
            let failed = match called {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(KafkaError::Transaction(failed))) => failed,
                Ok(Err(KafkaError::Flush(code))) => {
                    return Err(Trouble::Abort(format!("{name} failed: {code}")));
                }
                Ok(Err(other)) => return Err(Trouble::Restart(format!("{name} failed: {other}"))),
                Err(Stuck) => return Err(stuck(name)),
            };
            let why = || format!("{name} failed: {failed}");
            // If the transaction was open for longer than its timeout, the broker has most likely aborted it.
            let timed_out = self.open.is_some_and(|open| open.since.elapsed() >= self.timeout);
            if failed.is_fatal() && is_fenced(failed.code()) && !timed_out {
                return Err(Trouble::Fatal(why()));
            }
            // For example, the end of a transaction that the broker never began, for lack of rights.
            if failed.is_fatal() {
                return Err(Trouble::Restart(why()));
            }
            if failed.txn_requires_abort() {
                let cause = self.producer.context().take_undelivered();
                return Err(cause.as_ref().map_or_else(|| Trouble::Abort(why()), refused));
            }
            if !failed.is_retriable() || since.elapsed() > self.patience {
                return Err(Trouble::Restart(why()));
            }
            self.producer.poll(CALL_AGAIN);
        }
    }
}

/// Reports a client that hangs. The next client's start aborts its transaction.
fn stuck(call: &str) -> Trouble {
    Trouble::Restart(format!("{call} has not returned within {SILENCE_MAX:?}"))
}

/// Whether another producer has the transactional id.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId
    )
}

/// Consequence of an undelivered record.
pub(super) fn refused(undelivered: &Undelivered) -> Trouble {
    let Undelivered { topic, code } = undelivered;
    let why = format!("topic {topic} does not take records: {code}{}", remedy(*code));
    match code {
        // The topic was created again with fewer partitions; new clients ask for their number.
        RDKafkaErrorCode::UnknownPartition => Trouble::Restart(why),
        _ => Trouble::Abort(why),
    }
}

/// Remedy for a refusal.
pub fn remedy(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::TopicAuthorizationFailed => "; allow this user to write it",
        Code::UnknownTopicOrPartition | Code::UnknownTopic => "; create it",
        Code::UnknownPartition => "; it has fewer partitions than it had",
        Code::MessageSizeTooLarge => {
            "; raise its max.message.bytes, and message.max.bytes where that is under [kafka.client]; where its records \
             are small, keep batch.size below both"
        }
        Code::MessageBatchTooLarge => "; raise its segment.bytes",
        Code::InvalidRecord => {
            "; it validates them: their time, and in a compacted topic that there is a key"
        }
        Code::InvalidTimestamp => "; a record's own time is kept: widen its message.timestamp limits",
        _ => "",
    }
}
