//! Whose turn it is: a team runs the forwards of all models one after the other, in the order in which they came.
//!
//! A large batch makes everybody behind it wait, whoever they are. So a forward may be preemptible: between two of
//! its products it lets an urgent forward in, which its threads compute at once and which would otherwise have waited
//! for its end. What it has computed so far stays where it is, so nothing is computed twice and no result changes. It
//! lets in one between two products, and only while they have had no more than three quarters of the time: so it gets on
//! under any load.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ops::{Priority, Sharing};

/// How many times longer than the forward that lets them in urgent ones may have run before one more is let in: it keeps a
/// quarter of the time, as aged bulk work has a quarter of a batch.
const GUESTS_MAX: u32 = 3;

/// Where a forward runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has the team.
    Team,
    /// Inside of a preemptible forward, on those of its threads that have come to the end of a product.
    Inside,
}

/// The turns of one team.
#[derive(Default)]
pub(crate) struct Turns {
    line: Mutex<Line>,
    changed: Condvar,
    /// Whether who has the turn lets others in.
    preemptible: AtomicBool,
    /// Urgent forwards that wait or were let in: what a preemptible one looks at between its products.
    urgent: AtomicUsize,
    /// Counts up when a guest is let in and when it has ended: odd while one runs.
    round: AtomicU64,
    /// What guests took of the time of who has the turn, in nanoseconds.
    taken: AtomicU64,
}

#[derive(Default)]
struct Line {
    tickets: u64,
    /// Whose turn it is. Nobody waits while it is nobody's.
    holder: Option<u64>,
    /// Since when.
    begun: Option<Instant>,
    /// Who has been let in.
    guest: Option<u64>,
    /// What those before it took of the time since then.
    guests: Duration,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    /// What an urgent one is to have run.
    task: Option<Task>,
}

/// The forward of a thread that waits for its end.
struct Forward<'a>(&'a mut (dyn FnMut(Place) + Send));

