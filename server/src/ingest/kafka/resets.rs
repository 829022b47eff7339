//! Positions that go back without a seek of ours: the log was cut off or restored, or its topic was made anew. What
//! comes then are other records, whatever their offsets. They are read, and it is said and counted.

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
use crate::respond::kafka::Trouble;
use penstock_config::Delivery;
use penstock_telemetry::metrics::ResetReason;

/// One question to the group's coordinator.
const ASK_MAX: Duration = Duration::from_secs(10);

/// How long an answer is waited for before something is decided that hangs on it, and one look for it.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// Between two looks at partitions that have begun.
const VOUCH_AGAIN: Duration = Duration::from_millis(100);

/// Partitions that are remembered from clients to clients.
const REMEMBERED_MAX: usize = 1 << 16;

/// What a consumer read before its clients were made anew: the topics, and what was committed of them. The broker
/// forgets a group's positions when it deletes a topic.
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
            // What is lost is a line in the log, and a count.
            all.clear();
        }
        all.insert((topic.to_owned(), partition), read);
    }

    fn take(&self, topic: &str, partition: i32) -> Option<Read> {
        self.0.lock().remove(&(topic.to_owned(), partition))
    }
}

impl Pump {
    /// Keeps in mind what it read, for the pump that comes after it.
    pub fn remember(&self) {
        for place in self.inside.assigned() {
            self.remember_of(place);
        }
    }

    /// The same of a partition that goes, and may come back.
    pub(super) fn remember_of(&self, place: PartitionId) {
        let source = self.inside.places.source(place);
        let committed = self.inside.partition(place).and_then(|one| one.committed);
        if let Some(id) = self.identities.id(&source.topic) {
            let read = Read { id, committed };
            self.remembered.add(&source.topic, source.partition, read);
        }
    }

    /// Hears which topics it is that are read, asks again when it is time, and holds what is committed against it.
    pub(super) fn identify(&mut self) -> Result<(), Trouble> {
        self.hear()?;
        let now = Instant::now();
        if self.identities.is_due(self.writer.is_open(), now) {
            self.ask(now);
        }
        // Partitions that come together begin one after the other.
        if now >= self.vouch_at {
            self.vouch_at = now + VOUCH_AGAIN;
            self.vouch()?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Trouble> {
        let heard = self.identities.listen(&self.route.name);
        // New clients know nothing of the old topic, which this one goes on with: its leader's epoch, its number of
        // partitions, its first offset.
        heard.map_err(|Remade { topic, was, is }| {
            Trouble::Restart(format!(
                "input topic {topic} was deleted and made anew (its id was {was} and is {is}): it is read from its beginning, and \
                 what was read of the old one and not committed is gone with it"
            ))
        })
    }

    /// First of those topics of which something is to be committed; of the others, some at a time.
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
            self.identities.ask(self.consumer.share(), &topics, now);
        }
    }

    /// Waits for an answer to what is asked from now on, and not for long.
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

    /// Whether what is to be committed was read of the topics that are known.
    pub(super) fn may_commit(&mut self) -> bool {
        let positions = self.inside.uncommitted();
        let topic = |position: &Position| self.inside.places.source(position.place).topic.as_str();
        let fresh = self.identities.vouch(positions.iter().map(topic), Instant::now());
        fresh
            && positions
                .iter()
                .all(|position| self.inside.is_vouched(position.place))
    }

    /// Commits what is to be committed now or never.
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

    /// Looks whether partitions that have come begin at a position of the topic that they are of.
    fn vouch(&mut self) -> Result<(), Trouble> {
        let identities = &self.identities;
        let unsure = self.inside.unvouched(|topic| identities.is_settled(topic));
        if unsure.is_empty() {
            return Ok(());
        }
        let failed = |e| Trouble::Restart(format!("what is committed cannot be told: {e}"));
        self.progress.doing("looking at what is committed");
        // The client has asked that as well, or it would not have begun.
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
            // Of a position without a note nobody knows more than that somebody has set it.
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

    /// Carries out what was found: those partitions begin anew. So do the others where something was written in a
    /// transaction, which is undone as a whole.
    pub(super) fn settle(&mut self) -> Result<(), Trouble> {
        if !self.inside.has_resets() {
            return Ok(());
        }
        // Where the topic is another one, it is not its positions that have gone back.
        if self.inside.went_back().next().is_some() {
            self.hear_now()?;
        }
        if self.writer.is_open() && self.route.delivery == Delivery::ExactlyOnce {
            let aborts = self.aborts;
            self.abort()?;
            // Nobody has refused anything.
            self.aborts = aborts;
            self.rewind(&self.inside.assigned())?;
        } else {
            self.seek_back(&self.inside.resets())?;
        }
        // What the broker has lies after the positions that count now.
        self.commit()
    }

    /// Says and counts that a partition begins anew where it was not sought to.
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
