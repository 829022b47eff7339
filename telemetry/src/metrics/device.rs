//! Utilisation of a device: busy time in six slots of ten seconds, where a new slot replaces the oldest. A
//! reading covers the last 50 to 60 seconds.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;
use penstock_core::Nanos;

use crate::clock::Clock;

const SLOTS: u64 = 6;
const SLOT_NS: u64 = 10_000_000_000;

/// The handle that an executor reports its work to.
#[derive(Clone)]
pub struct BusyMeter {
    clock: Clock,
    busy: Arc<Mutex<Busy>>,
    gauge: Gauge,
}

impl BusyMeter {
    pub(super) fn new(clock: Clock, gauge: Gauge) -> BusyMeter {
        BusyMeter {
            clock,
            busy: Arc::default(),
            gauge,
        }
    }

    /// Adds work that has just ended.
    pub fn add(&self, took: Duration) {
        self.busy.lock().add(self.clock.now(), took);
    }

    /// Sets the gauge at a scrape, because an idle device reports nothing.
    pub(super) fn publish(&self) {
        self.gauge.set(self.busy.lock().ratio(self.clock.now()));
    }
}

/// Slots are numbered from the clock's start.
#[derive(Default)]
struct Busy {
    slots: [u64; SLOTS as usize],
    current: u64,
}

impl Busy {
    /// Clears the slots that have expired since the last call and returns the start of the oldest one. A late
    /// clock reading does not turn the ring back.
    fn advance(&mut self, now: Nanos) -> u64 {
        let slot = now.0 / SLOT_NS;
        let first = (self.current + 1).max((slot + 1).saturating_sub(SLOTS));
        for passed in first..=slot {
            *self.at(passed) = 0;
        }
        self.current = self.current.max(slot);
        (self.current + 1).saturating_sub(SLOTS) * SLOT_NS
    }

    fn at(&mut self, slot: u64) -> &mut u64 {
        &mut self.slots[(slot % SLOTS) as usize]
    }

    /// Adds work that ended `now`, split over the slots it fell into.
    fn add(&mut self, now: Nanos, took: Duration) {
        let oldest = self.advance(now);
        let start = (now - took).0.max(oldest);
        let mut end = now.0;
        while end > start {
            // Slot that holds the instant before `end`.
            let slot = (end - 1) / SLOT_NS;
            let from = start.max(slot * SLOT_NS);
            *self.at(slot) += end - from;
            end = from;
        }
    }

    /// Busy time as a share of the slots' time. Two models may run at once on one device, so the share is
    /// capped at one.
    fn ratio(&mut self, now: Nanos) -> f64 {
        let covered = now.0.saturating_sub(self.advance(now)).max(1);
        let busy: u64 = self.slots.iter().sum();
        (busy as f64 / covered as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn busy_time_is_a_share_of_the_last_minute() {
        let mut busy = Busy::default();
        busy.add(at(8), Duration::from_secs(4));
        assert!((busy.ratio(at(8)) - 0.5).abs() < 1e-9);
        // A batch across three slots: 5 s of the first, 10 of the second, 5 of the third.
        busy.add(at(35), Duration::from_secs(20));
        assert!((busy.ratio(at(40)) - 24.0 / 40.0).abs() < 1e-9);
        // At 75 s the slots from 20 s on remain: 15 of the 20 seconds, over 55.
        assert!((busy.ratio(at(75)) - 15.0 / 55.0).abs() < 1e-9);
        assert!(busy.ratio(at(200)).abs() < 1e-9);
        busy.add(at(300), Duration::from_secs(999));
        assert!((busy.ratio(at(300)) - 1.0).abs() < 1e-9);
        // A late clock reading does not turn the ring back.
        busy.add(at(295), Duration::from_secs(1));
        assert!((busy.ratio(at(300)) - 1.0).abs() < 1e-9);
    }
}
