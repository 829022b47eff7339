//! What an epoch is for.

mod logs;

use super::*;

#[test]
fn what_finishes_under_an_earlier_epoch_changes_nothing() {
    let mut assignment = Assignment::new(10);
    let first = assignment.begin("p");
    for offset in 0..3 {
        assert_eq!(assignment.start(&"p", offset), Ok(first));
    }
    let second = assignment.begin("p");
    assert_ne!(first, second);
    assert_eq!(assignment.open(), 0);
    assert_eq!(assignment.start(&"p", 1), Ok(second));
    assert_eq!(assignment.finish(&"p", first, 1), None);
    assert_eq!(assignment.uncommitted().count(), 0);
    assert_eq!(assignment.finish(&"p", second, 1), Some(2));
    assignment.committed(&"p", first, 2);
    assert_eq!(assignment.uncommitted().collect::<Vec<_>>(), [(&"p", second, 2)]);
}

#[test]
fn a_partition_that_is_gone_takes_nothing_and_commits_nothing() {
    let mut assignment = Assignment::new(10);
    let epoch = assignment.begin(7);
    assignment.start(&7, 0).unwrap();
    assert_eq!(assignment.finish(&7, epoch, 0), Some(1));
    assert!(assignment.end(&7) && !assignment.end(&7));
    assert_eq!(assignment.start(&7, 1), Err(OffsetError::NotAssigned));
    assert_eq!(assignment.finish(&7, epoch, 0), None);
    assert_eq!(assignment.uncommitted().count(), 0);
    assert_eq!(assignment.epoch(&7), None);
}

#[test]
fn what_is_committed_is_not_committed_again() {
    let mut assignment = Assignment::new(10);
    let epochs = [assignment.begin(0), assignment.begin(1)];
    for (partition, epoch) in [0, 1].into_iter().zip(epochs) {
        assignment.start(&partition, 5).unwrap();
        assignment.finish(&partition, epoch, 5);
    }
    assignment.committed(&0, epochs[0], 6);
    assert_eq!(assignment.uncommitted().collect::<Vec<_>>(), [(&1, epochs[1], 6)]);
    assignment.start(&0, 6).unwrap();
    assignment.finish(&0, epochs[0], 6);
    assert_eq!(assignment.uncommitted().count(), 2);
    assert_eq!(assignment.partitions().collect::<Vec<_>>(), [&0, &1]);
}

#[test]
fn a_log_that_goes_back_is_told_by_its_first_record_and_read_again_under_a_new_epoch() {
    let mut assignment = Assignment::new(10);
    let before = assignment.begin("p");
    for offset in 0..3 {
        assignment.start(&"p", offset).unwrap();
    }
    assignment.finish(&"p", before, 0);
    let back = OffsetError::WentBack { offset: 1, last: 2 };
    assert_eq!(assignment.start(&"p", 1), Err(back));
    let position = position_after_going_back(1, 1);
    let after = assignment.begin_back_at("p", position);
    assert_eq!(assignment.finish(&"p", before, 1), None, "it was another record");
    // The broker may know a position that lies after it.
    assert_eq!(assignment.uncommitted().collect::<Vec<_>>(), [(&"p", after, 1)]);
    assert_eq!(assignment.start(&"p", 1), Ok(after));
}

#[test]
fn what_is_there_still_and_not_committed_is_read_again_and_nothing_that_is_committed() {
    assert_eq!(position_after_going_back(100, 40), 40);
    assert_eq!(position_after_going_back(100, 150), 100);
}

#[test]
fn a_log_that_ends_before_the_position_that_was_sought_has_gone_back() {
    let mut assignment = Assignment::new(10);
    assignment.begin_at(0, 150);
    let back = OffsetError::WentBack { offset: 0, last: 149 };
    assert_eq!(assignment.start(&0, 0), Err(back));
    assert_eq!(assignment.uncommitted().count(), 0);
}
