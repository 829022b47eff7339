//! Progress of a pump, and what it waits for. The pump writes it, and the watchdog reads it without waiting,
//! so that a pump that hangs in a call is reported too.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time without progress before the first report; each further report comes after twice the time.
const STILL: Duration = Duration::from_secs(15);

/// Interval of the watchdog.
pub const LOOK: Duration = Duration::from_secs(1);

/// Outstanding work of a pump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hand {
    /// Records in flight.
    pub records: usize,
    /// Calls that are being scored.
    pub calls: usize,
    /// Calls in the retry queue.
    pub held: usize,
    /// Paused partitions.
    pub paused: usize,
    /// Whether sent records are uncommitted.
    pub open: bool,
    /// Lag of its partitions, as last reported by the broker.
    pub behind: u64,
}

/// Progress of one pump.
pub struct Progress {
    state: Mutex<State>,
}

struct State {
    doing: &'static str,
    doing_since: Instant,
    hand: Hand,
    /// Whether progress is expected even without outstanding work.
    pressed: bool,
    moved: Instant,
    commits: u64,
    /// Time of the watchdog's last check.
    looked: Instant,
    /// Longest time between two checks since the last commit.
    gap: Duration,
    say_after: Duration,
}

/// Report of a pump without progress.
#[derive(Clone, Copy, Debug)]
pub struct Still {
    /// Its present activity.
    pub doing: &'static str,
    /// Duration of that activity.
    pub doing_for: Duration,
    /// Time since the last progress.
    pub still_for: Duration,
    /// Its outstanding work.
    pub hand: Hand,
}

impl Progress {
    /// No progress is expected yet.
    pub fn new(now: Instant) -> Progress {
        Progress {
            state: Mutex::new(State {
                doing: "beginning",
                doing_since: now,
                hand: Hand::default(),
                pressed: false,
                moved: now,
                commits: 0,
                looked: now,
                gap: Duration::ZERO,
                say_after: STILL,
            }),
        }
    }

    /// Begins an activity that should end soon.
    pub fn press(&self, doing: &'static str) {
        self.begin(doing, true);
    }

    /// Begins an activity without outstanding work.
    pub fn rest(&self, doing: &'static str) {
        self.begin(doing, false);
    }

    fn begin(&self, doing: &'static str, pressed: bool) {
        let now = Instant::now();
        let mut state = self.state.lock();
        *state = State {
            doing,
            doing_since: now,
            hand: Hand::default(),
            pressed,
            moved: now,
            say_after: STILL,
            ..*state
        };
    }

    /// Sets the present activity.
    pub fn doing(&self, doing: &'static str) {
        let mut state = self.state.lock();
        if state.doing != doing {
            state.doing = doing;
            state.doing_since = Instant::now();
        }
    }

    /// Notes the end of a round, with the outstanding work.
    pub fn turned(&self, hand: Hand) {
        let mut state = self.state.lock();
        state.hand = hand;
        state.pressed = false;
        if !hand.expects() {
            state.moves();
        }
    }

    /// Notes a commit.
    pub fn moved(&self) {
        let mut state = self.state.lock();
        state.commits += 1;
        state.gap = Duration::ZERO;
        state.moves();
    }

    /// Longest time since the last commit for which the whole process was frozen: the watchdog checks at
    /// every [`LOOK`], and did not.
    pub fn frozen(&self, now: Instant) -> Duration {
        let state = self.state.lock();
        let gap = state.gap.max(now.saturating_duration_since(state.looked));
        gap.saturating_sub(LOOK)
    }

    /// Number of commits.
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// A report, if the pump has been without progress for long enough.
    pub fn still(&self, now: Instant) -> Option<Still> {
        let mut state = self.state.lock();
        state.gap = state.gap.max(now.saturating_duration_since(state.looked));
        state.looked = now;
        let still_for = now.saturating_duration_since(state.moved);
        let expects = state.pressed || state.hand.expects();
        if !expects || still_for < state.say_after {
            return None;
        }
        state.say_after = 2 * still_for;
        Some(Still {
            doing: state.doing,
            doing_for: now.saturating_duration_since(state.doing_since),
            still_for,
            hand: state.hand,
        })
    }
}

impl State {
    fn moves(&mut self) {
        self.moved = Instant::now();
        self.say_after = STILL;
    }
}

impl Hand {
    fn expects(self) -> bool {
        self.records > 0 || self.open || self.behind > 0
    }
}

impl fmt::Display for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hand {
            records,
            calls,
            held,
            paused,
            open,
            behind,
        } = self;
        let open = if *open { "something" } else { "nothing" };
        write!(
            f,
            "{records} records inside, {calls} calls being scored, {held} held, {paused} partitions paused, {open} \
             sent and not committed, {behind} records behind"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn without_outstanding_work_no_progress_is_expected() {
        let progress = Progress::new(Instant::now());
        let later = at(Instant::now(), 1000);
        assert!(progress.still(later).is_none());
        progress.turned(Hand::default());
        assert!(progress.still(later).is_none());
        progress.rest("waiting");
        assert!(progress.still(later).is_none());
    }

    #[test]
    fn a_stall_is_reported_at_growing_intervals() {
        let progress = Progress::new(Instant::now());
        let hand = Hand {
            records: 3,
            open: true,
            ..Hand::default()
        };
        progress.turned(hand);
        progress.doing("commit_transaction");
        let start = Instant::now();
        assert!(progress.still(at(start, 14)).is_none());
        let still = progress.still(at(start, 16)).unwrap();
        assert_eq!((still.doing, still.hand), ("commit_transaction", hand));
        assert!(progress.still(at(start, 30)).is_none());
        assert!(progress.still(at(start, 33)).is_some());
        progress.moved();
        assert!(progress.still(at(Instant::now(), 14)).is_none());
        assert!(progress.still(at(Instant::now(), 16)).is_some());
    }

    #[test]
    fn a_process_that_was_frozen_knows_it_until_something_is_committed() {
        let start = Instant::now();
        let progress = Progress::new(start);
        progress.still(at(start, 1));
        assert!(
            progress.frozen(at(start, 2)).is_zero(),
            "it is looked at each second"
        );
        assert_eq!(
            progress.frozen(at(start, 13)).as_secs(),
            11,
            "nobody has looked since"
        );
        progress.still(at(start, 13));
        progress.still(at(start, 14));
        assert_eq!(progress.frozen(at(start, 14)).as_secs(), 11);
        progress.moved();
        assert!(progress.frozen(at(start, 14)).is_zero());
    }

    #[test]
    fn a_pressed_pump_is_watched_without_outstanding_work() {
        let progress = Progress::new(Instant::now());
        progress.press("connecting");
        assert!(progress.still(at(Instant::now(), 16)).is_some());
        progress.turned(Hand::default());
        assert!(progress.still(at(Instant::now(), 100)).is_none());
    }
}
