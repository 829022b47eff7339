//! Tests of the relations between bounds, and between times.

use std::time::Duration;

use super::{read, route, with, wrong};

#[test]
fn bounds_that_cannot_hold_each_other_are_refused() {
    for (more, message) in [
        (
            "in_flight_records_max = 10\npartition_in_flight_records_max = 11",
            "13:35: route `reviews`: 11 records in flight of one partition are more than the 10 of all (in_flight_records_max)",
        ),
        (
            "in_flight_bytes_max = \"1KiB\"",
            "12:23: route `reviews`: 1KiB in flight cannot hold one record of 896KiB (record_bytes_max)",
        ),
        (
            "in_flight_bytes_max = \"4MiB\"\npartition_in_flight_bytes_max = \"5MiB\"",
            "13:33: route `reviews`: 5MiB in flight of one partition are more than the 4MiB of all (in_flight_bytes_max)",
        ),
        (
            "partition_in_flight_bytes_max = \"1KiB\"",
            "12:33: route `reviews`: 1KiB in flight of one partition cannot hold one record of 896KiB (record_bytes_max)",
        ),
        (
            "record_bytes_max = \"512MiB\"",
            "12:20: route `reviews`: a record of 512MiB never fits a queue of 256MiB (limits.queue_bytes_max)",
        ),
        (
            "consumers = 65",
            "12:13: route `reviews`: 65 consumers; 64 is the most in one process",
        ),
        (
            "commit_interval = \"0s\"",
            "12:19: route `reviews`: a commit_interval of 0s commits every record by itself; 1ms is the least",
        ),
        (
            "transaction_timeout = \"16m\"",
            "12:23: route `reviews`: transaction_timeout is 16m; 1s to 15m is what brokers take",
        ),
        (
            "transaction_timeout = \"46s\"",
            "12:23: route `reviews`: transaction_timeout = 46s outlasts the session.timeout.ms of 45s: the next owner of a partition would wait for it",
        ),
        (
            "commit_interval = \"10s\"",
            "12:19: route `reviews`: commit_interval = 10s leaves nothing of transaction_timeout = 10s",
        ),
        (
            "commit_interval_max = \"10s\"",
            "12:23: route `reviews`: commit_interval_max = 10s leaves nothing of transaction_timeout = 10s",
        ),
        (
            "commit_interval_max = \"50ms\"",
            "12:23: route `reviews`: commit_interval_max = 50ms is less than commit_interval = 100ms",
        ),
        (
            "revoke_timeout = \"10s\"",
            "12:18: route `reviews`: revoke_timeout = 10s leaves nothing of transaction_timeout = 10s",
        ),
        (
            "client = { max.poll.interval.ms = 1500 }",
            "4:1: route `reviews`: revoke_timeout = 1s 500ms and commit_interval_max = 500ms leave nothing of the max.poll.interval.ms of 1s 500ms",
        ),
    ] {
        wrong(&with(more), message);
    }
    // Without transactions their times are not checked.
    let free = "delivery = \"at-least-once\"\ncommit_interval = \"1m\"";
    assert!(read(&with(free), &[]).is_ok());
    // Setting one of the two times is enough.
    let seldom = route(&with("commit_interval = \"2s\""));
    assert_eq!(seldom.commit_interval_max, Duration::from_secs(2));
    // A large record raises the bounds that must hold it.
    assert_eq!(
        route(&with("record_bytes_max = \"100MiB\"")).in_flight_bytes_max,
        100 << 20
    );
}
