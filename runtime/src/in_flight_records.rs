//! In-flight records of a pump: the assigned partitions, their records, and the totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_core::{Assignment, BoundsError, Epoch, Flow, InFlight, InFlightBounds, OffsetError, ReadAhead};

use crate::chunk::{Answer, Judged, Mark, Taken};
use crate::partition::{Begin, Leaving, Partition, Reset};
use crate::partition_ids::{Origin, PartitionId, PartitionIds};
use crate::record::Record;
use crate::sink::NextPosition;
use crate::time::Time;

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
    /// Partitions whose first record is finished.
    ready: Vec<PartitionId>,
    /// Partitions whose positions went back, not yet settled.
    resets: BTreeMap<PartitionId, Reset>,
    time: Arc<dyn Time>,
}

impl InFlightRecords {
    /// No record in flight.
    pub fn new(
        bounds: InFlightBounds,
        pace: ReadAhead,
        places: PartitionIds,
        time: Arc<dyn Time>,
    ) -> Result<InFlightRecords, BoundsError> {
        Ok(InFlightRecords {
            places,
            partitions: BTreeMap::new(),
            assignment: Assignment::new(bounds.partition_records_max + SLACK),
            in_flight: InFlight::new(bounds)?,
            pace,
            limit: 1,
            ready: Vec::new(),
            resets: BTreeMap::new(),
            time,
        })
    }

    /// Begins a partition or a new epoch of it; its records in flight are dropped.
    pub fn begin(&mut self, place: PartitionId, begin: Begin) {
        let epoch = match begin {
            Begin::Anywhere | Begin::Remade => self.assignment.begin(place),
            Begin::At(position) => self.assignment.begin_at(place, position),
            Begin::Back(position) => self.assignment.begin_back_at(place, position),
        };
        self.in_flight.begin(place, self.time.nanos());
        self.resets.remove(&place);
        let origin = self.places.origin(place);
        let fresh = match self.partitions.remove(&place) {
            Some(before) => before.again(epoch, begin),
            None => Partition::new(epoch, begin, origin.metrics.lag(origin.partition)),
        };
        self.partitions.insert(place, fresh);
    }

    /// Ends a revoked partition.
    pub fn end(&mut self, place: PartitionId) {
        self.assignment.end(&place);
        self.in_flight.end(&place, self.time.nanos());
        self.partitions.remove(&place);
        self.resets.remove(&place);
        self.places.forget(place);
    }

    /// Takes a record. `None` if its partition is not assigned, so that its new consumer reads it. `None`
    /// also after its log went back; the record is read again once that is settled.
    pub fn take(&mut self, record: Record) -> Result<Option<Taken>, String> {
        let Some(place) = self.places.find(&record.topic, record.partition) else {
            return Ok(None);
        };
        if self.resets.contains_key(&place) {
            return Ok(None);
        }
        let (offset, leader_epoch) = (record.offset, record.leader_epoch);
        let epoch = match self.assignment.start(&place, offset) {
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
        let mark = Mark { place, epoch, offset };
        let taken = Taken::new(record, mark, self.places.origin(place));
        self.in_flight.start(&place, taken.bytes, self.time.nanos());
        if let Some(partition) = self.partitions.get_mut(&place) {
            partition.push(offset, leader_epoch, taken.bytes, taken.read_bytes());
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
            .filter(|place| is_known(&self.places.origin(*place).topic))
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
        mut each: impl FnMut(&Origin, (PartitionId, i64), Answer) -> Result<(), E>,
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
                self.in_flight.finish(&place, bytes, self.time.nanos());
                self.pace.finished(1);
                each(self.places.origin(place), (place, offset), answer)?;
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
                self.places.origin(position.place).metrics.committed(&left);
            }
        }
    }

    /// Positions by name, each with the identity of its log.
    pub fn list(
        &self,
        positions: &[Position],
        identity: impl Fn(&str) -> Option<String>,
    ) -> Vec<NextPosition> {
        let next = |position: &Position| {
            let origin = self.places.origin(position.place);
            let partition = self.partitions.get(&position.place);
            NextPosition {
                topic: origin.topic.clone(),
                partition: origin.partition,
                offset: position.offset,
                leader_epoch: partition.and_then(|one| one.left_leader),
                identity: identity(&origin.topic),
            }
        };
        positions.iter().map(next).collect()
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
        let now = self.time.nanos();
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
