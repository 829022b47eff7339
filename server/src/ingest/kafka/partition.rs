//! The records of one partition between reading and leaving: their answers come in any order, they leave in theirs.

use std::collections::VecDeque;

use penstock_core::{Epoch, position_after_going_back};
use rdkafka::topic_partition_list::Offset;

use super::work::{Answer, Fate};
use penstock_telemetry::metrics::{Lag, Left};

/// Where the reading of a partition begins under an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Where the client begins by itself: at what is committed, or where its settings say.
    Anywhere,
    /// Here, as the broker has it committed.
    At(i64),
    /// Here, because the log has gone back: the broker knows a position that lies after it.
    Back(i64),
    /// At the beginning, because the topic was made anew: the broker may know a position of another one.
    Remade,
}

impl Begin {
    /// What is to be sought for it.
    pub fn offset(self) -> Option<Offset> {
        match self {
            Begin::Anywhere => None,
            Begin::At(position) | Begin::Back(position) => Some(Offset::Offset(position)),
            Begin::Remade => Some(Offset::Beginning),
        }
    }
}

/// A position that goes back without a seek of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The log has: what was to come is `from`, and what came is `to`.
    WentBack {
        /// The position before.
        from: i64,
        /// The record that came instead.
        to: i64,
    },
    /// The topic is another one of the same name.
    Remade {
        /// The position before, where it is known.
        from: Option<i64>,
    },
    /// Perhaps none has: records of another leader come after it, and whether the log still has the one before it is
    /// told to who seeks there.
    Unsure,
}

/// A partition of this consumer.
pub struct Partition {
    /// This assignment of it.
    pub epoch: Epoch,
    begin: Begin,
    /// Whether the position that reading began at is known to be one of this topic.
    pub vouched: bool,
    /// Whether the topic of what is committed was looked at, before a record came.
    pub looked_at: bool,
    /// Whether the client asks for its records, though none may have come.
    pub fetched: bool,
    /// Looks in a row that found the log to end before what was read.
    pub beyond: u32,
    /// The first record that was read under it: where reading begins anew when nothing was ever committed.
    pub first: Option<i64>,
    /// The epoch of the leader that wrote it.
    pub first_leader: Option<i32>,
    /// The same of the last record that has left.
    pub left_leader: Option<i32>,
    /// What was committed under it.
    pub committed: Option<i64>,
    /// What has left since then.
    left: Left,
    /// How far it is behind.
    pub lag: Lag,
    /// Records that were committed since somebody looked.
    pub finished: u64,
    slots: VecDeque<Slot>,
}

/// One record.
struct Slot {
    offset: i64,
    bytes: usize,
    /// Of key and value.
    read_bytes: usize,
    leader_epoch: Option<i32>,
    answer: Option<Answer>,
}

/// A record whose turn it is.
pub struct Leaving {
    /// Its offset.
    pub offset: i64,
    /// Its bytes while it was inside.
    pub bytes: usize,
    /// What becomes of it.
    pub answer: Answer,
}

impl Partition {
    /// It is ours from now on, with nothing inside.
    pub fn new(epoch: Epoch, begin: Begin, lag: Lag) -> Partition {
        Partition {
            epoch,
            begin,
            vouched: false,
            looked_at: false,
            fetched: false,
            beyond: 0,
            first: None,
            first_leader: None,
            left_leader: None,
            committed: None,
            left: Left::default(),
            lag,
            finished: 0,
            slots: VecDeque::new(),
        }
    }

    /// The same partition under a new epoch.
    pub fn again(self, epoch: Epoch, begin: Begin) -> Partition {
        Partition {
            vouched: self.vouched,
            looked_at: self.looked_at,
            fetched: self.fetched,
            ..Partition::new(epoch, begin, self.lag)
        }
    }

    /// Where its next epoch begins, when the broker has `committed` and its position has perhaps gone back.
    pub fn again_at(&self, committed: Option<i64>, reset: Option<Reset>) -> Begin {
        let own = matches!(self.begin, Begin::Back(_) | Begin::Remade);
        let sought = if (own && self.committed.is_none()) || self.first.is_none() {
            // The broker does not know of it yet, or nothing was read since.
            self.begin
        } else {
            // Where nothing was ever committed, the first record that was read is the first not written.
            let position = committed.or(self.committed).or(self.first);
            position.map_or(Begin::Anywhere, Begin::At)
        };
        match (reset, sought) {
            (None | Some(Reset::Unsure), sought) => sought,
            (Some(Reset::Remade { .. }), _) | (Some(_), Begin::Remade) => Begin::Remade,
            (Some(Reset::WentBack { to, .. }), Begin::At(sought) | Begin::Back(sought)) => {
                Begin::Back(position_after_going_back(to, sought))
            }
            (Some(Reset::WentBack { to, .. }), Begin::Anywhere) => Begin::Back(to),
        }
    }

