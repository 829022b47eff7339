//! Positions that go back without a seek of the consumer: the log was truncated or restored, or its topic was
//! created again. The following records are new ones, whatever their offsets. They are read, and the reset is
//! logged and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;
use tracing::warn;

use super::identity::{Remade, TOPICS_MAX, noted};
use super::in_flight_records::Position;
use super::native::{TopicId, beside};
use super::partition::Reset;
use super::partition_ids::PartitionId;
use super::pump::Pump;
use super::trouble::Trouble;
use penstock_config::Delivery;
use penstock_telemetry::metrics::ResetReason;

/// Timeout of one request to the group's coordinator.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Longest wait for an answer before a decision that needs it, and the polling interval.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// Interval between checks of partitions that have begun.
const VOUCH_AGAIN: Duration = Duration::from_millis(100);

/// Partitions remembered across clients.
const REMEMBERED_MAX: usize = 1 << 16;

/// Topics and positions that a consumer read before its clients were created again. The broker forgets a
/// group's positions when it deletes a topic.
#[derive(Default)]
pub struct Remembered(Mutex<BTreeMap<(String, i32), Read>>);

/// One partition.
#[derive(Clone, Copy, Debug)]
struct Read {
    id: TopicId,
    committed: Option<i64>,
}

impl Remembered {
    fn add(&self, topic: &str, partition: i32, read: Read) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED_MAX {
            // The loss costs a log line and a count only.
            all.clear();
        }
        all.insert((topic.to_owned(), partition), read);
    }

    fn take(&self, topic: &str, partition: i32) -> Option<Read> {
        self.0.lock().remove(&(topic.to_owned(), partition))
    }
}

impl Pump {
    /// Remembers the read positions for the next pump.
    pub fn remember(&self) {
        for place in self.inside.assigned() {
            self.remember_of(place);
        }
    }

    /// Remembers a revoked partition, which may come back.
    pub(super) fn remember_of(&self, place: PartitionId) {
        let source = self.inside.places.source(place);
        let committed = self.inside.partition(place).and_then(|one| one.committed);
        if let Some(id) = self.identities.id(&source.topic) {
            let read = Read { id, committed };
            self.remembered.add(&source.topic, source.partition, read);
        }
    }

