//! Preemption: a team runs the forwards of all models in the order of arrival, and urgent ones inside preemptible ones.
//!
//! A forward of a large batch delays all forwards behind it. A preemptible forward therefore has a preemption point
//! between two of its products, where its threads run an urgent forward at once. Its own results stay in place, so
//! nothing is computed twice and no result changes. Each point runs one urgent forward, and only while urgent forwards
//! have had at most three quarters of the time. So the preemptible forward advances under any load.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ops::{Priority, Sharing};

/// Longest time of urgent forwards, in times of the preempted forward's own. The preempted forward keeps a quarter of
/// the time, as aged bulk work has a quarter of a batch.
const URGENT_RATIO_MAX: u32 = 3;

/// Threads on which a forward runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the whole team.
    Team,
    /// Inside a preemptible forward, on those of its threads that have reached a preemption point.
    Inside,
}

/// Forwards of one team: the running one, the waiting ones, and the urgent one that preempts.
#[derive(Default)]
pub(crate) struct ForwardQueue {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the running forward can be preempted.
    preemptible: AtomicBool,
    /// Urgent forwards that wait or preempt. Preemption points read this before they take the lock.
    urgent: AtomicUsize,
    /// Counter of starts and ends of preempting forwards: odd while one runs.
    round: AtomicU64,
    /// Time that preempting forwards took from the running one, in nanoseconds.
    preempted_ns: AtomicU64,
}

#[derive(Default)]
struct State {
    tickets: u64,
    /// Ticket of the forward that owns the team; `waiting` is empty while this is `None`.
    holder: Option<u64>,
    /// Start of the owner's forward.
    begun: Option<Instant>,
    /// Ticket of the forward that preempts now.
    preempting: Option<u64>,
    /// Time of the ended preempting forwards since then.
    preempted: Duration,
    /// Waiting forwards, in the order of arrival.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    /// Task of an urgent forward, which a preemption point may run.
    task: Option<Task>,
}

/// Forward of a thread that waits for its end.
struct Forward<'a>(&'a mut (dyn FnMut(Place) + Send));

