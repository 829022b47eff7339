//! The pump: one thread that reads records, has them scored and releases them in order. It makes every call
//! to Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::{Flow, Rejection};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tracing::{info, warn};

use super::client::{Reader, changed};
use super::commit_interval::CommitInterval;
use super::consumer_lag::ConsumerLag;
use super::identity::Identities;
use super::in_flight_records::InFlightRecords;
use super::partition_ids::PartitionId;
use super::progress::{Hand, Progress};
use super::ready::Ready;
use super::record_codec::{Read, RecordCodec};
use super::rejected_records::{AbortAnalysis, RejectedRecords};
use super::resets::Remembered;
use super::retry_queue::RetryQueue;
use super::scoring::{Finished, Scorer};
use super::stop::Stop;
use super::transaction::{Writer, remedy};
use super::trouble::Trouble;
use super::work::{Chunk, Chunks, Fate};
use penstock_config::{KafkaInput, KafkaRoute};
use penstock_telemetry::clock::Clock;
use penstock_telemetry::metrics::KafkaMetrics;

/// Records polled before finished work is collected.
const ROUND_MAX: usize = 512;

/// Polling timeouts: with records in flight, and without.
const LOOK_BUSY: Duration = Duration::from_millis(1);
const LOOK_IDLE: Duration = Duration::from_millis(100);

/// Shortest and longest wait before reading on after an abort.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_LAST: Duration = Duration::from_secs(5);

/// A running consumer and producer.
pub struct Pump {
    pub(super) route: Arc<KafkaRoute>,
    /// A question belongs to the producer, so it is dropped first.
    pub(super) identities: Identities,
    pub(super) remembered: Arc<Remembered>,
    /// Last topic of the last question.
    pub(super) asked_last: String,
    /// Time of the next check of partitions that have begun.
    pub(super) vouch_at: Instant,
    pub(super) consumer: Reader,
    pub(super) writer: Writer,
    pub(super) inside: InFlightRecords,
    pub(super) answers: Arc<RecordCodec>,
    pub(super) chunks: Chunks,
    pub(super) scorer: Scorer,
    pub(super) held: RetryQueue,
    pub(super) refusals: RejectedRecords,
    pub(super) ready: Ready,
    pub(super) metrics: KafkaMetrics,
    pub(super) behind: ConsumerLag,
    /// Lag in the last statistics.
    pub(super) lag: u64,
    pub(super) cadence: CommitInterval,
    pub(super) progress: Arc<Progress>,
    pub(super) clock: Clock,
    pub(super) stop: Arc<Stop>,
    /// Aborts since the last commit.
    pub(super) aborts: u32,
    /// Timestamps of records written since the last commit.
    pub(super) times: Vec<i64>,
}

impl Pump {
    /// Runs until the stop, and then releases records in flight. It recovers from aborts itself and returns
    /// other errors.
    pub fn run(&mut self) -> Result<(), Trouble> {
        while self.stop.by().is_none() {
            match self.turn() {
                Err(Trouble::Abort(why)) => self.begin_anew(&why)?,
                turned => turned?,
            }
        }
        self.finish()
    }

    /// One round from poll to commit.
    fn turn(&mut self) -> Result<(), Trouble> {
        self.progress.doing("reading and scoring");
        self.read()?;
        self.rebalance()?;
        self.identify()?;
        self.settle()?;
        self.score();
        self.collect(Duration::ZERO)?;
        self.write()?;
        self.commit_due()?;
        self.watch();
        self.progress.turned(self.hand());
        Ok(())
    }

    fn hand(&self) -> Hand {
        Hand {
            records: self.inside.records(),
            calls: self.scorer.out(),
            held: self.held.len(),
            paused: self.inside.paused(),
            open: self.writer.is_open(),
            behind: self.lag,
        }
    }

