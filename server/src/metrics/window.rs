//! What happened in the last minute: six slots of ten seconds, the oldest of which is cleared and filled
//! anew. A reading covers between 50 and 60 seconds.

use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_core::Nanos;

use super::histogram::logarithmic;

const SLOTS: usize = 6;
const SLOT_NS: u64 = 10_000_000_000;

/// A ring of slots, one of which is current. Slots are numbered from the clock's start.
struct Ring<T> {
    slots: [T; SLOTS],
    current: u64,
}

impl<T> Ring<T> {
    fn new(make: impl Fn() -> T) -> Ring<T> {
        Ring {
            slots: std::array::from_fn(|_| make()),
            current: 0,
        }
    }

    /// Clears the slots that have come round since the last call. A reading of the clock that comes in
    /// late does not turn the ring back.
    fn advance(&mut self, now: Nanos, clear: impl Fn(&mut T)) {
        let slot = now.0 / SLOT_NS;
        if slot > self.current {
            let first = (self.current + 1).max(slot.saturating_sub(SLOTS as u64 - 1));
            for passed in first..=slot {
                clear(self.at(passed));
            }
            self.current = slot;
        }
    }

    fn at(&mut self, slot: u64) -> &mut T {
        &mut self.slots[(slot % SLOTS as u64) as usize]
    }
}

/// Latencies 2 % apart from 10 µs to ten minutes, in nanoseconds. A value read back is the middle of its
/// two bounds, so within 1 % of the true one.
static BOUNDS: LazyLock<Vec<u64>> = LazyLock::new(|| logarithmic(10_000, 600_000_000_000, 1.02));

/// The quantiles of the last minute's latencies, within 1 %, in 22 KiB.
pub(super) struct SlidingQuantiles(Mutex<Ring<Box<[u32]>>>);

impl Default for SlidingQuantiles {
    fn default() -> SlidingQuantiles {
        SlidingQuantiles(Mutex::new(Ring::new(|| vec![0; BOUNDS.len() + 1].into())))
    }
}

impl SlidingQuantiles {
    /// The lock is held for one increment.
    pub(super) fn record(&self, now: Nanos, latency: Duration) {
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < latency);
        let mut ring = self.0.lock();
        ring.advance(now, |slot| slot.fill(0));
        let current = ring.current;
        let count = &mut ring.at(current)[bucket];
        *count = count.saturating_add(1);
    }

    fn add_to(&self, counts: &mut [u64], now: Nanos) {
        let mut ring = self.0.lock();
        ring.advance(now, |slot| slot.fill(0));
        for slot in &ring.slots {
            counts
                .iter_mut()
                .zip(slot)
                .for_each(|(sum, count)| *sum += u64::from(*count));
        }
    }
}

/// The latencies below which those shares of the last minute's requests lie, in all of `windows`
/// together; `None` where there was no request.
pub(super) fn read_all<'a, const N: usize>(
    windows: impl Iterator<Item = &'a SlidingQuantiles>,
    now: Nanos,
    quantiles: [f64; N],
) -> Option<[Duration; N]> {
    let mut counts = vec![0_u64; BOUNDS.len() + 1];
    windows.for_each(|window| window.add_to(&mut counts, now));
    let total: u64 = counts.iter().sum();
    (total > 0).then(|| quantiles.map(|q| value_at(&counts, (q * total as f64).ceil().max(1.0) as u64)))
}

/// The value of the `rank`th of the sorted latencies, counted from 1.
fn value_at(counts: &[u64], rank: u64) -> Duration {
    let mut below = 0;
    let bucket = counts.iter().position(|count| {
        below += count;
        below >= rank
    });
    let bucket = bucket.unwrap_or(BOUNDS.len());
    let upper = BOUNDS[bucket.min(BOUNDS.len() - 1)];
    let lower = if bucket == 0 { 0 } else { BOUNDS[bucket - 1] };
    Duration::from_nanos(u64::midpoint(lower, upper))
}

/// How much of the last minute was busy.
pub(super) struct SlidingBusy(Mutex<Ring<u64>>);

impl Default for SlidingBusy {
    fn default() -> SlidingBusy {
        SlidingBusy(Mutex::new(Ring::new(|| 0)))
    }
}

