//! The pump: one thread that reads records, has them scored and releases them in order. It makes every call
//! to its source and its sink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::{BoundsError, Flow, ReadAhead, Rejection};
use tracing::{info, warn};

use crate::chunk::{self, Chunk, Chunks, Fate};
use crate::commit_interval::CommitInterval;
use crate::consumer_lag::ConsumerLag;
use crate::in_flight_records::InFlightRecords;
use crate::partition_ids::{PartitionId, PartitionIds};
use crate::progress::{Hand, Progress};
use crate::ready::Ready;
use crate::record::Record;
use crate::record_codec::{Read, RecordCodec};
use crate::rejected_records::{AbortAnalysis, RejectedRecords};
use crate::retry_queue::RetryQueue;
use crate::route::Route;
use crate::scoring::{Finished, Scorer};
use crate::sink::{Open, Positions, Refusal, Sink};
use crate::source::{LogIdentity, Source};
use crate::stop::Stop;
use crate::time::Time;
use crate::trouble::Trouble;
use penstock_engine::service::InferenceService;
use penstock_telemetry::metrics::KafkaMetrics;

/// Records polled before finished work is collected.
const ROUND_MAX: usize = 512;

/// Polling timeouts: with records in flight, and without.
const LOOK_BUSY: Duration = Duration::from_millis(1);
const LOOK_IDLE: Duration = Duration::from_millis(100);

/// Shortest and longest wait before reading on after an abort.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_LAST: Duration = Duration::from_secs(5);

/// Share of a revoked partition's time within which records in flight should finish.
const AHEAD_SHARE: f64 = 0.5;

/// Smallest read-ahead: even a slow model should have one call running and one waiting.
const AHEAD_RECORDS_MIN: usize = 2 * chunk::TEXTS_MIN;

/// A running source and sink. The source is dropped first.
pub struct Pump<S, K, C> {
    pub(crate) route: Arc<Route>,
    /// Last topic of the last question.
    pub(crate) asked_last: String,
    /// Time of the next check of partitions that have begun.
    pub(crate) vouch_at: Instant,
    pub(crate) source: S,
    pub(crate) sink: K,
    pub(crate) inside: InFlightRecords,
    answers: Arc<RecordCodec>,
    pub(crate) chunks: Chunks,
    pub(crate) scorer: C,
    pub(crate) held: RetryQueue,
    pub(crate) refusals: RejectedRecords,
    pub(crate) ready: Ready,
    pub(crate) metrics: KafkaMetrics,
    pub(crate) behind: ConsumerLag,
    /// Lag in the last statistics.
    pub(crate) lag: u64,
    pub(crate) cadence: CommitInterval,
    pub(crate) progress: Arc<Progress>,
    pub(crate) time: Arc<dyn Time>,
    stop: Arc<Stop>,
    /// Aborts since the last commit.
    pub(crate) aborts: u32,
    /// Timestamps of records written since the last commit.
    times: Vec<i64>,
}

/// The server around a pump.
pub struct Surroundings {
    /// Readiness, limits and metrics.
    pub service: Arc<InferenceService>,
    /// Progress, for the watchdog.
    pub progress: Arc<Progress>,
    /// The stop of all pumps.
    pub stop: Arc<Stop>,
    /// The time.
    pub time: Arc<dyn Time>,
}

