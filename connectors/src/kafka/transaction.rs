//! Atomic writes: outputs, dead letters and the input's positions.
//!
//! Exactly once, they are one transaction. At least once, the positions are committed after every earlier
//! record is acknowledged. Every wait has a bound; after it the route begins anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::call_with_timeout::{Stuck, TimedCalls};
use super::client_shutdown::ClientShutdown;
use super::deliveries::{Deliveries, Undelivered, is_too_large};
use super::events::Events;
use super::native::set_leader_epoch;
use super::produce::Partitions;
use penstock_config::Delivery;
use penstock_runtime::progress::Progress;
use penstock_runtime::record::Outgoing;
use penstock_runtime::sink::{Aborted, Open, Positions, Refusal, Refused, Sink};
use penstock_runtime::trouble::Trouble;

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
    open: Option<Transaction>,
}

/// Records sent since the last commit.
#[derive(Clone, Copy)]
struct Transaction {
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

    /// The producer, for a question that may outlast a turn.
    pub fn share(&self) -> Arc<ClientShutdown<BaseProducer<Deliveries>>> {
        Arc::clone(&self.producer)
    }

    /// Begins a transaction before its first record.
    pub(super) fn begin(&mut self) -> Result<(), Trouble> {
        self.opened()?.records += 1;
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Transaction, Trouble> {
        if self.open.is_none() && self.delivery == Delivery::ExactlyOnce {
            self.again("begin_transaction", Producer::begin_transaction)?;
        }
        Ok(self.open.get_or_insert_with(|| Transaction {
            since: Instant::now(),
            records: 0,
        }))
    }

    fn commit_all<C: ConsumerContext + 'static>(
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

    fn abort_all(&mut self) -> Result<Duration, Trouble> {
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

impl Sink for Writer {
    type Group = Arc<ClientShutdown<BaseConsumer<Events>>>;

    fn write(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        self.send(record, from, number)
    }

    fn write_apart(&mut self, record: Outgoing, from: i32, number: usize) -> Result<(), Trouble> {
        self.acknowledged()?;
        self.send(record, from, number)?;
        self.acknowledged()
    }

    fn open(&self) -> Option<Open> {
        let open = self.open?;
        Some(Open {
            lasted: open.since.elapsed(),
            records: open.records,
        })
    }

    fn is_atomic(&self) -> bool {
        self.delivery == Delivery::ExactlyOnce
    }

    fn commit(&mut self, positions: Positions<Self::Group>) -> Result<Duration, Trouble> {
        let mut list = TopicPartitionList::with_capacity(positions.partitions.len());
        for next in positions.partitions {
            let mut element = list.add_partition(&next.topic, next.partition);
            // It fails for negative offsets only, which a position never has.
            let _ = element.set_offset(Offset::Offset(next.offset));
            if let Some(identity) = next.identity {
                element.set_metadata(identity);
            }
            set_leader_epoch(&mut list, next.leader_epoch);
        }
        self.commit_all(positions.group, list)
    }

    fn abort(&mut self) -> Result<Aborted, Trouble> {
        let lasted = self.abort_all()?;
        let refused = self.producer.context().take_refused().into_iter();
        let refused = refused.map(|(number, code)| Refused {
            number,
            refusal: Refusal {
                reason: format!("{code}{}", remedy(code)),
                too_large: is_too_large(code),
            },
        });
        Ok(Aborted {
            lasted,
            refused: refused.collect(),
        })
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
fn remedy(code: RDKafkaErrorCode) -> &'static str {
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
