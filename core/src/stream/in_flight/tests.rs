//! Bounds hold, and partitions are paused and resumed in time.

use proptest::prelude::*;

use super::*;
use crate::testing::millis;

fn bounds(records_max: usize, bytes_max: usize, partition_records_max: usize) -> InFlightBounds {
    InFlightBounds {
        records_max,
        bytes_max,
        partition_records_max,
        partition_bytes_max: bytes_max,
        stall_max: Duration::from_secs(1),
    }
}

/// Partitions 0 and 1.
fn two(bounds: InFlightBounds) -> InFlight<u8> {
    let mut in_flight = InFlight::new(bounds).unwrap();
    in_flight.begin(0, millis(0));
    in_flight.begin(1, millis(0));
    in_flight
}

fn flow(pause: &[u8], resume: &[u8]) -> Flow<u8> {
    Flow {
        pause: pause.to_vec(),
        resume: resume.to_vec(),
    }
}

#[test]
fn unusable_bounds_are_refused() {
    assert_eq!(
        InFlight::<u8>::new(bounds(0, 1, 1)).unwrap_err(),
        BoundsError::Zero("records_max")
    );
    assert!(InFlight::<u8>::new(bounds(4, 0, 4)).is_err());
    assert!(InFlight::<u8>::new(bounds(4, 1, 5)).is_err());
    let partition_bytes = |partition_bytes_max| InFlightBounds {
        partition_bytes_max,
        ..bounds(4, 10, 4)
    };
    assert!(InFlight::<u8>::new(partition_bytes(0)).is_err());
    let beyond = InFlight::<u8>::new(partition_bytes(11)).unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "a partition's 11 bytes in flight are more than the 10 of all partitions"
    );
}

#[test]
fn the_bytes_of_one_partition_have_their_own_bound() {
    let mut in_flight = two(InFlightBounds {
        partition_bytes_max: 250,
        ..bounds(100, 1000, 100)
    });
    in_flight.start(&0, 200, millis(0));
    assert!(in_flight.may_poll());
    in_flight.start(&0, 200, millis(0));
    assert!(!in_flight.may_poll(), "the partition is full, the whole is not");
    assert_eq!(in_flight.flow(millis(1000)), flow(&[0], &[]));
    assert!(in_flight.may_poll(), "the other partition goes on");
    in_flight.start(&1, 200, millis(1000));
    in_flight.finish(&0, 200, millis(1001));
    in_flight.finish(&0, 200, millis(1001));
    assert_eq!(in_flight.flow(millis(1001)), flow(&[], &[0]));
}

#[test]
fn a_lower_limit_applies_at_once() {
    let mut in_flight = two(bounds(4, 1000, 4));
    in_flight.start(&0, 1, millis(0));
    in_flight.start(&0, 1, millis(0));
    assert!(in_flight.may_poll());
    in_flight.limit(2);
    assert!(!in_flight.may_poll());
    in_flight.limit(0);
    in_flight.finish(&0, 1, millis(0));
    assert!(!in_flight.may_poll(), "one record may always be in flight");
    in_flight.finish(&0, 1, millis(0));
    assert!(in_flight.may_poll());
}

#[test]
fn a_limit_below_the_records_in_flight_pauses_in_time() {
    let mut in_flight = two(bounds(8, 1000, 8));
    for _ in 0..4 {
        in_flight.start(&0, 1, millis(0));
    }
    in_flight.limit(2);
    assert_eq!(in_flight.flow(millis(5000)), flow(&[], &[]), "full since now");
    assert!(!in_flight.may_poll());
    assert_eq!(in_flight.flow(millis(6000)), flow(&[0, 1], &[]));
    assert!(in_flight.may_poll(), "the consumer stays in its group");
}

#[test]
fn polling_stops_at_a_full_bound_and_goes_on_with_one_free_place() {
    let mut in_flight = two(bounds(4, 1000, 4));
    for _ in 0..2 {
        assert!(in_flight.may_poll());
        in_flight.start(&0, 10, millis(0));
        in_flight.start(&1, 10, millis(0));
    }
    assert!(!in_flight.may_poll());
    assert_eq!(
        in_flight.flow(millis(999)),
        flow(&[], &[]),
        "no pause within the bound"
    );
    in_flight.finish(&1, 10, millis(999));
    assert!(in_flight.may_poll());
    in_flight.start(&1, 990, millis(999));
    assert!(!in_flight.may_poll(), "bytes count too");
    assert_eq!((in_flight.records(), in_flight.bytes()), (4, 1020));
}

