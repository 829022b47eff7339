//! Records whose outputs the sink refuses for their content, by partition and offset.
//!
//! A refusal aborts the transaction, and its records are read again. If a broker refuses one record of a
//! batch, its client reports all of the batch as refused. A refused record is therefore suspected first and
//! sent alone. If it is refused again, it becomes a dead letter. A dead letter that is too large leaves out
//! its value, and then all but its timestamp.

use std::collections::BTreeMap;

use crate::chunk::{Fate, Kept};
use crate::in_flight_records::Position;
use crate::partition_ids::PartitionId;
use crate::sink::{Refusal, Refused};

/// Knowledge about records that are read and not committed.
pub struct RejectedRecords {
    /// Records sent since the last commit, by number.
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
    /// Its output was refused once.
    suspected: bool,
    /// Reason why the output topic refuses its score.
    refused: Option<Refusal>,
    /// Parts that its dead letter may keep.
    kept: Kept,
}

/// Findings of an abort.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AbortAnalysis {
    /// Newly suspected records.
    pub suspected: usize,
    /// Records that become dead letters.
    pub refused: usize,
    /// Records whose dead letters keep less.
    pub cut: usize,
    /// A dead letter that was refused twice; no further attempt can help its record.
    pub buried: Option<(PartitionId, i64, Refusal)>,
}

impl RejectedRecords {
    /// Remembers at most `known_max` records. A transaction never has more; only several aborted in a row
    /// could.
    pub fn new(known_max: usize) -> RejectedRecords {
        RejectedRecords {
            sent: Vec::new(),
            known: BTreeMap::new(),
            known_max,
        }
    }

    /// Notes that a record's output is sent. Returns the number for its delivery report.
    pub fn sending(&mut self, place: PartitionId, offset: i64, fate: Fate) -> usize {
        self.sent.push(Sent {
            at: (place, offset),
            dead: matches!(fate, Fate::Dead(_)),
        });
        self.sent.len() - 1
    }

    /// Whether this record's output is suspected.
    pub fn suspects(&self, place: PartitionId, offset: i64) -> bool {
        let known = self.known.get(&(place, offset));
        known.is_some_and(|known| known.suspected)
    }

    /// Reason why this record's output is refused, if that is certain.
    pub fn of(&self, place: PartitionId, offset: i64) -> Option<&Refusal> {
        self.known.get(&(place, offset))?.refused.as_ref()
    }

    /// Parts that this record's dead letter may keep.
    pub fn kept(&self, place: PartitionId, offset: i64) -> Kept {
        let known = self.known.get(&(place, offset));
        known.map_or(Kept::All, |known| known.kept)
    }

    /// Learns from an abort in which these records were refused.
    pub fn undone(&mut self, refused: &[Refused]) -> AbortAnalysis {
        let mut lesson = AbortAnalysis::default();
        let sent = std::mem::take(&mut self.sent);
        for Refused { number, refusal } in refused {
            let Some(Sent { at, dead }) = sent.get(*number) else {
                continue;
            };
            if self.known.len() >= self.known_max && !self.known.contains_key(at) {
                // Refused records come back; learning nothing makes the next attempt wait.
                self.known.clear();
                return AbortAnalysis::default();
            }
            let known = self.known.entry(*at).or_default();
            if !std::mem::replace(&mut known.suspected, true) {
                lesson.suspected += 1;
            } else if !*dead {
                // Its dead letter is not suspected yet.
                *known = Known {
                    refused: Some(refusal.clone()),
                    ..Known::default()
                };
                lesson.refused += 1;
            } else if let Some(kept) = known.kept.less().filter(|_| refusal.too_large) {
                // It is sent alone, as before.
                known.kept = kept;
                lesson.cut += 1;
            } else {
                lesson.buried = Some((at.0, at.1, refusal.clone()));
            }
        }
        lesson
    }

    /// Forgets sent records, which are committed with these positions.
    pub fn committed(&mut self, positions: &[Position]) {
        self.sent.clear();
        if !self.known.is_empty() {
            for position in positions {
                let before = (position.place, 0)..(position.place, position.offset);
                self.known.extract_if(before, |_, _| true).for_each(drop);
            }
        }
    }

    /// Forgets a revoked partition.
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

    use super::*;
    use crate::partition_ids::PartitionIds;
    use crate::record::TopicPartition;
    use penstock_telemetry::clock::Clock;
    use penstock_telemetry::metrics::{DeadReason, Metrics};

    fn refusal(too_large: bool) -> Refusal {
        let reason = "the broker's words".into();
        Refusal { reason, too_large }
    }

    fn place() -> PartitionId {
        let metrics = Metrics::new(Clock::start());
        let list = [TopicPartition {
            topic: "t".into(),
            partition: 0,
        }];
        PartitionIds::new(Box::new(move |name| metrics.topic(name, None))).of(&list)[0]
    }

    /// Sends these records, each scored or, if known to be refused, as a dead letter; then some are refused.
    fn attempt(
        refusals: &mut RejectedRecords,
        offsets: std::ops::Range<i64>,
        refused: &[usize],
    ) -> AbortAnalysis {
        attempt_with(refusals, offsets, refused, &refusal(false))
    }

    fn attempt_with(
        refusals: &mut RejectedRecords,
        offsets: std::ops::Range<i64>,
        refused: &[usize],
        refusal: &Refusal,
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
        let refused = refused.iter().map(|&number| Refused {
            number,
            refusal: refusal.clone(),
        });
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
    fn a_record_refused_twice_is_a_dead_letter_until_it_is_committed() {
        let mut refusals = RejectedRecords::new(100);
        assert_eq!(attempt(&mut refusals, 5..9, &[1, 3]), lesson(2, 0));
        assert!(refusals.suspects(place(), 6) && refusals.suspects(place(), 8));
        assert!(!refusals.suspects(place(), 5) && refusals.of(place(), 6).is_none());
        assert_eq!(attempt(&mut refusals, 5..9, &[1]), lesson(0, 1));
        assert_eq!(refusals.of(place(), 6), Some(&refusal(false)));
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
            Some((place(), 5, refusal(false)))
        );
    }

    #[test]
    fn a_dead_letter_that_is_too_large_keeps_less_each_time_it_is_refused_alone() {
        let refusal = refusal(true);
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
            assert_eq!(attempt_with(&mut refusals, 5..6, &[0], &refusal), expected);
            assert_eq!(refusals.kept(place(), 5), kept);
        }
        let last = attempt_with(&mut refusals, 5..6, &[0], &refusal);
        assert_eq!(last.buried, Some((place(), 5, refusal)));
    }

    #[test]
    fn no_more_is_remembered_than_is_allowed_and_that_is_no_news() {
        let mut refusals = RejectedRecords::new(2);
        assert!(attempt(&mut refusals, 0..2, &[0, 1]).is_news());
        assert!(!attempt(&mut refusals, 2..4, &[0]).is_news());
        assert!(attempt(&mut refusals, 2..4, &[0]).is_news());
    }
}
