//! Bounds on the records in flight, and the pauses that keep them.
//!
//! Pausing a partition discards the records that the client has prefetched, so at a full bound the consumer
//! first stops polling. That must not last: a consumer that stops polling is removed from its group, and one
//! stuck partition would hold up the others. A bound that stays full for `stall_max`, without half of it
//! finishing, pauses its partitions until half of it is free, and polling goes on.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Nanos;

/// Bounds on the records in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightBounds {
    /// Records of all partitions.
    pub records_max: usize,
    /// Bytes of all partitions. The record that fills the bound may exceed it.
    pub bytes_max: usize,
    /// Records of one partition.
    pub partition_records_max: usize,
    /// Bytes of one partition. The record that fills the bound may exceed it.
    pub partition_bytes_max: usize,
    /// Time that a bound may be full, without half of it finishing, before partitions are paused.
    pub stall_max: Duration,
}

/// Bounds that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// Nothing could ever be read.
    #[error("{0} is 0: nothing could be read")]
    Zero(&'static str),
    /// The bound of a partition could never be reached.
    #[error("a partition's {partition} {unit} in flight are more than the {whole} of all partitions")]
    PartitionBeyondWhole {
        /// Records or bytes.
        unit: &'static str,
        /// The partition's bound.
        partition: usize,
        /// The bound of all.
        whole: usize,
    },
}

/// Records that a consumer has read and not finished.
#[derive(Debug)]
pub struct InFlight<P> {
    bounds: InFlightBounds,
    whole: Account,
    partitions: BTreeMap<P, Assigned>,
    /// Partitions that are full and not paused: each keeps the consumer from polling.
    blocking: usize,
    /// True where a partition was assigned while all are paused, and is not paused yet.
    unsettled: bool,
}

/// Changes to apply at once, because [`InFlight::may_poll`] assumes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow<P> {
    /// Partitions to pause, in order.
    pub pause: Vec<P>,
    /// Partitions to resume, in order.
    pub resume: Vec<P>,
}

#[derive(Debug, Default)]
struct Assigned {
    account: Account,
    paused: bool,
}

/// Records and bytes under one bound.
#[derive(Debug, Default)]
struct Account {
    inside: Amount,
    /// Set while the account has been full and not half free since.
    mark: Option<Mark>,
    stalled: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    records: usize,
    bytes: usize,
}

/// Time at which half of the bound had last finished, and the amount since.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Nanos,
    finished: Amount,
}

impl Amount {
    fn half(self) -> Amount {
        Amount {
            records: self.records.div_ceil(2),
            bytes: self.bytes.div_ceil(2),
        }
    }

    /// True where either figure is as large as the bound's.
    fn reaches(self, bound: Amount) -> bool {
        self.records >= bound.records || self.bytes >= bound.bytes
    }
}

impl Account {
    fn is_full(&self, bound: Amount) -> bool {
        self.inside.reaches(bound)
    }

    fn start(&mut self, bytes: usize, bound: Amount, now: Nanos) {
        self.inside.records += 1;
        self.inside.bytes += bytes;
        self.watch(bound, now);
    }

    /// Marks a full account, whether a record filled it or its bound fell.
    fn watch(&mut self, bound: Amount, now: Nanos) {
        if self.is_full(bound) && self.mark.is_none() {
            let finished = Amount::default();
            self.mark = Some(Mark { at: now, finished });
        }
    }

    fn finish(&mut self, amount: Amount, bound: Amount, now: Nanos) {
        let enough = self.inside.records >= amount.records && self.inside.bytes >= amount.bytes;
        assert!(enough, "{amount:?} finished of {:?} in flight", self.inside);
        self.inside.records -= amount.records;
        self.inside.bytes -= amount.bytes;
        if !self.inside.reaches(bound.half()) {
            self.mark = None;
            self.stalled = false;
        } else if let Some(mark) = &mut self.mark {
            mark.finished.records += amount.records;
            mark.finished.bytes += amount.bytes;
            if mark.finished.reaches(bound.half()) {
                let finished = Amount::default();
                *mark = Mark { at: now, finished };
            }
        }
    }

    fn judge(&mut self, bound: Amount, stall_max: Duration, now: Nanos) {
        self.watch(bound, now);
        let slow = self.mark.is_some_and(|mark| now.since(mark.at) >= stall_max);
        self.stalled |= slow && self.is_full(bound);
    }
}

impl<P: Ord + Clone> InFlight<P> {
    /// No record in flight.
    pub fn new(bounds: InFlightBounds) -> Result<InFlight<P>, BoundsError> {
        let InFlightBounds {
            records_max,
            bytes_max,
            partition_records_max,
            partition_bytes_max,
            ..
        } = bounds;
        let named = [
            ("records_max", records_max),
            ("bytes_max", bytes_max),
            ("partition_records_max", partition_records_max),
            ("partition_bytes_max", partition_bytes_max),
        ];
        if let Some((name, _)) = named.into_iter().find(|(_, bound)| *bound == 0) {
            return Err(BoundsError::Zero(name));
        }
        let pairs = [
            ("records", partition_records_max, records_max),
            ("bytes", partition_bytes_max, bytes_max),
        ];
        let beyond = pairs.into_iter().find(|(_, partition, whole)| partition > whole);
        if let Some((unit, partition, whole)) = beyond {
            return Err(BoundsError::PartitionBeyondWhole {
                unit,
                partition,
                whole,
            });
        }
        Ok(InFlight {
            bounds,
            whole: Account::default(),
            partitions: BTreeMap::new(),
            blocking: 0,
            unsettled: false,
        })
    }