#[test]
fn a_bound_that_stays_full_pauses_until_half_of_it_is_free() {
    let mut in_flight = two(bounds(4, 1000, 4));
    for at in 0..4 {
        in_flight.start(&0, 1, millis(at));
    }
    assert_eq!(in_flight.flow(millis(1003)), flow(&[0, 1], &[]));
    assert!(
        in_flight.may_poll(),
        "no record comes, and the consumer stays in its group"
    );
    assert_eq!(in_flight.flow(millis(1004)), flow(&[], &[]), "once");
    // A partition that is assigned meanwhile is paused before the next poll.
    in_flight.begin(2, millis(1005));
    assert!(!in_flight.may_poll());
    assert_eq!(in_flight.flow(millis(1005)), flow(&[2], &[]));
    assert!(in_flight.may_poll());
    in_flight.finish(&0, 1, millis(1010));
    in_flight.finish(&0, 1, millis(1010));
    assert_eq!(in_flight.flow(millis(1010)), flow(&[], &[]));
    assert_eq!(in_flight.paused(), 3);
    in_flight.finish(&0, 1, millis(1011));
    assert_eq!(in_flight.flow(millis(1011)), flow(&[], &[0, 1, 2]));
    assert_eq!(in_flight.paused(), 0);
}

#[test]
fn a_bound_of_which_half_finishes_in_time_never_pauses() {
    let mut in_flight = two(bounds(10, 1000, 10));
    let mut now = 0;
    for _ in 0..10 {
        in_flight.start(&0, 1, millis(now));
    }
    // The bound is full all the time, and five records finish in each second.
    for _ in 0..100 {
        now += 199;
        in_flight.finish(&0, 1, millis(now));
        assert!(in_flight.may_poll());
        in_flight.start(&0, 1, millis(now));
        assert_eq!(in_flight.flow(millis(now)), flow(&[], &[]));
    }
    for _ in 0..5 {
        now += 1;
        in_flight.finish(&0, 1, millis(now));
        in_flight.start(&0, 1, millis(now));
    }
    for _ in 0..3 {
        now += 300;
        in_flight.finish(&0, 1, millis(now));
        in_flight.start(&0, 1, millis(now));
    }
    assert_eq!(in_flight.flow(millis(now)), flow(&[], &[]));
    assert_eq!(
        in_flight.flow(millis(now + 200)),
        flow(&[0, 1], &[]),
        "three records in a second are too few"
    );
}

#[test]
fn a_stuck_partition_holds_the_others_up_no_longer_than_the_bound() {
    let mut in_flight = two(bounds(10, 1000, 2));
    in_flight.start(&0, 1, millis(0));
    in_flight.start(&0, 1, millis(0));
    assert!(!in_flight.may_poll());
    assert_eq!(in_flight.flow(millis(1000)), flow(&[0], &[]));
    assert!(in_flight.may_poll());
    in_flight.start(&1, 1, millis(1000));
    in_flight.finish(&0, 1, millis(1001));
    assert_eq!(
        in_flight.flow(millis(1001)),
        flow(&[], &[]),
        "half is not less than half"
    );
    in_flight.finish(&0, 1, millis(1002));
    assert_eq!(in_flight.flow(millis(1002)), flow(&[], &[0]));
}

#[test]
fn a_revoked_partition_drops_its_records_in_flight() {
    let mut in_flight = two(bounds(4, 1000, 2));
    in_flight.start(&0, 7, millis(0));
    in_flight.start(&0, 7, millis(0));
    in_flight.start(&1, 5, millis(0));
    assert!(!in_flight.may_poll());
    in_flight.end(&0, millis(1));
    assert!(in_flight.may_poll());
    assert_eq!((in_flight.records(), in_flight.bytes()), (1, 5));
    in_flight.begin(1, millis(2));
    assert_eq!((in_flight.records(), in_flight.bytes()), (0, 0));
}

