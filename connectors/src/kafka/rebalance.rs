//! Rebalances. The group waits while records in flight of revoked partitions finish.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::events::Change;
use super::native::{beside, set_leader_epoch};
use super::partition::Begin;
use super::partition_ids::PartitionId;
use super::pump::Pump;
use super::trouble::Trouble;

/// Timeout of one request to the group's coordinator.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Polling interval for finished chunks.
const LOOK: Duration = Duration::from_millis(5);

impl Pump {
    /// Applies the group's decision.
    pub(super) fn rebalance(&mut self) -> Result<(), Trouble> {
        while let Some(change) = self.consumer.context().next_change() {
            let failed = |e| Trouble::Restart(format!("the assignment could not be changed: {e}"));
            self.progress.doing("rebalancing");
            match &change {
                Change::Assign(partitions) => {
                    let places = self.inside.places.of(partitions);
                    for place in places {
                        self.inside.begin(place, Begin::Anywhere);
                    }
                    self.identities.hurry();
                    self.metrics.assigned();
                    info!(route = self.route.name, partitions = %names(partitions), "assigned");
                    self.consumer.answer(&change).map_err(failed)?;
                    // The pump begins them unpaused, but the client keeps pauses of an earlier assignment.
                    self.consumer.resume(partitions).map_err(failed)?;
                }
                Change::Revoke { partitions, lost } => {
                    let places = self.inside.places.of(partitions);
                    info!(route = self.route.name, partitions = %names(partitions), lost, "revoked");
                    let clean = self.let_go(&places, *lost);
                    // The partitions are gone whether or not the commit succeeded.
                    let answered = self.consumer.answer(&change);
                    self.metrics.revoked(*lost);
                    let clean = clean?;
                    answered.map_err(failed)?;
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
        let kept = if lost && self.writer.is_open() {
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
        self.identities
            .make_room(|topic| self.inside.places.has_topic(topic));
        if self.inside.assigned().is_empty() {
            // Failures of these records are now their next consumer's; no event here would clear them.
            self.held.forget(&self.route.name);
            self.ready.writes(true);
        }
        clean
    }

    fn finish_partitions(&mut self, places: &[PartitionId]) -> Result<(), Trouble> {
        let by = Instant::now() + self.route.revoke_timeout;
        self.score();
        self.collect(Duration::ZERO)?;
        self.write()?;
        while !self.inside.is_empty(places) && Instant::now() < by {
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
        self.held.clear(Instant::now());
        self.scorer.give_up();
        self.seek_back(places)
    }

    /// Like `rewind`, for some partitions while the others continue.
    pub(super) fn seek_back(&mut self, places: &[PartitionId]) -> Result<(), Trouble> {
        if places.is_empty() {
            return Ok(());
        }
        let failed = |e| Trouble::Restart(format!("the partitions could not be sought back: {e}"));
        self.progress.doing("seeking back to what is committed");
        let committed = self
            .consumer
            .committed_offsets(self.inside.places.list(places.iter().copied()), ASK_MAX)
            .map_err(failed)?;
        let beside = beside(&committed);
        let mut found = BTreeMap::new();
        for (element, beside) in committed.elements().iter().zip(beside) {
            // Starting too early would write records again.
            element.error().map_err(failed)?;
            let place = self.inside.places.find(element.topic(), element.partition());
            if let (Some(place), Offset::Offset(position)) = (place, element.offset()) {
                found.insert(place, (position, beside.leader_epoch));
            }
        }
        let mut targets = TopicPartitionList::new();
        for place in places {
            let Some(partition) = self.inside.partition(*place) else {
                continue;
            };
            let found = found.get(place).copied();
            let reset = self.inside.reset(*place);
            let begin = partition.again_at(found.map(|(position, _)| position), reset);
            // Without a read record there is no position to seek back from.
            let seeks = partition.first.is_some() || reset.is_some();
            if let Some(target) = begin.offset().filter(|_| seeks) {
                let source = self.inside.places.source(*place);
                // It fails for negative offsets only.
                let _ = targets.add_partition_offset(&source.topic, source.partition, target);
                let is_found = |(position, _): &(i64, _)| target == Offset::Offset(*position);
                set_leader_epoch(
                    &mut targets,
                    found.filter(is_found).and_then(|(_, leader)| leader),
                );
                if let Some(reset) = reset {
                    self.tell_reset(*place, reset, target);
                    self.refusals.forget(*place);
                }
            }
            self.inside.begin(*place, begin);
        }
        let all = self.inside.places.list(places.iter().copied());
        self.consumer.resume(&all).map_err(failed)?;
        if targets.count() > 0 {
            let sought = self.consumer.seek_partitions(targets, ASK_MAX).map_err(failed)?;
            for element in sought.elements() {
                element.error().map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Partitions for the log: `reviews[0,1,2]`.
fn names(partitions: &TopicPartitionList) -> String {
    let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for element in partitions.elements() {
        let numbers = topics.entry(element.topic().to_owned()).or_default();
        numbers.push(element.partition().to_string());
    }
    let topics = topics
        .iter()
        .map(|(topic, numbers)| format!("{topic}[{}]", numbers.join(",")));
    topics.collect::<Vec<_>>().join(" ")
}