    /// Sets the most records in flight from now on.
    pub fn limit(&mut self, records_max: usize) {
        self.bounds.records_max = records_max.max(1);
    }

    /// Adds a partition that is assigned, unpaused, without records in flight. Earlier ones of it are dropped.
    pub fn begin(&mut self, partition: P, now: Nanos) {
        self.end(&partition, now);
        self.partitions.insert(partition, Assigned::default());
        self.unsettled |= self.whole.stalled;
    }

    /// Removes a partition that is revoked; its records in flight are dropped.
    pub fn end(&mut self, partition: &P, now: Nanos) {
        let (bound, whole) = (self.partition_bound(), self.whole_bound());
        if let Some(assigned) = self.partitions.remove(partition) {
            self.blocking -= usize::from(assigned.blocks(bound));
            self.whole.finish(assigned.account.inside, whole, now);
        }
    }

    /// Counts a record that was read, whether it is wanted or not.
    ///
    /// # Panics
    ///
    /// Where the partition is not assigned: its bytes could never be returned.
    pub fn start(&mut self, partition: &P, bytes: usize, now: Nanos) {
        let (bound, whole) = (self.partition_bound(), self.whole_bound());
        let assigned = self.partitions.get_mut(partition);
        assert!(
            assigned.is_some(),
            "a record was read of a partition that is not assigned"
        );
        if let Some(assigned) = assigned {
            let before = assigned.blocks(bound);
            assigned.account.start(bytes, bound, now);
            self.blocking += usize::from(assigned.blocks(bound) && !before);
            self.whole.start(bytes, whole, now);
        }
    }

    /// Releases a record that [`InFlight::start`] counted, with the same bytes and in the same assignment.
    ///
    /// # Panics
    ///
    /// Where less than that is in flight: the bounds would not hold any more.
    pub fn finish(&mut self, partition: &P, bytes: usize, now: Nanos) {
        let (bound, whole) = (self.partition_bound(), self.whole_bound());
        let record = Amount { records: 1, bytes };
        let assigned = self.partitions.get_mut(partition);
        assert!(
            assigned.is_some(),
            "a record finished of a partition that is not assigned"
        );
        if let Some(assigned) = assigned {
            let before = assigned.blocks(bound);
            assigned.account.finish(record, bound, now);
            self.blocking -= usize::from(before && !assigned.blocks(bound));
            self.whole.finish(record, whole, now);
        }
    }

    /// True where the consumer may poll for a record. That includes the case that all partitions are paused: no
    /// record comes then, and polling keeps the consumer in its group.
    pub fn may_poll(&self) -> bool {
        let room = !self.whole.is_full(self.whole_bound()) || self.whole.stalled;
        room && self.blocking == 0 && !self.unsettled
    }

    /// Partitions to pause and to resume now. Call it in every round of the consumer's loop.
    pub fn flow(&mut self, now: Nanos) -> Flow<P> {
        let (bound, whole) = (self.partition_bound(), self.whole_bound());
        let stall_max = self.bounds.stall_max;
        self.whole.judge(whole, stall_max, now);
        let mut flow = Flow {
            pause: Vec::new(),
            resume: Vec::new(),
        };
        self.blocking = 0;
        self.unsettled = false;
        for (partition, assigned) in &mut self.partitions {
            assigned.account.judge(bound, stall_max, now);
            let pause = self.whole.stalled || assigned.account.stalled;
            if pause != assigned.paused {
                let list = if pause { &mut flow.pause } else { &mut flow.resume };
                list.push(partition.clone());
                assigned.paused = pause;
            }
            self.blocking += usize::from(assigned.blocks(bound));
        }
        flow
    }

    /// Records in flight.
    pub fn records(&self) -> usize {
        self.whole.inside.records
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.whole.inside.bytes
    }

    /// Number of paused partitions.
    pub fn paused(&self) -> usize {
        self.partitions
            .values()
            .filter(|assigned| assigned.paused)
            .count()
    }

    fn whole_bound(&self) -> Amount {
        Amount {
            records: self.bounds.records_max,
            bytes: self.bounds.bytes_max,
        }
    }

    fn partition_bound(&self) -> Amount {
        Amount {
            records: self.bounds.partition_records_max,
            bytes: self.bounds.partition_bytes_max,
        }
    }
}

impl Assigned {
    fn blocks(&self, bound: Amount) -> bool {
        self.account.is_full(bound) && !self.paused
    }
}