struct Task(*mut Forward<'static>);

// SAFETY: a forward is `Send`, and who takes its task out of the line is the only one to use it.
unsafe impl Send for Task {}

/// A forward that was let in. Its owner waits until it has run.
pub(crate) struct Guest {
    task: Task,
    round: u64,
}

/// What a thread finds between two products.
pub(crate) enum Found {
    /// An urgent forward, for this thread to run.
    Waiting(Guest),
    /// One that another thread runs in this round.
    Running(u64),
}

impl Guest {
    /// The round in which it runs.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Runs it to its end.
    pub(crate) fn run(self, turns: &Turns) {
        // SAFETY: its owner is in `wait` and stays there while the line names it as the guest, so what the task points
        // to is alive; and the task was taken out of the line, so nobody else has it.
        let Forward(run) = unsafe { &mut *self.task.0 };
        let begun = Instant::now();
        // It catches what the forward panics with.
        run(Place::Inside);
        let took = begun.elapsed();
        let mut line = turns.line.lock();
        line.guest = None;
        line.guests += took;
        turns.round.fetch_add(1, Ordering::Release);
        turns.urgent.fetch_sub(1, Ordering::Relaxed);
        drop(line);
        turns.changed.notify_all();
    }
}

impl Turns {
    /// Runs `work`, a whole forward, when it is its turn, or earlier where it is urgent and is let in. Says how the
    /// team was shared.
    pub(crate) fn run<R: Send>(
        &self,
        priority: Priority,
        work: impl FnOnce(Place) -> R + Send,
    ) -> (R, Sharing) {
        let arrived = Instant::now();
        let (mut work, mut outcome) = (Some(work), None);
        let mut run = |place| {
            let begun = Instant::now();
            if let Some(work) = work.take() {
                let done = catch_unwind(AssertUnwindSafe(|| work(place)));
                outcome = Some((done, place, begun));
            }
        };
        let mut forward = Forward(&mut run);
        let turn = self.wait((priority == Priority::Urgent).then_some(&mut forward));
        let gave = turn.map_or(Duration::ZERO, |turn| turn.run(priority, forward));
        let Some((done, place, begun)) = outcome else {
            unreachable!(
                "who has waited has its turn, in which the forward runs, or was let in and has ended"
            )
        };
        let sharing = Sharing {
            waited: begun - arrived,
            gave,
            inside: place == Place::Inside,
        };
        (done.unwrap_or_else(|panic| resume_unwind(panic)), sharing)
    }

    /// Returns when it is the caller's turn, or with `None` once `forward` was let in and has ended.
    fn wait(&self, forward: Option<&mut Forward<'_>>) -> Option<Turn<'_>> {
        let mut line = self.line.lock();
        line.tickets += 1;
        let ticket = line.tickets;
        if line.holder.is_none() {
            line.holder = Some(ticket);
            return Some(Turn(self));
        }
        let task = forward.map(|forward| Task(std::ptr::from_mut(forward).cast()));
        if task.is_some() {
            self.urgent.fetch_add(1, Ordering::Relaxed);
        }
        line.waiting.push_back(Waiting { ticket, task });
        loop {
            self.changed.wait(&mut line);
            if line.holder == Some(ticket) {
                return Some(Turn(self));
            }
            if line.guest != Some(ticket) && line.waiting.iter().all(|waiting| waiting.ticket != ticket) {
                return None;
            }
        }
    }

    /// What a thread of the forward whose turn it is has to do between two products, beside the next.
    pub(crate) fn look(&self) -> Option<Found> {
        if self.urgent.load(Ordering::Relaxed) == 0 || !self.preemptible.load(Ordering::Relaxed) {
            return None;
        }
        let mut line = self.line.lock();
        if line.guest.is_some() {
            return Some(Found::Running(self.round.load(Ordering::Relaxed)));
        }
        let alone = line.begun?.elapsed().saturating_sub(line.guests);
        if line.guests > alone * GUESTS_MAX {
            return None;
        }
        let first = line.waiting.iter().position(|waiting| waiting.task.is_some())?;
        let Waiting { ticket, task } = line.waiting.remove(first)?;
        line.guest = Some(ticket);
        let round = self.round.fetch_add(1, Ordering::Release) + 1;
        task.map(|task| Found::Waiting(Guest { task, round }))
    }

    /// The round of the guest that runs, if one does.
    pub(crate) fn running(&self) -> Option<u64> {
        let round = self.round.load(Ordering::Acquire);
        (round % 2 == 1).then_some(round)
    }

    /// True while the guest of `round` runs.
    pub(crate) fn is_running(&self, round: u64) -> bool {
        self.round.load(Ordering::Acquire) == round
    }

    /// A thread, one of `of` that compute the forward whose turn it is, was a guest's for so long.
    pub(crate) fn gave(&self, time: Duration, of: usize) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / of.max(1) as u64;
        self.taken.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// The turn, which goes on to the next in line.
struct Turn<'a>(&'a Turns);

impl Turn<'_> {
    /// Runs a forward that catches its panics, and says what guests took of its time.
    fn run(self, priority: Priority, Forward(run): Forward<'_>) -> Duration {
        let turns = self.0;
        let mut line = turns.line.lock();
        (line.begun, line.guests) = (Some(Instant::now()), Duration::ZERO);
        drop(line);
        turns.taken.store(0, Ordering::Relaxed);
        let preemptible = priority == Priority::Preemptible;
        turns.preemptible.store(preemptible, Ordering::Relaxed);
        run(Place::Team);
        Duration::from_nanos(turns.taken.load(Ordering::Relaxed))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let turns = self.0;
        let mut line = turns.line.lock();
        let next = line.waiting.pop_front();
        if next.as_ref().is_some_and(|next| next.task.is_some()) {
            turns.urgent.fetch_sub(1, Ordering::Relaxed);
        }
        line.holder = next.map(|next| next.ticket);
        turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use super::*;

    /// Until so many wait.
    fn until_waiting(turns: &Turns, count: usize) {
        while turns.line.lock().waiting.len() < count {
            thread::yield_now();
        }
    }

    /// Between two products of a forward of one thread; true where somebody was let in.
    fn let_in(turns: &Turns) -> bool {
        match turns.look() {
            Some(Found::Waiting(guest)) => guest.run(turns),
            Some(Found::Running(_)) => unreachable!("there is no other thread"),
            None => return false,
        }
        true
    }

    /// Between products of which there are so many that each guest gets its time.
    fn let_in_all(turns: &Turns, guests: usize) {
        for _ in 0..guests {
            while !let_in(turns) {
                thread::yield_now();
            }
        }
        assert!(!let_in(turns));
    }

    /// Runs `between` in a forward of `priority` that others wait behind: as many as `behind`, in this order. Returns
    /// where and on which thread each of them ran.
    fn check(
        priority: Priority,
        behind: &[Priority],
        between: impl FnOnce(&Turns) + Send,
    ) -> Vec<(usize, Place, ThreadId)> {
        let (turns, ran) = (Turns::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            turns.run(priority, |place| {
                assert_eq!(place, Place::Team);
                for (number, &priority) in behind.iter().enumerate() {
                    let (turns, ran) = (&turns, &ran);
                    let note = move |place| ran.lock().push((number, place, thread::current().id()));
                    scope.spawn(move || turns.run(priority, note));
                    until_waiting(turns, number + 1);
                }
                between(&turns);
            });
        });
        assert_eq!(turns.urgent.load(Ordering::Relaxed), 0);
        assert!(turns.line.lock().holder.is_none());
        ran.into_inner()
    }

    use Priority::{Preemptible, Urgent};

    #[test]
    fn an_urgent_forward_runs_inside_of_a_preemptible_one_on_its_thread() {
        let ran = check(Preemptible, &[Preemptible, Urgent, Urgent], |turns| {
            assert!(let_in(turns));
            until_waiting(turns, 2);
        });
        let here = thread::current().id();
        let order: Vec<_> = ran.iter().map(|&(number, place, _)| (number, place)).collect();
        assert_eq!(order, [(1, Place::Inside), (0, Place::Team), (2, Place::Team)]);
        assert!(ran[0].2 == here && ran[1].2 != here && ran[2].2 != here);
    }

    #[test]
    fn an_urgent_forward_lets_nobody_in_and_turns_are_taken_in_order() {
        let behind = [Urgent, Preemptible, Urgent, Urgent, Preemptible];
        let ran = check(Urgent, &behind, |turns| assert!(!let_in(turns)));
        let order: Vec<_> = ran.iter().map(|&(number, place, _)| (number, place)).collect();
        let expected: Vec<_> = (0..behind.len()).map(|number| (number, Place::Team)).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn a_preemptible_forward_lets_in_nobody_who_is_not_urgent() {
        let ran = check(Preemptible, &[Preemptible], |turns| assert!(!let_in(turns)));
        assert_eq!(ran[0].1, Place::Team);
    }

    #[test]
    fn while_a_guest_runs_others_learn_its_round_and_are_not_let_in() {
        let turns = Turns::default();
        thread::scope(|scope| {
            turns.run(Preemptible, |_| {
                for number in 0..2 {
                    let guest = || {
                        let Some(Found::Running(round)) = turns.look() else {
                            unreachable!("this guest runs")
                        };
                        assert!(turns.is_running(round) && !turns.is_running(round + 1));
                    };
                    let turns = &turns;
                    scope.spawn(move || turns.run(Urgent, |_| guest()));
                    until_waiting(turns, number + 1);
                }
                let_in_all(&turns, 2);
            });
        });
    }

    #[test]
    fn guests_leave_a_quarter_of_the_time() {
        const TOOK: Duration = Duration::from_millis(30);
        let turns = Turns::default();
        let (begun, second) = (Instant::now(), Mutex::new(None));
        thread::scope(|scope| {
            turns.run(Preemptible, |_| {
                let (turns, second) = (&turns, &second);
                scope.spawn(move || {
                    turns.run(Urgent, |_| {
                        let begun = Instant::now();
                        while begun.elapsed() < TOOK {}
                    })
                });
                until_waiting(turns, 1);
                scope.spawn(move || turns.run(Urgent, |_| *second.lock() = Some(begun.elapsed())));
                until_waiting(turns, 2);
                let_in_all(turns, 2);
            });
        });
        let begun = second.into_inner().unwrap();
        assert!(begun >= TOOK + TOOK / GUESTS_MAX, "{begun:?}");
    }

    #[test]
    fn what_a_guest_panics_with_is_its_owners() {
        let turns = Turns::default();
        let (outcome, sharing) = thread::scope(|scope| {
            let (guest, sharing) = turns.run(Preemptible, |_| {
                let guest = scope.spawn(|| turns.run(Urgent, |_| assert!(turns.is_running(0), "on purpose")));
                until_waiting(&turns, 1);
                assert!(let_in(&turns));
                guest
            });
            (guest.join(), sharing)
        });
        assert!(outcome.is_err() && !sharing.inside);
        let ((), sharing) = turns.run(Urgent, |place| assert_eq!(place, Place::Team));
        assert!(!sharing.inside);
    }

    #[test]
    fn the_host_says_what_its_guests_took_and_they_that_they_were_inside() {
        let turns = Turns::default();
        let (host, guest) = thread::scope(|scope| {
            let (guest, host) = turns.run(Preemptible, |_| {
                let guest = scope.spawn(|| turns.run(Urgent, |_| ()).1);
                until_waiting(&turns, 1);
                assert!(let_in(&turns));
                turns.gave(Duration::from_millis(30), 2);
                guest
            });
            (host, guest.join().unwrap())
        });
        assert_eq!((host.gave, host.inside), (Duration::from_millis(15), false));
        assert_eq!((guest.gave, guest.inside), (Duration::ZERO, true));
        let (gave, _) = turns.run(Preemptible, |_| turns.taken.load(Ordering::Relaxed));
        assert_eq!(gave, 0, "each forward counts for itself");
    }
}
