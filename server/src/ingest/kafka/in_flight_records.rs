//! What a pump has read and not let go: the partitions that are ours, their records, and how much that is.

use std::collections::BTreeMap;

use penstock_core::{Assignment, BoundsError, Epoch, Flow, InFlight, InFlightBounds, OffsetError, ReadAhead};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::identity::note;
use super::native::{TopicId, leader_epoch, set_leader_epoch};
use super::partition::{Begin, Leaving, Partition, Reset};
use super::partition_ids::{PartitionId, PartitionIds, Source};
use super::work::{Answer, Judged, Mark, Taken};
use penstock_telemetry::clock::Clock;

/// Records of one partition that may be open beside those in flight: what slips through while it is paused.
const SLACK: usize = 1024;

/// A safe position of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The partition.
    pub place: PartitionId,
    /// The assignment that it belongs to.
    pub epoch: Epoch,
    /// The next record to be read by whoever comes after.
    pub offset: i64,
}

/// All records of a pump.
pub struct InFlightRecords {
    /// What the partitions are called.
    pub places: PartitionIds,
    partitions: BTreeMap<PartitionId, Partition>,
    assignment: Assignment<PartitionId>,
    in_flight: InFlight<PartitionId>,
    pace: ReadAhead,
    limit: usize,
    /// A larger value is not copied.
    value_max: usize,
    /// Partitions whose first record may leave.
    ready: Vec<PartitionId>,
    /// Partitions whose positions have gone back, which is not settled yet.
    resets: BTreeMap<PartitionId, Reset>,
    clock: Clock,
}

impl InFlightRecords {
    /// Nothing inside.
    pub fn new(
        bounds: InFlightBounds,
        pace: ReadAhead,
        value_max: usize,
        places: PartitionIds,
        clock: Clock,
    ) -> Result<InFlightRecords, BoundsError> {
        Ok(InFlightRecords {
            places,
            partitions: BTreeMap::new(),
            assignment: Assignment::new(bounds.partition_records_max + SLACK),
            in_flight: InFlight::new(bounds)?,
            pace,
            limit: 1,
            value_max,
            ready: Vec::new(),
            resets: BTreeMap::new(),
            clock,
        })
    }

    /// A partition is ours, or begins anew: what it had inside is given up.
    pub fn begin(&mut self, place: PartitionId, begin: Begin) {
        let epoch = match begin {
            Begin::Anywhere | Begin::Remade => self.assignment.begin(place),
            Begin::At(position) => self.assignment.begin_at(place, position),
            Begin::Back(position) => self.assignment.begin_back_at(place, position),
        };
        self.in_flight.begin(place, self.clock.now());
        self.resets.remove(&place);
        let source = self.places.source(place);
        let fresh = match self.partitions.remove(&place) {
            Some(before) => before.again(epoch, begin),
            None => Partition::new(epoch, begin, source.metrics.lag(source.partition)),
        };
        self.partitions.insert(place, fresh);
    }

    /// A partition is no longer ours.
    pub fn end(&mut self, place: PartitionId) {
        self.assignment.end(&place);
        self.in_flight.end(&place, self.clock.now());
        self.partitions.remove(&place);
        self.resets.remove(&place);
        self.places.forget(place);
    }

    /// Copies what is needed of a record. `None` where it belongs to no partition of ours, so that whoever has it reads
    /// it, or to one whose log has gone back: it is read again as soon as that is settled.
    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<Option<Taken>, String> {
        let Some(place) = self.places.find(message.topic(), message.partition()) else {
            return Ok(None);
        };
        if self.resets.contains_key(&place) {
            return Ok(None);
        }
        let epoch = match self.assignment.start(&place, message.offset()) {
            Ok(epoch) => epoch,
            Err(OffsetError::NotAssigned | OffsetError::Negative(_)) => return Ok(None),
            Err(OffsetError::WentBack { offset, last }) => {
                let (from, to) = (last + 1, offset);
                self.resets.insert(place, Reset::WentBack { from, to });
                return Ok(None);
            }
            // To skip it would be to lose it.
            Err(full @ OffsetError::Full { .. }) => return Err(full.to_string()),
        };
        let mark = Mark {
            place,
            epoch,
            offset: message.offset(),
        };
        let taken = Taken::copy(message, mark, self.places.source(place), self.value_max);
        self.in_flight.start(&place, taken.bytes, self.clock.now());
        if let Some(partition) = self.partitions.get_mut(&place) {
            partition.push(
                mark.offset,
                leader_epoch(message),
                taken.bytes,
                taken.read_bytes(),
            );
        }
        Ok(Some(taken))
    }

    /// What becomes of a record. One of an earlier epoch is forgotten: it is read again.
    pub fn answer(&mut self, judged: Judged) {
        let Mark { place, epoch, offset } = judged.mark;
        let current = self.partitions.get_mut(&place).filter(|p| p.epoch == epoch);
        if let Some(partition) = current {
            partition.answer(offset, judged.answer);
            if self.assignment.finish(&place, epoch, offset).is_some() {
                self.ready.push(place);
            }
        }
    }

    /// Partitions that have begun, and of which it is not known whether they did so at a position of their topic, as far
    /// as that can be told.
    pub fn unvouched(&self, is_known: impl Fn(&str) -> bool) -> Vec<PartitionId> {
        let unvouched = self.partitions.iter().filter(|(_, one)| one.is_to_vouch());
        unvouched
            .map(|(place, _)| *place)
            .filter(|place| is_known(&self.places.source(*place).topic))
            .collect()
    }