struct Task(*mut Forward<'static>);

// SAFETY: a forward is `Send`, and the thread that takes its task out of `waiting` is the only one to use it.
unsafe impl Send for Task {}

/// Urgent forward that a preemption point has taken out of `waiting`. Its owner waits until it has run.
pub(crate) struct UrgentForward {
    task: Task,
    round: u64,
}

/// Work of a thread at a preemption point.
pub(crate) enum Preemption {
    /// Urgent forward for this thread to run.
    Start(UrgentForward),
    /// Round of an urgent forward that another thread runs.
    Running(u64),
}

impl UrgentForward {
    /// Round in which it runs.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Runs the forward to its end.
    pub(crate) fn run(self, queue: &ForwardQueue) {
        // SAFETY: the forward's owner is in `wait` and stays there while `preempting` names its ticket, so the task's
        // target is alive. The task was taken out of `waiting`, so no other thread has it.
        let Forward(run) = unsafe { &mut *self.task.0 };
        let begun = Instant::now();
        // `run` catches the forward's panics.
        run(Place::Inside);
        let took = begun.elapsed();
        let mut state = queue.state.lock();
        state.preempting = None;
        state.preempted += took;
        queue.round.fetch_add(1, Ordering::Release);
        queue.urgent.fetch_sub(1, Ordering::Relaxed);
        drop(state);
        queue.changed.notify_all();
    }
}

impl ForwardQueue {
    /// Runs `work`, a whole forward, once it owns the team, or earlier where it is urgent and preempts. Returns how
    /// the team was shared.
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
        let owner = self.wait((priority == Priority::Urgent).then_some(&mut forward));
        let gave = owner.map_or(Duration::ZERO, |owner| owner.run(priority, forward));
        let Some((done, place, begun)) = outcome else {
            unreachable!("a forward that has waited owns the team and runs, or has preempted and ended")
        };
        let sharing = Sharing {
            waited: begun - arrived,
            gave,
            inside: place == Place::Inside,
        };
        (done.unwrap_or_else(|panic| resume_unwind(panic)), sharing)
    }

    /// Waits until the caller owns the team. Returns `None` once `forward` has preempted and ended.
    fn wait(&self, forward: Option<&mut Forward<'_>>) -> Option<Owner<'_>> {
        let mut state = self.state.lock();
        state.tickets += 1;
        let ticket = state.tickets;
        if state.holder.is_none() {
            state.holder = Some(ticket);
            return Some(Owner(self));
        }
        let task = forward.map(|forward| Task(std::ptr::from_mut(forward).cast()));
        if task.is_some() {
            self.urgent.fetch_add(1, Ordering::Relaxed);
        }
        state.waiting.push_back(Waiting { ticket, task });
        loop {
            self.changed.wait(&mut state);
            if state.holder == Some(ticket) {
                return Some(Owner(self));
            }
            if state.preempting != Some(ticket)
                && state.waiting.iter().all(|waiting| waiting.ticket != ticket)
            {
                return None;
            }
        }
    }

    /// Work of a thread of the running forward at a preemption point, other than its next product.
    pub(crate) fn preemption(&self) -> Option<Preemption> {
        if self.urgent.load(Ordering::Relaxed) == 0 || !self.preemptible.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        if state.preempting.is_some() {
            return Some(Preemption::Running(self.round.load(Ordering::Relaxed)));
        }
        let alone = state.begun?.elapsed().saturating_sub(state.preempted);
        if state.preempted > alone * URGENT_RATIO_MAX {
            return None;
        }
        let first = state.waiting.iter().position(|waiting| waiting.task.is_some())?;
        let Waiting { ticket, task } = state.waiting.remove(first)?;
        state.preempting = Some(ticket);
        let round = self.round.fetch_add(1, Ordering::Release) + 1;
        task.map(|task| Preemption::Start(UrgentForward { task, round }))
    }

    /// Round of the forward that preempts now.
    pub(crate) fn running(&self) -> Option<u64> {
        let round = self.round.load(Ordering::Acquire);
        (round % 2 == 1).then_some(round)
    }

    /// True while the preempting forward of `round` runs.
    pub(crate) fn is_running(&self, round: u64) -> bool {
        self.round.load(Ordering::Acquire) == round
    }

    /// Adds the time that one thread, of `of` that compute the running forward, worked for a preempting one.
    pub(crate) fn add_preempted(&self, time: Duration, of: usize) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / of.max(1) as u64;
        self.preempted_ns.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// Ownership of the team, which passes to the next waiting forward when dropped.
struct Owner<'a>(&'a ForwardQueue);

impl Owner<'_> {
    /// Runs a forward that catches its panics, and returns the time that preempting forwards took.
    fn run(self, priority: Priority, Forward(run): Forward<'_>) -> Duration {
        let queue = self.0;
        let mut state = queue.state.lock();
        (state.begun, state.preempted) = (Some(Instant::now()), Duration::ZERO);
        drop(state);
        queue.preempted_ns.store(0, Ordering::Relaxed);
        let preemptible = priority == Priority::Preemptible;
        queue.preemptible.store(preemptible, Ordering::Relaxed);
        run(Place::Team);
        Duration::from_nanos(queue.preempted_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        let queue = self.0;
        let mut state = queue.state.lock();
        let next = state.waiting.pop_front();
        if next.as_ref().is_some_and(|next| next.task.is_some()) {
            queue.urgent.fetch_sub(1, Ordering::Relaxed);
        }
        state.holder = next.map(|next| next.ticket);
        queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use super::*;

    /// Waits until `count` forwards wait.
    fn until_waiting(queue: &ForwardQueue, count: usize) {
        while queue.state.lock().waiting.len() < count {
            thread::yield_now();
        }
    }

    /// Preemption point of a forward on one thread; true where an urgent forward ran.
    fn preempt(queue: &ForwardQueue) -> bool {
        match queue.preemption() {
            Some(Preemption::Start(urgent)) => urgent.run(queue),
            Some(Preemption::Running(_)) => unreachable!("there is no other thread"),
            None => return false,
        }
        true
    }

    /// Preemption points until `count` urgent forwards have run.
    fn preempt_all(queue: &ForwardQueue, count: usize) {
        for _ in 0..count {
            while !preempt(queue) {
                thread::yield_now();
            }
        }
        assert!(!preempt(queue));
    }

    /// Runs `between` in a forward of `priority`, while forwards of the priorities `behind` wait in this order. Returns
    /// the place and the thread of each.
    fn check(
        priority: Priority,
        behind: &[Priority],
        between: impl FnOnce(&ForwardQueue) + Send,
    ) -> Vec<(usize, Place, ThreadId)> {
        let (queue, ran) = (ForwardQueue::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            queue.run(priority, |place| {
                assert_eq!(place, Place::Team);
                for (number, &priority) in behind.iter().enumerate() {
                    let (queue, ran) = (&queue, &ran);
                    let note = move |place| ran.lock().push((number, place, thread::current().id()));
                    scope.spawn(move || queue.run(priority, note));
                    until_waiting(queue, number + 1);
                }
                between(&queue);
            });
        });
        assert_eq!(queue.urgent.load(Ordering::Relaxed), 0);
        assert!(queue.state.lock().holder.is_none());
        ran.into_inner()
    }

    use Priority::{Preemptible, Urgent};

    #[test]
    fn an_urgent_forward_runs_inside_a_preemptible_one_on_its_thread() {
        let ran = check(Preemptible, &[Preemptible, Urgent, Urgent], |queue| {
            assert!(preempt(queue));
            until_waiting(queue, 2);
        });
        let here = thread::current().id();
        let order: Vec<_> = ran.iter().map(|&(number, place, _)| (number, place)).collect();
        assert_eq!(order, [(1, Place::Inside), (0, Place::Team), (2, Place::Team)]);
        assert!(ran[0].2 == here && ran[1].2 != here && ran[2].2 != here);
    }

    #[test]
    fn an_urgent_forward_is_not_preempted_and_forwards_run_in_order() {
        let behind = [Urgent, Preemptible, Urgent, Urgent, Preemptible];
        let ran = check(Urgent, &behind, |queue| assert!(!preempt(queue)));
        let order: Vec<_> = ran.iter().map(|&(number, place, _)| (number, place)).collect();
        let expected: Vec<_> = (0..behind.len()).map(|number| (number, Place::Team)).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn only_urgent_forwards_preempt() {
        let ran = check(Preemptible, &[Preemptible], |queue| assert!(!preempt(queue)));
        assert_eq!(ran[0].1, Place::Team);
    }

    #[test]
    fn one_forward_preempts_at_a_time_and_other_threads_learn_its_round() {
        let queue = ForwardQueue::default();
        thread::scope(|scope| {
            queue.run(Preemptible, |_| {
                for number in 0..2 {
                    let urgent = || {
                        let Some(Preemption::Running(round)) = queue.preemption() else {
                            unreachable!("this forward preempts")
                        };
                        assert!(queue.is_running(round) && !queue.is_running(round + 1));
                    };
                    let queue = &queue;
                    scope.spawn(move || queue.run(Urgent, |_| urgent()));
                    until_waiting(queue, number + 1);
                }
                preempt_all(&queue, 2);
            });
        });
    }

    #[test]
    fn a_preempted_forward_keeps_a_quarter_of_the_time() {
        const TOOK: Duration = Duration::from_millis(30);
        let queue = ForwardQueue::default();
        let (begun, second) = (Instant::now(), Mutex::new(None));
        thread::scope(|scope| {
            queue.run(Preemptible, |_| {
                let (queue, second) = (&queue, &second);
                scope.spawn(move || {
                    queue.run(Urgent, |_| {
                        let begun = Instant::now();
                        while begun.elapsed() < TOOK {}
                    })
                });
                until_waiting(queue, 1);
                scope.spawn(move || queue.run(Urgent, |_| *second.lock() = Some(begun.elapsed())));
                until_waiting(queue, 2);
                preempt_all(queue, 2);
            });
        });
        let begun = second.into_inner().unwrap();
        assert!(begun >= TOOK + TOOK / URGENT_RATIO_MAX, "{begun:?}");
    }

    #[test]
    fn a_panic_of_a_preempting_forward_reaches_its_owner() {
        let queue = ForwardQueue::default();
        let (outcome, sharing) = thread::scope(|scope| {
            let (urgent, sharing) = queue.run(Preemptible, |_| {
                let urgent =
                    scope.spawn(|| queue.run(Urgent, |_| assert!(queue.is_running(0), "on purpose")));
                until_waiting(&queue, 1);
                assert!(preempt(&queue));
                urgent
            });
            (urgent.join(), sharing)
        });
        assert!(outcome.is_err() && !sharing.inside);
        let ((), sharing) = queue.run(Urgent, |place| assert_eq!(place, Place::Team));
        assert!(!sharing.inside);
    }

    #[test]
    fn sharing_names_the_time_given_and_the_forward_inside() {
        let queue = ForwardQueue::default();
        let (host, urgent) = thread::scope(|scope| {
            let (urgent, host) = queue.run(Preemptible, |_| {
                let urgent = scope.spawn(|| queue.run(Urgent, |_| ()).1);
                until_waiting(&queue, 1);
                assert!(preempt(&queue));
                queue.add_preempted(Duration::from_millis(30), 2);
                urgent
            });
            (host, urgent.join().unwrap())
        });
        assert_eq!((host.gave, host.inside), (Duration::from_millis(15), false));
        assert_eq!((urgent.gave, urgent.inside), (Duration::ZERO, true));
        let (gave, _) = queue.run(Preemptible, |_| queue.preempted_ns.load(Ordering::Relaxed));
        assert_eq!(gave, 0, "each forward counts for itself");
    }
}
