//! The partitions of one consumer: an offset tracker for each, and an epoch for each time that it was
//! assigned. What finishes under an earlier epoch changes nothing: after a rebalance, or an aborted
//! transaction, its record is read again by whoever has the partition then.

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

impl<P: Ord + Clone> Assignment<P> {
    /// No partition yet; none will have more than `open_max` open records.
    pub fn new(open_max: usize) -> Assignment<P> {
        Assignment {
            partitions: BTreeMap::new(),
            open_max,
            epochs: 0,
        }
    }

    /// Begins a new epoch of a partition with nothing open, whether it had one or not: it is assigned, or
    /// was sought back to what is committed.
    pub fn begin(&mut self, partition: P) -> Epoch {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let fresh = Partition {
            epoch,
            tracker: OffsetTracker::new(self.open_max),
            safe: None,
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