    /// Whether there is something to be found about where it has begun: by a record, or where none comes without one.
    pub fn is_to_vouch(&self) -> bool {
        !self.vouched && (self.first.is_some() || (self.fetched && !self.looked_at))
    }

    /// A record that was read. Its offset is above all before it.
    pub fn push(&mut self, offset: i64, leader_epoch: Option<i32>, bytes: usize, read_bytes: usize) {
        if self.first.is_none() {
            self.first = Some(offset);
            self.first_leader = leader_epoch;
        }
        self.slots.push_back(Slot {
            offset,
            bytes,
            read_bytes,
            leader_epoch,
            answer: None,
        });
    }

    /// What becomes of the record at `offset`.
    pub fn answer(&mut self, offset: i64, answer: Answer) {
        let found = self.slots.binary_search_by_key(&offset, |slot| slot.offset);
        if let Some(slot) = found.ok().and_then(|at| self.slots.get_mut(at)) {
            slot.answer = Some(answer);
        }
    }

    /// The broker has what left before `offset`. Returns what that was.
    pub fn committed(&mut self, offset: i64) -> Left {
        self.committed = Some(offset);
        let left = std::mem::take(&mut self.left);
        self.finished += left.records();
        left
    }

    /// The next record to leave, when nothing before it is without an answer.
    pub fn pop(&mut self) -> Option<Leaving> {
        let first = self.slots.pop_front_if(|slot| slot.answer.is_some())?;
        let answer = first.answer?;
        match answer.fate {
            Fate::InferenceResponse => self.left.scored += 1,
            Fate::Tombstone => self.left.tombstones += 1,
            Fate::Dead(reason) => self.left.dead[reason as usize] += 1,
        }
        self.left_leader = first.leader_epoch;
        self.left.bytes_read += first.read_bytes as u64;
        self.left.bytes_written += answer.record.bytes() as u64;
        Some(Leaving {
            offset: first.offset,
            bytes: first.bytes,
            answer,
        })
    }

    /// True when nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::Metrics;

    /// One under which records were read from 40 on, unless it says otherwise.
    fn begun(begin: Begin) -> Partition {
        let topic = Metrics::new(Clock::start()).topic("t", None);
        let epoch = penstock_core::Assignment::new(1).begin(0);
        let mut partition = Partition::new(epoch, begin, topic.lag(0));
        partition.push(40, Some(1), 1, 1);
        partition
    }

    const WENT_BACK: Option<Reset> = Some(Reset::WentBack { from: 90, to: 60 });
    const REMADE: Option<Reset> = Some(Reset::Remade { from: None });

    #[test]
    fn what_the_broker_has_counts_until_the_position_goes_back() {
        let partition = begun(Begin::Anywhere);
        assert_eq!(partition.again_at(Some(50), None), Begin::At(50));
        assert_eq!(partition.again_at(None, None), Begin::At(40));
        assert_eq!(partition.again_at(Some(50), WENT_BACK), Begin::Back(50));
        assert_eq!(partition.again_at(Some(80), WENT_BACK), Begin::Back(60));
        assert_eq!(partition.again_at(None, WENT_BACK), Begin::Back(40));
        assert_eq!(partition.again_at(Some(50), REMADE), Begin::Remade);
        assert_eq!(partition.again_at(Some(50), Some(Reset::Unsure)), Begin::At(50));
    }

    #[test]
    fn until_something_is_committed_under_it_an_epoch_begins_where_it_did() {
        let mut partition = begun(Begin::Back(40));
        assert_eq!(partition.again_at(Some(90), None), Begin::Back(40));
        assert_eq!(partition.again_at(Some(90), WENT_BACK), Begin::Back(40));
        partition.committed(45);
        assert_eq!(partition.again_at(Some(45), None), Begin::At(45));
        let mut partition = begun(Begin::Remade);
        assert_eq!(partition.again_at(Some(90), WENT_BACK), Begin::Remade);
        partition.committed(45);
        assert_eq!(partition.again_at(Some(45), None), Begin::At(45));
    }

    #[test]
    fn one_of_which_no_record_comes_is_looked_at_once_and_again_when_one_does() {
        let mut partition = begun(Begin::Anywhere);
        assert!(partition.is_to_vouch());
        partition.first = None;
        assert!(!partition.is_to_vouch());
        partition.fetched = true;
        assert!(partition.is_to_vouch());
        partition.looked_at = true;
        assert!(!partition.is_to_vouch());
        partition.first = Some(40);
        assert!(partition.is_to_vouch());
        partition.vouched = true;
        assert!(!partition.is_to_vouch());
    }

    #[test]
    fn one_of_which_nothing_was_read_stays_where_it_is() {
        for begin in [Begin::Anywhere, Begin::At(7), Begin::Back(7)] {
            let mut partition = begun(begin);
            partition.first = None;
            assert_eq!(partition.again_at(Some(90), None), begin);
        }
    }
}
