//! Safety and progress of one partition's tracker.

use proptest::prelude::*;

use super::*;

fn started(offsets: &[i64]) -> OffsetTracker {
    let mut tracker = OffsetTracker::new(offsets.len());
    for offset in offsets {
        tracker.start(*offset).unwrap();
    }
    tracker
}

#[test]
fn the_position_follows_the_slowest_record_over_gaps() {
    let mut tracker = started(&[3, 4, 9, 20]);
    assert_eq!(tracker.finish(4), None);
    assert_eq!(tracker.finish(20), None);
    // Nothing lies between 4 and 9: the position is the offset after the last that finished.
    assert_eq!(tracker.finish(3), Some(5));
    assert_eq!(tracker.open(), 2);
    assert_eq!(tracker.finish(9), Some(21));
    assert_eq!(tracker.open(), 0);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut tracker = OffsetTracker::new(2);
    assert_eq!(tracker.start(-1), Err(OffsetError::Negative(-1)));
    tracker.start(7).unwrap();
    for offset in [7, 6] {
        let again = tracker.start(offset).unwrap_err();
        assert_eq!(again, OffsetError::WentBack { offset, last: 7 });
    }
    tracker.start(8).unwrap();
    assert_eq!(tracker.start(9), Err(OffsetError::Full { bound: 2 }));
    assert_eq!(tracker.finish(8), None);
    // A finished record behind the slowest one still takes its room.
    assert_eq!(tracker.start(9), Err(OffsetError::Full { bound: 2 }));
    assert_eq!(tracker.finish(7), Some(9));
    tracker.start(9).unwrap();
    // A record that finished long ago cannot be started again.
    assert!(tracker.start(8).is_err());
}

#[test]
fn a_record_before_the_position_that_reading_begins_at_has_gone_back() {
    let mut tracker = OffsetTracker::starting_at(2, 5);
    assert_eq!(
        tracker.start(4),
        Err(OffsetError::WentBack { offset: 4, last: 4 })
    );
    tracker.start(5).unwrap();
    OffsetTracker::starting_at(2, 0).start(0).unwrap();
}

#[test]
#[should_panic(expected = "offset 5 finished without being open")]
fn a_record_that_was_never_started_cannot_finish() {
    started(&[4, 6]).finish(5);
}

#[test]
#[should_panic(expected = "offset 6 finished without being open")]
fn a_record_cannot_finish_twice() {
    let mut tracker = started(&[4, 6]);
    tracker.finish(6);
    tracker.finish(6);
}

/// Offsets with gaps, and an order in which they finish.
fn a_partition() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
    prop::collection::vec(1_i64..5, 1..80).prop_flat_map(|gaps| {
        let offsets: Vec<i64> = gaps
            .iter()
            .scan(-1, |last, gap| {
                *last += gap;
                Some(*last)
            })
            .collect();
        (Just(offsets.clone()), Just(offsets).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn no_position_passes_an_open_record_and_the_last_one_passes_all((offsets, order) in a_partition()) {
        let mut tracker = started(&offsets);
        let mut open = offsets.clone();
        let mut position = 0;
        for offset in order {
            open.retain(|o| *o != offset);
            let expected = match open.first() {
                // The offset after the last record before the first open one.
                Some(first) => offsets.iter().rev().find(|o| *o < first).map_or(0, |last| last + 1),
                None => offsets[offsets.len() - 1] + 1,
            };
            let safe = tracker.finish(offset);
            prop_assert_eq!(safe, (expected > position).then_some(expected));
            position = expected;
        }
        prop_assert_eq!(tracker.open(), 0);
    }
}
