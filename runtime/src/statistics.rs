//! Lag of one partition, from the figures of its source.

use crate::source::PartitionStatistics;

/// State of a partition's lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not known yet.
    Unknown,
    /// Number of records that are not committed.
    ConsumerLag(u64),
    /// The log ends before the read position: it is another log, or was truncated. The number is its records.
    Beyond(u64),
}

/// Lag of a partition with the position `committed`, or without one, its first read record. With nothing in
/// flight or fetched, the rest of the log is transaction markers, so there is no lag. Without a read record,
/// the next fetch is the position.
pub fn standing(figures: &PartitionStatistics, committed: Option<i64>, idle: bool) -> Standing {
    let PartitionStatistics {
        prefetched,
        next_offset,
        end,
        beginning,
        ..
    } = *figures;
    if end < 0 {
        return Standing::Unknown;
    }
    let fetched = (next_offset >= 0).then_some(next_offset - prefetched);
    let read = fetched.filter(|_| committed.is_none() || (idle && prefetched == 0));
    match (read.max(committed), committed) {
        (_, Some(committed)) if committed > end => Standing::Beyond((end - beginning.max(0)).max(0) as u64),
        // A fetch beyond the known end is no contradiction; the end is only older.
        (Some(stands), _) => Standing::ConsumerLag((end - stands).max(0) as u64),
        (None, _) => Standing::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        (end, next_offset, prefetched): (i64, i64, i64),
        committed: Option<i64>,
        idle: bool,
        expected: Standing,
    ) {
        let figures = PartitionStatistics {
            prefetched,
            next_offset,
            end,
            beginning: 7,
            is_fetched: true,
        };
        assert_eq!(standing(&figures, committed, idle), expected);
    }

    #[test]
    fn the_lag_counts_from_what_is_committed() {
        check((100, 90, 5), Some(40), false, Standing::ConsumerLag(60));
        check((100, 90, 5), None, false, Standing::ConsumerLag(15));
        check((100, -1001, 0), None, false, Standing::Unknown);
        check((-1001, 0, 0), Some(40), true, Standing::Unknown);
    }

    #[test]
    fn a_marker_at_the_end_is_no_lag() {
        check((101, 101, 0), Some(100), true, Standing::ConsumerLag(0));
        check((101, 101, 0), Some(90), false, Standing::ConsumerLag(11));
    }

    #[test]
    fn a_log_that_ends_before_what_was_read_is_no_lag_of_0() {
        check((100, 200, 0), Some(200), true, Standing::Beyond(93));
        check((100, 60, 0), Some(101), false, Standing::Beyond(93));
    }
}
