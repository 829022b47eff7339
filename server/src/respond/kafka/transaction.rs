//! What leaves together: outputs, dead letters and the input's positions, all of them or none.
//!
//! Exactly once, they are one transaction. At least once, the positions are committed when every record
//! before them has been acknowledged. Every wait has a bound; what exceeds it begins anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::Trouble;
use super::call_with_timeout::{Stuck, TimedCalls};
use super::client_shutdown::ClientShutdown;
use super::deliveries::{Deliveries, Refused, Undelivered};
use super::produce::Partitions;
use super::progress::Progress;
use penstock_config::Delivery;

/// One call of the client, which goes on where it was when it is called again.
const CALL_MAX: Duration = Duration::from_secs(5);

/// It may be late; later than this it is taken for one that never returns.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Between two calls that fail at once.
const CALL_AGAIN: Duration = Duration::from_millis(50);

/// One look at the acknowledgements.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// The producer's end of a route.
pub struct Writer {
    pub(super) producer: Arc<ClientShutdown<BaseProducer<Deliveries>>>,
    apart: TimedCalls,
    progress: Arc<Progress>,
    pub(super) partitions: Partitions,
    pub(super) delivery: Delivery,
    /// How long the same call is repeated, and acknowledgements are waited for.
    pub(super) patience: Duration,
    /// After which the broker itself undoes a transaction, and fences whoever wrote in it.
    timeout: Duration,
    open: Option<Open>,
}

/// What was sent since the last commit.
#[derive(Clone, Copy)]
struct Open {
    since: Instant,
    records: usize,
}

impl Writer {
    /// Takes the place of whoever wrote under the same transactional id before; what that one left open is
    /// undone.
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

    /// True when what was sent should be committed: by its age, or its number.
    pub fn due(&self, interval: Duration, records_max: usize) -> bool {
        self.open
            .is_some_and(|open| open.records >= records_max || open.since.elapsed() >= interval)
    }

    /// Of the topics that are written to, as they were when this began.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// True when something was sent and not committed.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How long ago the first record was sent that is not committed.
    pub fn open_for(&self) -> Option<Duration> {
        self.open.map(|open| open.since.elapsed())
    }

    /// A record is about to be sent.
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

    /// Makes everything that was sent visible, which may be nothing, and with it the positions of the input. Returns how long ago
    /// the first of it was sent.
    pub fn commit<C: ConsumerContext + 'static>(
        &mut self,
        consumer: Arc<ClientShutdown<BaseConsumer<C>>>,
        positions: TopicPartitionList,
    ) -> Result<Duration, Trouble> {
        let began = self.opened()?.since;
        match self.delivery {
            Delivery::ExactlyOnce => {
                let lost = || Trouble::Restart("the consumer has left its group".into());
                // Read anew each time: the broker refuses the positions of an earlier generation, which is
                // what keeps a consumer that slept through a rebalance from committing.
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
                // The client waits for the group's coordinator, however long it takes to answer.
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

    /// Undoes what was sent since the last commit, as far as it can be. Returns how long ago the first of it
    /// was sent.
    pub fn abort(&mut self) -> Result<Duration, Trouble> {
        let began = self.began();
        if self.delivery == Delivery::AtLeastOnce {
            // Sent is sent. What is still under way is waited for, so that its failure is not taken for
            // that of a record sent later.
            let settled = self.emptied();
            self.producer.context().take_undelivered();
            self.open = None;
            return settled.map(|()| began.elapsed());
        }
        if self.open.is_none() {
            return Ok(Duration::ZERO);
        }
        // The client's own abort never serves delivery reports, and cannot end while any is outstanding. It waits
        // for this purge's end as well as for that of its own.
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

    /// The records since the last look that the broker refused for what they contain.
    pub fn take_refused(&self) -> Vec<Refused> {
        self.producer.context().take_refused()
    }

    fn began(&self) -> Instant {
        self.open.map_or_else(Instant::now, |open| open.since)
    }

    /// Waits until the broker has all that was sent. The client's commit waits for that as well, but looks
    /// every 100 ms.
    pub(super) fn acknowledged(&self) -> Result<(), Trouble> {
        self.emptied()?;
        self.producer
            .context()
            .take_undelivered()
            .map_or(Ok(()), |undelivered| Err(refused(&undelivered)))
    }

    /// A record that the broker did not take, as far as that is known by now.
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
            // What the client has to say is heard while it is at it.
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
            // Where ours was open for longer than it may be, it is the broker that has undone it, as far as can be told
            // from here.
            let timed_out = self.open.is_some_and(|open| open.since.elapsed() >= self.timeout);
            if failed.is_fatal() && is_fenced(failed.code()) && !timed_out {
                return Err(Trouble::Fatal(why()));
            }
            // Such as the end of a transaction that the broker never let begin, for lack of rights.
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

/// Nothing can be asked of this client any more. What it had open is undone by the next one.
fn stuck(call: &str) -> Trouble {
    Trouble::Restart(format!("{call} has not returned within {SILENCE_MAX:?}"))
}

/// Whether somebody else has our transactional id.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId
    )
}

/// What follows from a record that the broker did not take.
pub(super) fn refused(undelivered: &Undelivered) -> Trouble {
    let Undelivered { topic, code } = undelivered;
    let why = format!("topic {topic} does not take records: {code}{}", remedy(*code));
    match code {
        // It was made anew with fewer; how many there are is asked when clients are made.
        RDKafkaErrorCode::UnknownPartition => Trouble::Restart(why),
        _ => Trouble::Abort(why),
    }
}

/// What would be right, to be said after a refusal.
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