impl SlidingBusy {
    /// Adds work that ended `now`, to each slot the part that fell into it.
    pub(super) fn add(&self, now: Nanos, took: Duration) {
        let mut ring = self.0.lock();
        ring.advance(now, |busy| *busy = 0);
        let oldest = ring.current.saturating_sub(SLOTS as u64 - 1) * SLOT_NS;
        let mut end = now.0;
        let start = (now - took).0.max(oldest);
        while end > start {
            // The slot that holds the instant before `end`.
            let slot = (end - 1) / SLOT_NS;
            let from = start.max(slot * SLOT_NS);
            *ring.at(slot) += end - from;
            end = from;
        }
    }

    /// Busy time over the time that the slots cover. Two models on one device may run at once; the
    /// device is then no more than busy.
    pub(super) fn ratio(&self, now: Nanos) -> f64 {
        let mut ring = self.0.lock();
        ring.advance(now, |busy| *busy = 0);
        let covered = now.0 - ring.current.saturating_sub(SLOTS as u64 - 1) * SLOT_NS;
        let busy: u64 = ring.slots.iter().sum();
        if covered == 0 {
            0.0
        } else {
            (busy as f64 / covered as f64).min(1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(window: &SlidingQuantiles, now: Nanos, q: [f64; N]) -> Option<[Duration; N]> {
        read_all(std::iter::once(window), now, q)
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let window = SlidingQuantiles::default();
        let values: Vec<u64> = (1..=100_000).map(|n| 20_000 + n * n / 7).collect();
        for ns in &values {
            window.record(at(1), Duration::from_nanos(*ns));
        }
        let quantiles = [0.5, 0.9, 0.99, 0.999];
        let read = read(&window, at(1), quantiles).unwrap();
        for (q, read) in quantiles.into_iter().zip(read) {
            let exact = values[(q * values.len() as f64).ceil() as usize - 1] as f64;
            let error = (read.as_nanos() as f64 - exact).abs() / exact;
            assert!(
                error < 0.0101,
                "p{q}: read {read:?}, exact {exact} ns, off by {error}"
            );
        }
    }

    #[test]
    fn a_minute_later_everything_is_forgotten() {
        let window = SlidingQuantiles::default();
        window.record(at(5), Duration::from_secs(2));
        assert!(read(&window, at(50), [0.5]).is_some());
        window.record(at(50), Duration::from_millis(1));
        assert!(read(&window, at(59), [0.99]).unwrap()[0] > Duration::from_secs(1));
        assert!(read(&window, at(61), [0.99]).unwrap()[0] < Duration::from_millis(2));
        assert_eq!(read(&window, at(111), [0.5]), None);
        // A silence longer than the ring, then traffic again.
        window.record(at(1_000), Duration::from_millis(3));
        let read = read(&window, at(1_001), [0.01]).unwrap()[0];
        assert!(read > Duration::from_millis(2), "{read:?} is older than a minute");
    }

    #[test]
    fn a_late_clock_loses_nothing_and_turns_nothing_back() {
        let window = SlidingQuantiles::default();
        window.record(at(30), Duration::from_millis(7));
        window.record(at(19), Duration::from_millis(7));
        assert!(read(&window, at(79), [0.5]).is_some());
        assert_eq!(read(&window, at(90), [0.5]), None);
    }

    #[test]
    fn values_outside_the_bounds_are_clamped() {
        let window = SlidingQuantiles::default();
        window.record(at(1), Duration::ZERO);
        assert!(read(&window, at(1), [0.5]).unwrap()[0] < Duration::from_micros(11));
        window.record(at(1), Duration::from_hours(24));
        assert!(read(&window, at(1), [0.999]).unwrap()[0] > Duration::from_secs(590));
    }

    #[test]
    fn busy_time_is_a_share_of_the_last_minute() {
        let busy = SlidingBusy::default();
        busy.add(at(8), Duration::from_secs(4));
        assert!((busy.ratio(at(8)) - 0.5).abs() < 1e-9);
        // A batch across three slots: 5 s of the first, 10 of the second, 5 of the third.
        busy.add(at(35), Duration::from_secs(20));
        assert!((busy.ratio(at(40)) - 24.0 / 40.0).abs() < 1e-9);
        // At 75 s the slots from 20 s on are left: 15 of the 20 seconds, over 55.
        assert!((busy.ratio(at(75)) - 15.0 / 55.0).abs() < 1e-9);
        assert!(busy.ratio(at(200)).abs() < 1e-9);
        busy.add(at(300), Duration::from_secs(999));
        assert!((busy.ratio(at(300)) - 1.0).abs() < 1e-9);
    }
}
