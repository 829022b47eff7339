//! In-flight records of a pump: the assigned partitions, their records, and the totals.

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

/// Records of one partition that may arrive while it is being paused.
const SLACK: usize = 1024;

/// A safe position of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The partition.
    pub place: PartitionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Offset of the next record to read.
    pub offset: i64,
}

/// All in-flight records of a pump.
pub struct InFlightRecords {
    /// Ids of the partitions.
    pub places: PartitionIds,
    partitions: BTreeMap<PartitionId, Partition>,
    assignment: Assignment<PartitionId>,
    in_flight: InFlight<PartitionId>,
    pace: ReadAhead,
    limit: usize,
    /// Largest value that is copied.
    value_max: usize,
    /// Partitions whose first record is finished.
    ready: Vec<PartitionId>,
    /// Partitions whose positions went back, not yet settled.
    resets: BTreeMap<PartitionId, Reset>,
    clock: Clock,
}

impl InFlightRecords {
    /// No record in flight.
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

    /// Begins a partition or a new epoch of it; its records in flight are dropped.
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

    /// Ends a revoked partition.
    pub fn end(&mut self, place: PartitionId) {
        self.assignment.end(&place);
        self.in_flight.end(&place, self.clock.now());
        self.partitions.remove(&place);
        self.resets.remove(&place);
        self.places.forget(place);
    }

    /// Copies a record. `None` if its partition is not assigned, so that its new consumer reads it. `None`
    /// also after its log went back; the record is read again once that is settled.
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
            // Skipping the record would lose it.
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

    /// Stores the answer of a record. An answer of an earlier epoch is dropped, because the record is read
    /// again.
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

    /// Partitions that have begun and whose start is not yet vouched for, as far as their topic's id is
    /// known.
    pub fn unvouched(&self, is_known: impl Fn(&str) -> bool) -> Vec<PartitionId> {
        let unvouched = self.partitions.iter().filter(|(_, one)| one.is_to_vouch());
        unvouched
            .map(|(place, _)| *place)
            .filter(|place| is_known(&self.places.source(*place).topic))
            .collect()
    }

    /// Whether the start of a partition is vouched for.
    pub fn is_vouched(&self, place: PartitionId) -> bool {
        self.partitions.get(&place).is_none_or(|one| one.vouched)
    }

    /// Vouches for a partition's start. `from` is its first or last remembered position, after a record of
    /// this leader. The position is of this topic, or of an earlier one that was `remade`.
    pub fn vouch(&mut self, place: PartitionId, from: Option<i64>, leader_epoch: Option<i32>, remade: bool) {
        let Some(partition) = self.partitions.get_mut(&place) else {
            return;
        };
        // The committed position alone does not tell whether the log still has the records before it.
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

    /// Whether a position went back and is not settled.
    pub fn has_resets(&self) -> bool {
        !self.resets.is_empty()
    }

    /// Partitions whose position went back.
    pub fn resets(&self) -> Vec<PartitionId> {
        self.resets.keys().copied().collect()
    }

    /// The reset of a partition.
    pub fn reset(&self, place: PartitionId) -> Option<Reset> {
        self.resets.get(&place).copied()
    }

    /// Partitions whose log went back.
    pub fn went_back(&self) -> impl Iterator<Item = PartitionId> {
        let went_back = |(place, reset): (&PartitionId, &Reset)| {
            matches!(reset, Reset::WentBack { .. }).then_some(*place)
        };
        self.resets.iter().filter_map(went_back)
    }

    /// Whether a record's epoch is current.
    pub fn is_current(&self, mark: Mark) -> bool {
        self.assignment.epoch(&mark.place) == Some(mark.epoch)
    }

    /// Releases finished records, in order within each partition.
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

    /// Safe positions that are not committed.
    pub fn uncommitted(&self) -> Vec<Position> {
        let uncommitted = self.assignment.uncommitted();
        let position = |(place, epoch, offset): (&PartitionId, _, _)| Position {
            place: *place,
            epoch,
            offset,
        };
        uncommitted.map(position).collect()
    }

    /// Records that these positions are committed.
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

    /// Positions as the client takes them, each with its topic's id as metadata.
    pub fn list(&self, positions: &[Position], id: impl Fn(&str) -> Option<TopicId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for position in positions {
            let source = self.places.source(position.place);
            let mut element = list.add_partition(&source.topic, source.partition);
            // It fails for negative offsets only, which a position never has.
            let _ = element.set_offset(Offset::Offset(position.offset));
            if let Some(id) = id(&source.topic) {
                element.set_metadata(note(id));
            }
            let partition = self.partitions.get(&position.place);
            set_leader_epoch(&mut list, partition.and_then(|one| one.left_leader));
        }
        list
    }

    /// The assigned partitions.
    pub fn assigned(&self) -> Vec<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    /// One assigned partition.
    pub fn partition(&self, place: PartitionId) -> Option<&Partition> {
        self.partitions.get(&place)
    }

    /// One assigned partition, mutable.
    pub fn partition_mut(&mut self, place: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&place)
    }

    /// True when these partitions have no record in flight.
    pub fn is_empty(&self, places: &[PartitionId]) -> bool {
        let of = |place: &PartitionId| self.partitions.get(place);
        places.iter().filter_map(of).all(Partition::is_empty)
    }

    /// Records in flight.
    pub fn records(&self) -> usize {
        self.in_flight.records()
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.in_flight.bytes()
    }

    /// Whether another record may be polled.
    pub fn may_poll(&mut self) -> bool {
        let may = self.in_flight.may_poll();
        if !may {
            self.pace.limit_reached();
        }
        may
    }

    /// Partitions to pause and to resume; called in every round.
    pub fn flow(&mut self) -> Flow<PartitionId> {
        let now = self.clock.now();
        self.limit = self.pace.limit(now);
        self.in_flight.limit(self.limit);
        self.in_flight.flow(now)
    }

    /// Present bound of records in flight.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Number of paused partitions.
    pub fn paused(&self) -> usize {
        self.in_flight.paused()
    }
}