impl<S, K, C> Pump<S, K, C>
where
    S: Source + LogIdentity,
    K: Sink<Group = S::Group>,
    C: Scorer,
{
    /// A pump without records.
    pub fn new(
        route: Arc<Route>,
        (source, sink): (S, K),
        (answers, scorer): (Arc<RecordCodec>, C),
        surroundings: Surroundings,
    ) -> Result<Pump<S, K, C>, BoundsError> {
        let Surroundings {
            service,
            progress,
            stop,
            time,
        } = surroundings;
        let records_max = route.bounds.records_max;
        let ahead = route.revoke_timeout.mul_f64(AHEAD_SHARE);
        let ahead = ReadAhead::new(ahead, AHEAD_RECORDS_MIN, records_max, time.nanos());
        let (metrics, topics_max) = (Arc::clone(&service), route.topics_max);
        let places = PartitionIds::new(Box::new(move |name| metrics.metrics().topic(name, topics_max)));
        Ok(Pump {
            inside: InFlightRecords::new(route.bounds, ahead, places, Arc::clone(&time))?,
            chunks: Chunks::new(service.limits()),
            held: RetryQueue::default(),
            asked_last: String::new(),
            vouch_at: time.now(),
            // Records of one transaction: as many as make a commit due, and those that finish at once.
            refusals: RejectedRecords::new(route.commit_records_max + records_max),
            metrics: service.metrics().kafka(&route.name),
            behind: ConsumerLag::default(),
            cadence: CommitInterval::new(route.commit_interval, route.commit_interval_max),
            lag: 0,
            ready: Ready::new(service, &route.name),
            route,
            source,
            sink,
            answers,
            scorer,
            progress,
            time,
            stop,
            aborts: 0,
            times: Vec::new(),
        })
    }

    /// Ends the pump after an error: the open transaction counts as aborted, and positions are remembered.
    pub fn close(&mut self) {
        if let Some(open) = self.sink.open() {
            self.metrics.aborted(open.lasted);
        }
        self.remember();
    }

    /// Runs until the stop, and then releases records in flight. It recovers from aborts itself and returns
    /// other errors.
    pub fn run(&mut self) -> Result<(), Trouble> {
        while self.stop.by().is_none() {
            self.step()?;
        }
        self.finish()
    }

    /// One round, and the recovery from an abort in it.
    pub fn step(&mut self) -> Result<(), Trouble> {
        match self.turn() {
            Err(Trouble::Abort(why)) => self.begin_anew(&why),
            turned => turned,
        }
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
            open: self.sink.open().is_some(),
            behind: self.lag,
        }
    }

    /// Polls records while there is room.
    fn read(&mut self) -> Result<(), Trouble> {
        self.steer()?;
        if !self.inside.may_poll() || !self.scorer.has_room(2 * ROUND_MAX) {
            return self.collect(LOOK_BUSY);
        }
        let busy = self.inside.records() > 0 || self.sink.open().is_some();
        let mut patience = if busy { LOOK_BUSY } else { LOOK_IDLE };
        for _ in 0..ROUND_MAX {
            let Some(record) = self.source.poll(patience)? else {
                break;
            };
            self.take(record)?;
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
        if !pause.is_empty() {
            self.source.pause(&self.inside.places.list(pause))?;
        }
        if !resume.is_empty() {
            self.source.resume(&self.inside.places.list(resume))?;
        }
        Ok(())
    }

    /// Takes one record.
    fn take(&mut self, record: Record) -> Result<(), Trouble> {
        let Some(mut record) = self.inside.take(record).map_err(Trouble::Restart)? else {
            return Ok(());
        };
        record.kept = self.refusals.kept(record.mark.place, record.mark.offset);
        if let Some(refusal) = self.refusals.of(record.mark.place, record.mark.offset) {
            self.inside.answer(self.answers.refused(record, refusal));
            return Ok(());
        }
        match self.answers.read(record) {
            Read::Text(wish, text, record) => {
                if let Some(full) = self.chunks.add(&wish, record, text, self.time.nanos()) {
                    self.scorer.submit(full);
                }
            }
            Read::Judged(judged) => self.inside.answer(judged),
        }
        Ok(())
    }

    /// Hands over new records and due retries.
    pub(super) fn score(&mut self) {
        for chunk in self.chunks.take() {
            self.scorer.submit(chunk);
        }
        let (mut gone, now) = (false, self.time.now());
        for mut chunk in self.held.due(now, || self.scorer.has_room(ROUND_MAX)) {
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
            let now = self.time.now();
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
        let (sink, times) = (&mut self.sink, &mut self.times);
        let (inside, refusals) = (&mut self.inside, &mut self.refusals);
        inside.leave(|origin, (place, offset), answer| {
            times.extend(answer.record.timestamp);
            let number = refusals.sending(place, offset, answer.fate);
            if refusals.suspects(place, offset) {
                sink.write_apart(answer.record, origin.partition, number)
            } else {
                sink.write(answer.record, origin.partition, number)
            }
        })
    }

    /// Commits when it is due.
    fn commit_due(&mut self) -> Result<(), Trouble> {
        let (interval, records_max) = (self.cadence.interval(), self.route.commit_records_max);
        let is_due = |open: Open| open.records >= records_max || open.lasted >= interval;
        if self.sink.open().is_some_and(is_due) && self.may_commit() {
            self.commit()?;
        }
        Ok(())
    }

    /// Commits released records and the input positions.
    pub(super) fn commit(&mut self) -> Result<(), Trouble> {
        // A position never passes a record that has its answer and is not written.
        self.write()?;
        let positions = self.inside.uncommitted();
        if positions.is_empty() && self.sink.open().is_none() {
            return Ok(());
        }
        let took = self.sink.commit(Positions {
            group: self.source.group(),
            partitions: self.inside.list(&positions, |topic| self.source.identity(topic)),
        })?;
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
            if let Some(why) = self.source.outlived() {
                return Err(Trouble::Restart(why));
            }
        }
        let wait = AGAIN_FIRST
            .saturating_mul(1 << self.aborts.min(16))
            .min(AGAIN_LAST);
        self.progress.doing("waiting after an abort");
        self.stop.wait(self.time.now() + wait, &*self.time);
        Ok(())
    }

    /// Aborts the open transaction.
    pub(super) fn abort(&mut self) -> Result<(), Trouble> {
        self.times.clear();
        let aborted = self.sink.abort()?;
        self.metrics.aborted(aborted.lasted);
        let lesson = self.refusals.undone(&aborted.refused);
        if let Some((place, offset, refusal)) = &lesson.buried {
            return Err(self.no_way_out(*place, *offset, refusal));
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

    fn no_way_out(&self, place: PartitionId, offset: i64, refusal: &Refusal) -> Trouble {
        let origin = self.inside.places.origin(place);
        Trouble::Fatal(format!(
            "dead_letter topic {} does not take the dead letter of {}[{}] at offset {offset}: {}",
            self.route.dead_letter, origin.topic, origin.partition, refusal.reason
        ))
    }

    /// Releases records in flight within the time of the stop, and leaves the group.
    fn finish(&mut self) -> Result<(), Trouble> {
        let by = self.stop.by().unwrap_or_else(|| self.time.now());
        let mut left = Ok(());
        self.progress.doing("finishing what is inside");
        self.score();
        while left.is_ok() && self.scorer.out() > 0 && self.time.now() < by {
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
