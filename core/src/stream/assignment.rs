//! The partitions of one consumer: an offset tracker for each, and an epoch for each time that it was
//! assigned. What finishes under an earlier epoch changes nothing: after a rebalance, or an aborted
//! transaction, its record is read again by whoever has the partition then. A log that goes back, because it
//! was cut off or made anew, begins an epoch as well: an offset then names another record.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::offsets::{OffsetError, OffsetTracker};

/// One assignment of one partition. No two are equal within a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// The partitions `P` that a consumer reads now.
#[derive(Debug)]
pub struct Assignment<P> {
    partitions: BTreeMap<P, Partition>,
    open_max: usize,
    epochs: u64,
}

#[derive(Debug)]
struct Partition {
    epoch: Epoch,
    tracker: OffsetTracker,
    /// Everything before it has finished.
    safe: Option<i64>,
    /// Position that the broker knows.
    committed: Option<i64>,
}

/// Where reading begins again when the log has gone back to `offset` and an abort would have sought back to `sought`:
/// what the broker has, or where the epoch began under which nothing is committed yet. What was read between the two is
/// there still, and is read again; the rest of what was read is gone.
pub fn position_after_going_back(offset: i64, sought: i64) -> i64 {
    sought.min(offset)
}

impl<P: Ord + Clone> Assignment<P> {
    /// No partition yet; none will have more than `open_max` open records.
    pub fn new(open_max: usize) -> Assignment<P> {
        Assignment {
            partitions: BTreeMap::new(),
            open_max,
            epochs: 0,
        }
    }

    /// Begins a new epoch of a partition with nothing open, whether it had one or not: it is assigned, and
    /// read from wherever the broker says.
    pub fn begin(&mut self, partition: P) -> Epoch {
        self.replace(partition, OffsetTracker::new(self.open_max), None)
    }

    /// The same, of a partition that is read from a known position on: it was sought back to what is committed.
    pub fn begin_at(&mut self, partition: P, position: i64) -> Epoch {
        self.replace(
            partition,
            OffsetTracker::starting_at(self.open_max, position),
            None,
        )
    }

    /// The same, after the log has gone back: the position is lower than what the broker knows, so it is to be
    /// committed before any record is.
    pub fn begin_back_at(&mut self, partition: P, position: i64) -> Epoch {
        let tracker = OffsetTracker::starting_at(self.open_max, position);
        self.replace(partition, tracker, Some(position))
    }

    fn replace(&mut self, partition: P, tracker: OffsetTracker, safe: Option<i64>) -> Epoch {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let fresh = Partition {
            epoch,
            tracker,
            safe,
            committed: None,
        };
        self.partitions.insert(partition, fresh);
        epoch
    }

    /// Ends the partition's epoch; true where it had one.
    pub fn end(&mut self, partition: &P) -> bool {
        self.partitions.remove(partition).is_some()
    }

    /// The epoch of a partition that is assigned.
    pub fn epoch(&self, partition: &P) -> Option<Epoch> {
        self.partitions.get(partition).map(|assigned| assigned.epoch)
    }

    /// Takes the next record of a partition; the epoch goes with the record until it has finished.
    pub fn start(&mut self, partition: &P, offset: i64) -> Result<Epoch, OffsetError> {
        let assigned = self
            .partitions
            .get_mut(partition)
            .ok_or(OffsetError::NotAssigned)?;
        assigned.tracker.start(offset)?;
        Ok(assigned.epoch)
    }

    /// Marks a record as done with, and returns the partition's new safe position where there is one. Under
    /// an earlier epoch it does nothing.
    ///
    /// # Panics
    ///
    /// Where the epoch is the present one and the record is not open: see [`OffsetTracker::finish`].
    pub fn finish(&mut self, partition: &P, epoch: Epoch, offset: i64) -> Option<i64> {
        let assigned = self.current(partition, epoch)?;
        let safe = assigned.tracker.finish(offset)?;
        assigned.safe = Some(safe);
        Some(safe)
    }

    /// The safe positions that are not committed yet, each with its epoch.
    pub fn uncommitted(&self) -> impl Iterator<Item = (&P, Epoch, i64)> {
        self.partitions.iter().filter_map(|(partition, assigned)| {
            let position = assigned.safe.filter(|safe| Some(*safe) > assigned.committed)?;
            Some((partition, assigned.epoch, position))
        })
    }

    /// The broker has taken a position of [`Assignment::uncommitted`]. Under an earlier epoch it does nothing.
    pub fn committed(&mut self, partition: &P, epoch: Epoch, position: i64) {
        if let Some(assigned) = self.current(partition, epoch) {
            assigned.committed = assigned.committed.max(Some(position));
        }
    }

    /// The partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = &P> {
        self.partitions.keys()
    }

    /// Open records of all partitions.
    pub fn open(&self) -> usize {
        self.partitions
            .values()
            .map(|assigned| assigned.tracker.open())
            .sum()
    }

    fn current(&mut self, partition: &P, epoch: Epoch) -> Option<&mut Partition> {
        self.partitions
            .get_mut(partition)
            .filter(|assigned| assigned.epoch == epoch)
    }
}