    /// Whether that is known of a partition.
    pub fn is_vouched(&self, place: PartitionId) -> bool {
        self.partitions.get(&place).is_none_or(|one| one.vouched)
    }

    /// The position that a partition has begun at, or the last that is remembered of it, is `from`, after a record of this
    /// leader; it is one of its topic, or of one before it that was `remade`.
    pub fn vouch(&mut self, place: PartitionId, from: Option<i64>, leader_epoch: Option<i32>, remade: bool) {
        let Some(partition) = self.partitions.get_mut(&place) else {
            return;
        };
        // By what is committed alone, nobody can tell whether the log still has what came before.
        partition.looked_at = true;
        partition.vouched = remade || partition.first.is_some();
        let other_leader = leader_epoch.is_some() && partition.first_leader > leader_epoch;
        let reset = match from.zip(partition.first) {
            _ if remade => Reset::Remade { from },
            Some((from, to)) if to < from => Reset::WentBack { from, to },
            _ if other_leader => Reset::Unsure,
            _ => return,
        };
        self.resets.insert(place, reset);
    }

    /// Whether a position has gone back that is not settled.
    pub fn has_resets(&self) -> bool {
        !self.resets.is_empty()
    }

    /// The partitions of which it has.
    pub fn resets(&self) -> Vec<PartitionId> {
        self.resets.keys().copied().collect()
    }

    /// How the position of a partition has gone back.
    pub fn reset(&self, place: PartitionId) -> Option<Reset> {
        self.resets.get(&place).copied()
    }

    /// Partitions whose log has.
    pub fn went_back(&self) -> impl Iterator<Item = PartitionId> {
        let went_back = |(place, reset): (&PartitionId, &Reset)| {
            matches!(reset, Reset::WentBack { .. }).then_some(*place)
        };
        self.resets.iter().filter_map(went_back)
    }

    /// Whether a record that is at work is still ours.
    pub fn is_current(&self, mark: Mark) -> bool {
        self.assignment.epoch(&mark.place) == Some(mark.epoch)
    }

    /// Lets records go, each partition's in order, as far as they have answers.
    pub fn leave<E>(
        &mut self,
        mut each: impl FnMut(&Source, (PartitionId, i64), Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(place) = self.ready.pop() {
            let Some(partition) = self.partitions.get_mut(&place) else {
                continue;
            };
            while let Some(Leaving {
                offset,
                bytes,
                answer,
            }) = partition.pop()
            {
                self.in_flight.finish(&place, bytes, self.clock.now());
                self.pace.finished(1);
                each(self.places.source(place), (place, offset), answer)?;
            }
        }
        Ok(())
    }

    /// The positions that are safe and not committed.
    pub fn uncommitted(&self) -> Vec<Position> {
        let uncommitted = self.assignment.uncommitted();
        let position = |(place, epoch, offset): (&PartitionId, _, _)| Position {
            place: *place,
            epoch,
            offset,
        };
        uncommitted.map(position).collect()
    }

    /// The broker has them.
    pub fn committed(&mut self, positions: &[Position]) {
        for position in positions {
            self.assignment
                .committed(&position.place, position.epoch, position.offset);
            if let Some(partition) = self.partitions.get_mut(&position.place) {
                let left = partition.committed(position.offset);
                self.places.source(position.place).metrics.committed(&left);
            }
        }
    }

    /// Positions as the client wants them, each with a note of the topic that it is a position of.
    pub fn list(&self, positions: &[Position], id: impl Fn(&str) -> Option<TopicId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for position in positions {
            let source = self.places.source(position.place);
            let mut element = list.add_partition(&source.topic, source.partition);
            // It fails for offsets below zero alone, which a position never is.
            let _ = element.set_offset(Offset::Offset(position.offset));
            if let Some(id) = id(&source.topic) {
                element.set_metadata(note(id));
            }
            let partition = self.partitions.get(&position.place);
            set_leader_epoch(&mut list, partition.and_then(|one| one.left_leader));
        }
        list
    }

    /// The partitions that are ours.
    pub fn assigned(&self) -> Vec<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    /// One of them.
    pub fn partition(&self, place: PartitionId) -> Option<&Partition> {
        self.partitions.get(&place)
    }

    /// The same, to be changed.
    pub fn partition_mut(&mut self, place: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&place)
    }

    /// True when nothing of these partitions is inside.
    pub fn is_empty(&self, places: &[PartitionId]) -> bool {
        let of = |place: &PartitionId| self.partitions.get(place);
        places.iter().filter_map(of).all(Partition::is_empty)
    }

    /// Records inside.
    pub fn records(&self) -> usize {
        self.in_flight.records()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.in_flight.bytes()
    }

    /// Whether to ask for a record.
    pub fn may_poll(&mut self) -> bool {
        let may = self.in_flight.may_poll();
        if !may {
            self.pace.limit_reached();
        }
        may
    }

    /// Partitions to pause and to resume. To be asked for in every round.
    pub fn flow(&mut self) -> Flow<PartitionId> {
        let now = self.clock.now();
        self.limit = self.pace.limit(now);
        self.in_flight.limit(self.limit);
        self.in_flight.flow(now)
    }

    /// How many records may be inside now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> usize {
        self.in_flight.paused()
    }
}