    /// Polls records while there is room.
    fn read(&mut self) -> Result<(), Trouble> {
        self.steer()?;
        if !self.inside.may_poll() || !self.scorer.has_room(2 * ROUND_MAX) {
            return self.collect(LOOK_BUSY);
        }
        let busy = self.inside.records() > 0 || self.writer.is_open();
        let mut patience = if busy { LOOK_BUSY } else { LOOK_IDLE };
        for _ in 0..ROUND_MAX {
            match self.consumer.poll(patience) {
                None => break,
                Some(Err(e)) => {
                    self.identities.hurry();
                    consumer_error(&e, &self.route, || self.consumer.client().fatal_error())?;
                }
                Some(Ok(message)) => {
                    let read = Reading {
                        inside: &mut self.inside,
                        answers: &self.answers,
                        refusals: &self.refusals,
                        chunks: &mut self.chunks,
                        scorer: &mut self.scorer,
                        clock: self.clock,
                    };
                    read.take(&message)?;
                }
            }
            if !self.inside.may_poll() {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    /// Pauses partitions that have been full for too long, and resumes them.
    fn steer(&mut self) -> Result<(), Trouble> {
        let Flow { pause, resume } = self.inside.flow();
        self.chunks.size(self.inside.limit());
        let failed = |e: KafkaError| Trouble::Restart(format!("partitions could not be paused: {e}"));
        if !pause.is_empty() {
            self.consumer
                .pause(&self.inside.places.list(pause))
                .map_err(failed)?;
        }
        if !resume.is_empty() {
            self.consumer
                .resume(&self.inside.places.list(resume))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Hands over new records and due retries.
    pub(super) fn score(&mut self) {
        for chunk in self.chunks.take() {
            self.scorer.submit(chunk);
        }
        let (mut gone, now) = (false, Instant::now());
        for mut chunk in self.held.due(|| self.scorer.has_room(ROUND_MAX)) {
            chunk.records.retain(|record| self.inside.is_current(record.mark));
            chunk.texts = chunk
                .records
                .iter()
                .map(|record| self.answers.text_again(record))
                .collect();
            if chunk.records.is_empty() {
                gone |= self.held.back(chunk.held, false, now, &self.route.name);
            } else {
                self.scorer.submit(chunk);
            }
        }
        self.held_no_more(gone);
    }

    /// Resets readiness when the last record of the retry queue has gone, since no later score would do so.
    fn held_no_more(&mut self, gone: bool) {
        if gone && self.held.is_empty() && self.scorer.out() == 0 {
            self.held.forget(&self.route.name);
        }
    }

    /// Collects finished chunks; waits at most `timeout` for the first.
    pub(super) fn collect(&mut self, timeout: Duration) -> Result<(), Trouble> {
        let mut next = self.scorer.next(timeout);
        let mut gone = false;
        while let Some(Finished {
            judged,
            tried,
            held,
            lost,
        }) = next
        {
            let scored = judged
                .iter()
                .any(|judged| judged.answer.fate == Fate::InferenceResponse);
            for record in judged {
                self.inside.answer(record);
            }
            // Records dropped meanwhile are read again.
            let is_current = |chunk: &Chunk| chunk.records.iter().any(|one| self.inside.is_current(one.mark));
            let held = held.filter(|(chunk, _)| is_current(chunk));
            let now = Instant::now();
            let done = tried.filter(|_| held.is_none());
            gone |= self.held.back(done, scored, now, &self.route.name);
            if let Some((chunk, why)) = held
                && why != Rejection::ShuttingDown
            {
                self.held.hold(chunk, &why, now, &self.route.name);
            }
            if lost > 0 {
                return Err(Trouble::Abort(format!(
                    "{lost} records were lost inside the server"
                )));
            }
            next = self.scorer.next(Duration::ZERO);
        }
        self.held_no_more(gone);
        Ok(())
    }

    /// Releases records, in order within each partition.
    pub(super) fn write(&mut self) -> Result<(), Trouble> {
        let (writer, times) = (&mut self.writer, &mut self.times);
        let (inside, refusals) = (&mut self.inside, &mut self.refusals);
        inside.leave(|source, (place, offset), answer| {
            times.extend(answer.record.timestamp);
            let number = refusals.sending(place, offset, answer.fate);
            if refusals.suspects(place, offset) {
                writer.send_apart(answer.record, source.partition, number)
            } else {
                writer.send(answer.record, source.partition, number)
            }
        })
    }

    /// Commits when it is due.
    fn commit_due(&mut self) -> Result<(), Trouble> {
        let due = self
            .writer
            .due(self.cadence.interval(), self.route.commit_records_max);
        if due && self.may_commit() {
            self.commit()?;
        }
        Ok(())
    }

    /// Commits released records and the input positions.
    pub(super) fn commit(&mut self) -> Result<(), Trouble> {
        // A position never passes a record that has its answer and is not written.
        self.write()?;
        let positions = self.inside.uncommitted();
        if positions.is_empty() && !self.writer.is_open() {
            return Ok(());
        }
        let list = self.inside.list(&positions, |topic| self.identities.id(topic));
        let took = self.writer.commit(self.consumer.share(), list)?;
        self.inside.committed(&positions);
        self.refusals.committed(&positions);
        self.progress.moved();
        self.metrics.committed(took);
        self.metrics.acknowledged(&self.times);
        self.times.clear();
        if std::mem::take(&mut self.aborts) > 0 {
            info!(route = self.route.name, "committed again");
        }
        self.ready.writes(true);
        Ok(())
    }

    /// Aborts everything since the last commit, and reads it again.
    fn begin_anew(&mut self, why: &str) -> Result<(), Trouble> {
        warn!(
            route = self.route.name,
            reason = why,
            attempt = self.aborts,
            "aborting: what was not committed is read again"
        );
        self.abort()?;
        self.rewind(&self.inside.assigned())?;
        // A rebalance is normal; a second abort in a row is trouble.
        if self.aborts > 1 {
            self.ready.writes(false);
            // Records sent to a removed partition only time out.
            if let Some(changed) = changed(&self.consumer, self.writer.partitions()) {
                return Err(Trouble::Restart(changed));
            }
        }
        let wait = AGAIN_FIRST
            .saturating_mul(1 << self.aborts.min(16))
            .min(AGAIN_LAST);
        self.progress.doing("waiting after an abort");
        self.stop.wait(Instant::now() + wait);
        Ok(())
    }

    /// Aborts the open transaction.
    pub(super) fn abort(&mut self) -> Result<(), Trouble> {
        self.times.clear();
        let took = self.writer.abort()?;
        self.metrics.aborted(took);
        let lesson = self.refusals.undone(&self.writer.take_refused());
        if let Some((place, offset, code)) = lesson.buried {
            return Err(self.no_way_out(place, offset, code));
        }
        self.aborts += 1;
        if lesson.is_news() {
            // The next attempt leaves out the refused records, so this abort is no trouble.
            self.aborts = 0;
            let AbortAnalysis {
                suspected,
                refused,
                cut,
                ..
            } = lesson;
            warn!(
                route = self.route.name,
                suspected, refused, cut, "records are refused for what they contain"
            );
        }
        Ok(())
    }

    fn no_way_out(&self, place: PartitionId, offset: i64, code: RDKafkaErrorCode) -> Trouble {
        let source = self.inside.places.source(place);
        Trouble::Fatal(format!(
            "dead_letter topic {} does not take the dead letter of {}[{}] at offset {offset}: {code}{}",
            self.route.dead_letter,
            source.topic,
            source.partition,
            remedy(code)
        ))
    }

    /// Releases records in flight within the time of the stop, and leaves the group.
    fn finish(&mut self) -> Result<(), Trouble> {
        let by = self.stop.by().unwrap_or_else(Instant::now);
        let mut left = Ok(());
        self.progress.doing("finishing what is inside");
        self.score();
        while left.is_ok() && self.scorer.out() > 0 && Instant::now() < by {
            left = self.collect(LOOK_BUSY).and_then(|()| self.write());
            left = left.and_then(|()| self.identify());
            // A drain may take longer than a transaction.
            left = left.and_then(|()| self.commit_due());
        }
        self.scorer.give_up();
        let left = left.and_then(|()| self.commit_now());
        if let Err(Trouble::Abort(why)) = left {
            warn!(
                route = self.route.name,
                reason = why,
                "aborting: what was not committed is read again"
            );
            self.abort()?;
        } else {
            left?;
        }
        let unfinished = self.inside.records();
        info!(route = self.route.name, unfinished, "leaving the group");
        Ok(())
    }
}

/// State that taking a record changes; the record itself borrows the consumer.
struct Reading<'a> {
    inside: &'a mut InFlightRecords,
    answers: &'a RecordCodec,
    refusals: &'a RejectedRecords,
    chunks: &'a mut Chunks,
    scorer: &'a mut Scorer,
    clock: Clock,
}

impl Reading<'_> {
    fn take(self, message: &BorrowedMessage<'_>) -> Result<(), Trouble> {
        let Some(mut record) = self.inside.take(message).map_err(Trouble::Restart)? else {
            return Ok(());
        };
        record.kept = self.refusals.kept(record.mark.place, record.mark.offset);
        if let Some(code) = self.refusals.of(record.mark.place, record.mark.offset) {
            self.inside.answer(self.answers.refused(record, code));
            return Ok(());
        }
        match self.answers.read(message, record) {
            Read::Text(wish, text, record) => {
                if let Some(full) = self.chunks.add(&wish, record, text, self.clock.now()) {
                    self.scorer.submit(full);
                }
            }
            Read::Judged(judged) => self.inside.answer(judged),
        }
        Ok(())
    }
}

/// Classifies a consumer error. The client recovers from most by itself, and its own log has them. The code of a
/// fatal error says only that it is fatal; `cause` is the client's own account.
fn consumer_error(
    error: &KafkaError,
    route: &KafkaRoute,
    cause: impl FnOnce() -> Option<(RDKafkaErrorCode, String)>,
) -> Result<(), Trouble> {
    use RDKafkaErrorCode as Code;
    match error {
        // A topic of a pattern may be deleted; the group will then revoke it.
        KafkaError::MessageConsumption(Code::UnknownTopicOrPartition | Code::UnknownTopic)
            if matches!(route.input, KafkaInput::Pattern(_)) =>
        {
            Ok(())
        }
        KafkaError::MessageConsumptionFatal(code) => {
            let cause = cause().map_or_else(|| code.to_string(), |(code, why)| format!("{code}: {why}"));
            Err(Trouble::Fatal(format!("the consumer cannot go on: {cause}")))
        }
        KafkaError::MessageConsumption(
            code @ (Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed),
        ) => Err(Trouble::Restart(format!(
            "group {} cannot read its topics: {code}",
            route.group
        ))),
        _ => Ok(()),
    }
}
