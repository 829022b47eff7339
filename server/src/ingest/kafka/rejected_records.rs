//! Records that the broker refuses for what they contain, known by where they were read.
//!
//! A refusal undoes the transaction, and its records are read again. Of a batch in which the broker means one record,
//! the client says that all are refused. So one that was refused is under suspicion first and is sent alone; when it
//! is refused then, it becomes a dead letter. One whose dead letter is too large leaves out its value, and then all but
//! its time.

use std::collections::BTreeMap;

use rdkafka::error::RDKafkaErrorCode;

use super::in_flight_records::Position;
use super::partition_ids::PartitionId;
use super::work::{Fate, Kept};
use crate::respond::kafka::{Refused, is_too_large};

/// What is known of the records that were read and not committed.
pub struct RejectedRecords {
    /// Those that were sent since the last commit, by their numbers.
    sent: Vec<Sent>,
    known: BTreeMap<(PartitionId, i64), Known>,
    known_max: usize,
}

struct Sent {
    at: (PartitionId, i64),
    dead: bool,
}

#[derive(Default)]
struct Known {
    /// What became of it was refused once.
    suspected: bool,
    /// The output topic takes no score of it, for this reason.
    refused: Option<RDKafkaErrorCode>,
    /// What its dead letter may keep of it.
    kept: Kept,
}

/// What an abort has taught.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AbortAnalysis {
    /// Records that are under suspicion now.
    pub suspected: usize,
    /// Records that are dead letters from now on.
    pub refused: usize,
    /// Records whose dead letters keep less from now on.
    pub cut: usize,
    /// A dead letter that was refused twice: nothing is left to be done with its record.
    pub buried: Option<(PartitionId, i64, RDKafkaErrorCode)>,
}

impl RejectedRecords {
    /// Remembers so many. A transaction has no more records than that; only those of several, undone one after
    /// the other, could be more.
    pub fn new(known_max: usize) -> RejectedRecords {
        RejectedRecords {
            sent: Vec::new(),
            known: BTreeMap::new(),
            known_max,
        }
    }

    /// What becomes of a record is being sent. Returns the number under which its delivery is reported.
    pub fn sending(&mut self, place: PartitionId, offset: i64, fate: Fate) -> usize {
        self.sent.push(Sent {
            at: (place, offset),
            dead: matches!(fate, Fate::Dead(_)),
        });
        self.sent.len() - 1
    }

    /// Whether what becomes of this record is under suspicion.
    pub fn suspects(&self, place: PartitionId, offset: i64) -> bool {
        let known = self.known.get(&(place, offset));
        known.is_some_and(|known| known.suspected)
    }

    /// Why what becomes of this record is refused, where that is certain.
    pub fn of(&self, place: PartitionId, offset: i64) -> Option<RDKafkaErrorCode> {
        self.known.get(&(place, offset))?.refused
    }

    /// What the dead letter of this record may keep of it.
    pub fn kept(&self, place: PartitionId, offset: i64) -> Kept {
        let known = self.known.get(&(place, offset));
        known.map_or(Kept::All, |known| known.kept)
    }

    /// What was sent since the last commit is undone, and these records of it were refused.
    pub fn undone(&mut self, refused: &[Refused]) -> AbortAnalysis {
        let mut lesson = AbortAnalysis::default();
        let sent = std::mem::take(&mut self.sent);
        for Refused { number, code } in refused {
            let Some(Sent { at, dead }) = sent.get(*number) else {
                continue;
            };
            if self.known.len() >= self.known_max && !self.known.contains_key(at) {
                // Who is still refused comes back; that nothing was learnt is what makes it wait.
                self.known.clear();
                return AbortAnalysis::default();
            }
            let known = self.known.entry(*at).or_default();
            if !std::mem::replace(&mut known.suspected, true) {
                lesson.suspected += 1;
            } else if !*dead {
                // Its dead letter is under no suspicion yet.
                *known = Known {
                    refused: Some(*code),
                    ..Known::default()
                };
                lesson.refused += 1;
            } else if let Some(kept) = known.kept.less().filter(|_| is_too_large(*code)) {
                // It goes alone, as before.
                known.kept = kept;
                lesson.cut += 1;
            } else {
                lesson.buried = Some((at.0, at.1, *code));
            }
        }
        lesson
    }

    /// Everything that was sent is committed, and with it these positions.
    pub fn committed(&mut self, positions: &[Position]) {
        self.sent.clear();
        if !self.known.is_empty() {
            for position in positions {
                let before = (position.place, 0)..(position.place, position.offset);
                self.known.extract_if(before, |_, _| true).for_each(drop);
            }
        }
    }

    /// A partition is no longer ours.
    pub fn forget(&mut self, place: PartitionId) {
        self.known.retain(|(of, _), _| *of != place);
    }
}

