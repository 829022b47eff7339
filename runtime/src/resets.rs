//! Positions that go back without a seek of the consumer: the log was truncated or restored, or its topic was
//! created again. The following records are new ones, whatever their offsets. They are read, and the reset is
//! logged and counted.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::warn;

use crate::in_flight_records::Position;
use crate::partition::Reset;
use crate::partition_ids::PartitionId;
use crate::pump::Pump;
use crate::record::TopicPartition;
use crate::scoring::Scorer;
use crate::sink::Sink;
use crate::source::{LogIdentity, SeekTo, Source};
use crate::trouble::Trouble;
use penstock_telemetry::metrics::ResetReason;

/// Topics of one question, in addition to those with records to commit.
const TOPICS_MAX: usize = 100;

/// Interval between checks of partitions that have begun.
const VOUCH_AGAIN: Duration = Duration::from_millis(100);

impl<S, K, C> Pump<S, K, C>
where
    S: Source + LogIdentity,
    K: Sink<Group = S::Group>,
    C: Scorer,
{
    /// Remembers the read positions for the next pump.
    pub fn remember(&mut self) {
        for place in self.inside.assigned() {
            self.remember_of(place);
        }
    }

    /// Remembers a revoked partition, which may come back.
    pub(super) fn remember_of(&mut self, place: PartitionId) {
        let committed = self.inside.partition(place).and_then(|one| one.committed);
        self.source.remember(&self.inside.places.name(place), committed);
    }

    /// Handles answers about topic ids, asks again when due, and compares the committed positions.
    pub(super) fn identify(&mut self) -> Result<(), Trouble> {
        self.source.hear()?;
        if self.source.is_due(self.sink.open().is_some()) {
            let topics = self.topics_to_ask();
            self.source.ask(&topics);
        }
        let now = self.time.now();
        // Partitions that arrive together begin one after the other.
        if now >= self.vouch_at {
            self.vouch_at = now + VOUCH_AGAIN;
            self.vouch()?;
        }
        Ok(())
    }

    /// Topics with records to commit come first; the others follow in turns.
    fn topics_to_ask(&mut self) -> Vec<String> {
        let uncommitted = self.inside.uncommitted();
        let name = |place: PartitionId| self.inside.places.origin(place).topic.clone();
        let mut topics: BTreeSet<String> = uncommitted.iter().map(|position| name(position.place)).collect();
        topics.extend(self.inside.went_back().map(name));
        let more = self.inside.places.topics_after(&self.asked_last, TOPICS_MAX);
        self.asked_last = more.last().cloned().unwrap_or_default();
        topics.extend(more);
        topics.into_iter().collect()
    }

    /// Waits briefly for an answer to a new question.
    fn hear_now(&mut self) -> Result<(), Trouble> {
        self.progress.doing("asking for the ids of the topics");
        let topics = self.topics_to_ask();
        self.source.ask_now(&topics)
    }

    /// Whether the records to commit are of the known topics.
    pub(super) fn may_commit(&mut self) -> bool {
        let positions = self.inside.uncommitted();
        let topic = |position: &Position| self.inside.places.origin(position.place).topic.as_str();
        let fresh = self.source.vouches(positions.iter().map(topic));
        fresh
            && positions
                .iter()
                .all(|position| self.inside.is_vouched(position.place))
    }

    /// Commits at the last opportunity; a reset of a position aborts instead.
    pub(super) fn commit_now(&mut self) -> Result<(), Trouble> {
        if self.sink.open().is_some() {
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
        let source = &self.source;
        let unsure = self.inside.unvouched(|topic| source.is_settled(topic));
        if unsure.is_empty() {
            return Ok(());
        }
        self.progress.doing("looking at what is committed");
        for start in self.source.starts(&self.inside.places.list(unsure))? {
            let TopicPartition { topic, partition } = &start.partition;
            if let Some(place) = self.inside.places.find(topic, *partition) {
                self.inside
                    .vouch(place, start.from, start.leader_epoch, start.remade);
            }
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
        if self.sink.open().is_some() && self.sink.is_atomic() {
            let aborts = self.aborts;
            self.abort()?;
            // No record was refused.
            self.aborts = aborts;
            self.rewind(&self.inside.assigned())?;
        } else {
            self.seek_back(&self.inside.resets())?;
        }
        // The broker's positions are beyond the ones that now count. An atomic sink has aborted everything else; any
        // other sink must not commit partitions whose start is not vouched for yet.
        if self.sink.is_atomic() || self.may_commit() {
            self.commit()?;
        }
        Ok(())
    }

    /// Logs and counts a reset of a partition.
    pub(super) fn tell_reset(&self, place: PartitionId, reset: Reset, to: SeekTo) {
        let origin = self.inside.places.origin(place);
        let (reason, from) = match reset {
            Reset::WentBack { from, .. } => (ResetReason::WentBack, Some(from)),
            Reset::Remade { from } => (ResetReason::Remade, from),
            Reset::Unsure => return,
        };
        origin.metrics.reset(reason);
        let shown = |position: Option<i64>| position.map_or_else(|| "none".into(), |at| at.to_string());
        let to = match to {
            SeekTo::Offset(position) => position.to_string(),
            SeekTo::Beginning => "the beginning".into(),
        };
        warn!(
            route = self.route.name,
            topic = origin.topic,
            partition = origin.partition,
            from = shown(from),
            to,
            reason = reason.name(),
            "the position has gone back: what comes are other records, and they are read"
        );
    }
}