#[test]
#[should_panic(expected = "finished of")]
fn a_record_that_was_not_read_cannot_finish() {
    let mut in_flight = two(bounds(4, 1000, 2));
    in_flight.start(&1, 7, millis(0));
    in_flight.finish(&0, 7, millis(0));
}

/// Random steps. In each, milliseconds pass; then a partition is polled, finishes a record, is assigned or
/// revoked, or the limit changes.
fn steps() -> impl Strategy<Value = Vec<(u64, u8, u8, usize)>> {
    prop::collection::vec((0_u64..400, 0_u8..11, 0_u8..4, 0_usize..40), 1..300)
}

proptest! {
    #[test]
    fn bounds_hold_and_everything_resumes_in_the_end(
        steps in steps(), records_max in 1_usize..20, share in 1_usize..4, bytes_max in 1_usize..200,
    ) {
        let partition_max = (records_max / share).max(1);
        let partition_bytes_max = (bytes_max / share).max(1);
        let bounds = InFlightBounds { partition_bytes_max, ..bounds(records_max, bytes_max, partition_max) };
        let mut in_flight = InFlight::new(bounds).unwrap();
        let mut inside: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        let mut paused = std::collections::BTreeSet::new();
        let mut now = 0;
        for (passes, what, partition, bytes) in steps {
            now += passes;
            let at = millis(now);
            match what {
                0 => {
                    in_flight.begin(partition, at);
                    inside.insert(partition, Vec::new());
                    paused.remove(&partition);
                }
                1 => {
                    in_flight.end(&partition, at);
                    inside.remove(&partition);
                    paused.remove(&partition);
                }
                2 => in_flight.limit(bytes.min(records_max)),
                3..=6 => {
                    if let Some(bytes) = inside.get_mut(&partition).and_then(Vec::pop) {
                        in_flight.finish(&partition, bytes, at);
                    }
                }
                _ => {
                    if in_flight.may_poll() && !paused.contains(&partition)
                        && let Some(list) = inside.get_mut(&partition)
                    {
                        let before: usize = list.len();
                        prop_assert!(before < partition_max, "a partition passed its bound");
                        prop_assert!(list.iter().sum::<usize>() < partition_bytes_max, "in bytes");
                        list.push(bytes);
                        in_flight.start(&partition, bytes, at);
                    }
                }
            }
            let flow = in_flight.flow(at);
            for partition in flow.pause {
                prop_assert!(paused.insert(partition), "paused twice");
            }
            for partition in flow.resume {
                prop_assert!(paused.remove(&partition), "resumed without a pause");
            }
            let records = inside.values().map(Vec::len).sum::<usize>();
            let bytes = inside.values().flatten().sum::<usize>();
            prop_assert!(records <= records_max, "{records} records inside");
            prop_assert!(bytes < bytes_max + 40, "{bytes} bytes inside");
            prop_assert_eq!((in_flight.records(), in_flight.bytes()), (records, bytes));
            prop_assert_eq!(in_flight.paused(), paused.len());
        }
        now += 1000;
        let Flow { pause, resume } = in_flight.flow(millis(now));
        paused.extend(pause);
        paused.retain(|partition| !resume.contains(partition));
        prop_assert!(in_flight.may_poll(), "a bound that stays full must not end the polling");
        for (partition, list) in &mut inside {
            for bytes in list.drain(..) {
                in_flight.finish(partition, bytes, millis(now));
            }
        }
        let flow = in_flight.flow(millis(now));
        prop_assert!(flow.pause.is_empty());
        prop_assert_eq!(flow.resume.len(), paused.len());
        prop_assert!(in_flight.may_poll());
    }

    #[test]
    fn a_bound_that_stays_full_is_polled_again_in_time(
        fill in prop::collection::vec(0_u8..3, 1..40), partition_max in 1_usize..8,
    ) {
        let mut in_flight = InFlight::new(bounds(12, 1 << 20, partition_max)).unwrap();
        (0..3).for_each(|partition| in_flight.begin(partition, millis(0)));
        for partition in fill {
            if in_flight.may_poll() {
                in_flight.start(&partition, 1, millis(0));
            }
        }
        in_flight.flow(millis(1000));
        prop_assert!(in_flight.may_poll());
    }
}
