//! Rebalances. The group waits while records in flight of revoked partitions finish.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use crate::partition::Begin;
use crate::partition_ids::PartitionId;
use crate::pump::Pump;
use crate::record::TopicPartition;
use crate::scoring::Scorer;
use crate::sink::Sink;
use crate::source::{Change, LogIdentity, SeekTo, Source, Target};
use crate::trouble::Trouble;

/// Polling interval for finished chunks.
const LOOK: Duration = Duration::from_millis(5);

impl<S, K, C> Pump<S, K, C>
where
    S: Source + LogIdentity,
    K: Sink<Group = S::Group>,
    C: Scorer,
{
    /// Applies the group's decision.
    pub(super) fn rebalance(&mut self) -> Result<(), Trouble> {
        while let Some(change) = self.source.next_change() {
            self.progress.doing("rebalancing");
            match &change {
                Change::Assign(partitions) => {
                    let places = self.inside.places.of(partitions);
                    for place in places {
                        self.inside.begin(place, Begin::Anywhere);
                    }
                    self.source.hurry();
                    self.metrics.assigned();
                    info!(route = self.route.name, partitions = %names(partitions), "assigned");
                    self.source.answer()?;
                    // The pump begins them unpaused, but a client may keep pauses of an earlier assignment.
                    self.source.resume(partitions)?;
                }
                Change::Revoke { partitions, lost } => {
                    let places = self.inside.places.of(partitions);
                    info!(route = self.route.name, partitions = %names(partitions), lost, "revoked");
                    let clean = self.let_go(&places, *lost);
                    // The partitions are gone whether or not the commit succeeded.
                    let answered = self.source.answer();
                    self.metrics.revoked(*lost);
                    let clean = clean?;
                    answered?;
                    if !clean {
                        self.rewind(&self.inside.assigned())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Finishes records in flight of these partitions within `revoke_timeout`, and drops the rest. Returns
    /// false if the open transaction had to be aborted, so that the other partitions must restart.
    fn let_go(&mut self, places: &[PartitionId], lost: bool) -> Result<bool, Trouble> {
        let kept = if lost && self.sink.open().is_some() {
            Err(Trouble::Abort("partitions were lost".into()))
        } else if lost {
            Ok(())
        } else {
            self.finish_partitions(places).and_then(|()| self.commit_now())
        };
        let clean = match kept {
            Ok(()) => Ok(true),
            Err(Trouble::Abort(why)) => {
                warn!(
                    route = self.route.name,
                    reason = why,
                    "aborting: what was not committed is read again"
                );
                self.abort().map(|()| false)
            }
            Err(other) => Err(other),
        };
        for place in places {
            self.remember_of(*place);
            self.inside.end(*place);
            self.refusals.forget(*place);
        }
        self.behind.forget_gone(&self.inside);
        self.source.make_room(|topic| self.inside.places.has_topic(topic));
        if self.inside.assigned().is_empty() {
            // Failures of these records are now their next consumer's; no event here would clear them.
            self.held.forget(&self.route.name);
            self.ready.writes(true);
        }
        clean
    }

    fn finish_partitions(&mut self, places: &[PartitionId]) -> Result<(), Trouble> {
        let by = self.time.now() + self.route.revoke_timeout;
        self.score();
        self.collect(Duration::ZERO)?;
        self.write()?;
        while !self.inside.is_empty(places) && self.time.now() < by {
            self.collect(LOOK)?;
            self.score();
            self.write()?;
        }
        Ok(())
    }

    /// Restarts these partitions at their committed positions, or at their reset positions; records in flight
    /// are dropped.
    pub(super) fn rewind(&mut self, places: &[PartitionId]) -> Result<(), Trouble> {
        self.chunks.take();
        self.held.clear(self.time.now());
        self.scorer.give_up();
        self.seek_back(places)
    }

    /// Like `rewind`, for some partitions while the others continue.
    pub(super) fn seek_back(&mut self, places: &[PartitionId]) -> Result<(), Trouble> {
        if places.is_empty() {
            return Ok(());
        }
        self.progress.doing("seeking back to what is committed");
        let all = self.inside.places.list(places.iter().copied());
        let mut found = BTreeMap::new();
        for committed in self.source.committed(&all)? {
            let TopicPartition { topic, partition } = &committed.partition;
            if let Some(place) = self.inside.places.find(topic, *partition) {
                found.insert(place, (committed.position, committed.leader_epoch));
            }
        }
        let mut targets = Vec::new();
        for place in places {
            let Some(partition) = self.inside.partition(*place) else {
                continue;
            };
            let found = found.get(place).copied();
            let reset = self.inside.reset(*place);
            let begin = partition.again_at(found.map(|(position, _)| position), reset);
            // Without a read record there is no position to seek back from.
            let seeks = partition.first.is_some() || reset.is_some();
            if let Some(to) = begin.target().filter(|_| seeks) {
                let is_found = |(position, _): &(i64, _)| to == SeekTo::Offset(*position);
                targets.push(Target {
                    partition: self.inside.places.name(*place),
                    to,
                    leader_epoch: found.filter(is_found).and_then(|(_, leader)| leader),
                });
                if let Some(reset) = reset {
                    self.tell_reset(*place, reset, to);
                    self.refusals.forget(*place);
                }
            }
            self.inside.begin(*place, begin);
        }
        self.source.resume(&all)?;
        if targets.is_empty() {
            return Ok(());
        }
        self.source.seek(&targets)
    }
}

/// Partitions for the log: `reviews[0,1,2]`.
fn names(partitions: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for TopicPartition { topic, partition } in partitions {
        topics
            .entry(topic.clone())
            .or_default()
            .push(partition.to_string());
    }
    let topics = topics
        .iter()
        .map(|(topic, numbers)| format!("{topic}[{}]", numbers.join(",")));
    topics.collect::<Vec<_>>().join(" ")
}