impl AbortAnalysis {
    /// Whether the next attempt will differ from the last.
    pub fn is_news(&self) -> bool {
        self.suspected + self.refused + self.cut > 0
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::Assignment;
    use rdkafka::topic_partition_list::TopicPartitionList;

    use super::*;
    use crate::ingest::kafka::partition_ids::PartitionIds;
    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::{DeadReason, Metrics};

    const CODE: RDKafkaErrorCode = RDKafkaErrorCode::InvalidTimestamp;

    fn place() -> PartitionId {
        let metrics = Metrics::new(Clock::start());
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        PartitionIds::new(Box::new(move |name| metrics.topic(name, None))).of(&list)[0]
    }

    /// Sends these records, each scored or, where it is known to be refused, as a dead letter; then some are refused.
    fn attempt(
        refusals: &mut RejectedRecords,
        offsets: std::ops::Range<i64>,
        refused: &[usize],
    ) -> AbortAnalysis {
        attempt_with(refusals, offsets, refused, CODE)
    }

    fn attempt_with(
        refusals: &mut RejectedRecords,
        offsets: std::ops::Range<i64>,
        refused: &[usize],
        code: RDKafkaErrorCode,
    ) -> AbortAnalysis {
        for offset in offsets {
            let dead = refusals.of(place(), offset).is_some();
            let fate = if dead {
                Fate::Dead(DeadReason::Refused)
            } else {
                Fate::InferenceResponse
            };
            refusals.sending(place(), offset, fate);
        }
        let refused = refused.iter().map(|&number| Refused { number, code });
        refusals.undone(&refused.collect::<Vec<_>>())
    }

    fn lesson(suspected: usize, refused: usize) -> AbortAnalysis {
        AbortAnalysis {
            suspected,
            refused,
            ..AbortAnalysis::default()
        }
    }

    #[test]
    fn what_is_refused_twice_is_a_dead_letter_until_it_is_committed() {
        let mut refusals = RejectedRecords::new(100);
        assert_eq!(attempt(&mut refusals, 5..9, &[1, 3]), lesson(2, 0));
        assert!(refusals.suspects(place(), 6) && refusals.suspects(place(), 8));
        assert!(!refusals.suspects(place(), 5) && refusals.of(place(), 6).is_none());
        assert_eq!(attempt(&mut refusals, 5..9, &[1]), lesson(0, 1));
        assert_eq!(refusals.of(place(), 6), Some(CODE));
        assert!(
            !refusals.suspects(place(), 6),
            "its dead letter goes with the others"
        );
        assert_eq!(attempt(&mut refusals, 5..9, &[]), AbortAnalysis::default());
        let epoch = Assignment::new(1).begin(place());
        let committed = |offset| {
            let place = place();
            [Position { place, epoch, offset }]
        };
        refusals.committed(&committed(8));
        assert!(refusals.of(place(), 6).is_none() && refusals.suspects(place(), 8));
        refusals.forget(place());
        assert!(!refusals.suspects(place(), 8));
    }

    #[test]
    fn a_dead_letter_that_is_refused_twice_leaves_no_way_out() {
        let mut refusals = RejectedRecords::new(100);
        let lessons = [lesson(1, 0), lesson(0, 1), lesson(1, 0)];
        for expected in lessons {
            assert_eq!(attempt(&mut refusals, 5..6, &[0]), expected);
        }
        assert_eq!(
            attempt(&mut refusals, 5..6, &[0]).buried,
            Some((place(), 5, CODE))
        );
    }

    #[test]
    fn a_dead_letter_that_is_too_large_keeps_less_each_time_it_is_refused_alone() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        let mut refusals = RejectedRecords::new(100);
        let cut = || AbortAnalysis {
            cut: 1,
            ..AbortAnalysis::default()
        };
        let lessons = [
            (lesson(1, 0), Kept::All),
            (lesson(0, 1), Kept::All),
            (lesson(1, 0), Kept::All),
            (cut(), Kept::Beside),
            (cut(), Kept::Time),
        ];
        for (expected, kept) in lessons {
            assert_eq!(attempt_with(&mut refusals, 5..6, &[0], code), expected);
            assert_eq!(refusals.kept(place(), 5), kept);
        }
        let last = attempt_with(&mut refusals, 5..6, &[0], code);
        assert_eq!(last.buried, Some((place(), 5, code)));
    }

    #[test]
    fn no_more_is_remembered_than_is_allowed_and_that_is_no_news() {
        let mut refusals = RejectedRecords::new(2);
        assert!(attempt(&mut refusals, 0..2, &[0, 1]).is_news());
        assert!(!attempt(&mut refusals, 2..4, &[0]).is_news());
        assert!(attempt(&mut refusals, 2..4, &[0]).is_news());
    }
}