    /// Handles answers about topic ids, asks again when due, and compares the committed positions.
    pub(super) fn identify(&mut self) -> Result<(), Trouble> {
        self.hear()?;
        let now = Instant::now();
        if self.identities.is_due(self.writer.is_open(), now) {
            self.ask(now);
        }
        // Partitions that arrive together begin one after the other.
        if now >= self.vouch_at {
            self.vouch_at = now + VOUCH_AGAIN;
            self.vouch()?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Trouble> {
        let heard = self.identities.listen(&self.route.name);
        // New clients have no memory of the old topic, which this one would continue with: its leader epoch,
        // its partitions, its first offset.
        heard.map_err(|Remade { topic, was, is }| {
            Trouble::Restart(format!(
                "input topic {topic} was deleted and made anew (its id was {was} and is {is}): it is read from its beginning, and \
                 what was read of the old one and not committed is gone with it"
            ))
        })
    }

    /// Asks first for topics with records to commit; the others follow in turns.
    fn ask(&mut self, now: Instant) {
        let uncommitted = self.inside.uncommitted();
        let name = |place: PartitionId| self.inside.places.source(place).topic.clone();
        let mut topics: BTreeSet<String> = uncommitted.iter().map(|position| name(position.place)).collect();
        topics.extend(self.inside.went_back().map(name));
        let more = self.inside.places.topics_after(&self.asked_last, TOPICS_MAX);
        self.asked_last = more.last().cloned().unwrap_or_default();
        topics.extend(more);
        if !topics.is_empty() {
            let topics: Vec<String> = topics.into_iter().collect();
            self.identities.ask(self.writer.share(), &topics, now);
        }
    }

    /// Waits briefly for an answer to a new question.
    fn hear_now(&mut self) -> Result<(), Trouble> {
        let begun = Instant::now();
        self.progress.doing("asking for the ids of the topics");
        while !self.identities.heard_since(begun) && begun.elapsed() < ANSWER_MAX {
            self.hear()?;
            if self.identities.is_free() {
                self.ask(Instant::now());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the records to commit are of the known topics.
    pub(super) fn may_commit(&mut self) -> bool {
        let positions = self.inside.uncommitted();
        let topic = |position: &Position| self.inside.places.source(position.place).topic.as_str();
        let fresh = self.identities.vouch(positions.iter().map(topic), Instant::now());
        fresh
            && positions
                .iter()
                .all(|position| self.inside.is_vouched(position.place))
    }

    /// Commits at the last opportunity; a reset of a position aborts instead.
    pub(super) fn commit_now(&mut self) -> Result<(), Trouble> {
        if self.writer.is_open() {
            self.hear_now()?;
            self.vouch()?;
            if self.inside.has_resets() {
                return Err(Trouble::Abort("a position has gone back".into()));
            }
        }
        self.commit()
    }

    /// Checks whether new partitions begin at a position of their present topic.
    fn vouch(&mut self) -> Result<(), Trouble> {
        let identities = &self.identities;
        let unsure = self.inside.unvouched(|topic| identities.is_settled(topic));
        if unsure.is_empty() {
            return Ok(());
        }
        let failed = |e| Trouble::Restart(format!("what is committed cannot be told: {e}"));
        self.progress.doing("looking at what is committed");
        // The client has asked the same before it began.
        let committed = self
            .consumer
            .committed_offsets(self.inside.places.list(unsure.iter().copied()), ASK_MAX)
            .map_err(failed)?;
        for (element, beside) in committed.elements().iter().zip(beside(&committed)) {
            element.error().map_err(failed)?;
            let (topic, partition) = (element.topic(), element.partition());
            let Some(place) = self.inside.places.find(topic, partition) else {
                continue;
            };
            let before = self.remembered.take(topic, partition);
            // A position without metadata tells only that it was set.
            let (was, from) = match element.offset() {
                Offset::Offset(position) => (beside.note.as_deref().and_then(noted), Some(position)),
                _ => (before.map(|read| read.id), before.and_then(|read| read.committed)),
            };
            let is = self.identities.id(topic);
            let remade = was.is_some_and(|was| is.is_some_and(|is| is != was));
            self.inside.vouch(place, from, beside.leader_epoch, remade);
        }
        Ok(())
    }

    /// Restarts the partitions that were found. In a transaction all others restart too, because it is
    /// aborted as a whole.
    pub(super) fn settle(&mut self) -> Result<(), Trouble> {
        if !self.inside.has_resets() {
            return Ok(());
        }
        // For a recreated topic this is no reset of its own positions.
        if self.inside.went_back().next().is_some() {
            self.hear_now()?;
        }
        if self.writer.is_open() && self.route.delivery == Delivery::ExactlyOnce {
            let aborts = self.aborts;
            self.abort()?;
            // No record was refused.
            self.aborts = aborts;
            self.rewind(&self.inside.assigned())?;
        } else {
            self.seek_back(&self.inside.resets())?;
        }
        // The broker's positions are beyond the ones that now count.
        self.commit()
    }

    /// Logs and counts a reset of a partition.
    pub(super) fn tell_reset(&self, place: PartitionId, reset: Reset, to: Offset) {
        let source = self.inside.places.source(place);
        let (reason, from) = match reset {
            Reset::WentBack { from, .. } => (ResetReason::WentBack, Some(from)),
            Reset::Remade { from } => (ResetReason::Remade, from),
            Reset::Unsure => return,
        };
        source.metrics.reset(reason);
        let shown = |position: Option<i64>| position.map_or_else(|| "none".into(), |at| at.to_string());
        let to = match to {
            Offset::Offset(position) => position.to_string(),
            _ => "the beginning".into(),
        };
        warn!(
            route = self.route.name,
            topic = source.topic,
            partition = source.partition,
            from = shown(from),
            to,
            reason = reason.name(),
            "the position has gone back: what comes are other records, and they are read"
        );
    }
}
