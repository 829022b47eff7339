//! The compute threads: one team for all models, whose members take tasks one by one.
//!
//! Tasks are either small, a strip of one product, or large, a part of a batch from its first product to its
//! last. Large ones end at different times: their texts are not quite equal, and a core that is shared with
//! another process, or another guest of the host, is slower for a while. A thread without a task left helps
//! with the products of the tasks that still run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::fork_join::{ForkJoin, MEMBERS_MAX};
use super::pin;
use super::preemption::{ForwardQueue, Place, Preemption};
use crate::ops::{KernelError, Priority, Sharing};

/// A team of compute threads. Clones share it; its members end with the last clone.
#[derive(Clone)]
pub struct Threads(Arc<Team>);

struct Team {
    /// Threads that compute, the caller included.
    count: usize,
    fork_join: Arc<ForkJoin>,
    members: Vec<JoinHandle<()>>,
    /// CPU of the caller, in a pinned team.
    cpu: Option<usize>,
    /// Forwards of this team, and their preemption.
    forwards: ForwardQueue,
    /// Team of a preempting forward: the thread that runs it, and those that come to help.
    inside: Option<Threads>,
}

impl Threads {
    /// A team of `count` threads, the caller included.
    pub fn new(count: usize) -> Result<Self, KernelError> {
        Self::on(count, &[])
    }

    /// A team whose members each stay on one of the CPUs that this process may use, and whose callers stay on
    /// another once they called [`Threads::settle`].
    pub fn pinned(count: usize) -> Result<Self, KernelError> {
        let cpus = pin::allowed().map_err(|error| refused(count, error.to_string()))?;
        if count > cpus.len() {
            let reason = format!("they cannot be pinned to the {} cpus of this process", cpus.len());
            return Err(refused(count, reason));
        }
        Self::on(count, &cpus)
    }

    /// A team on `cpus`, the first of them for the caller; on any CPU where the list is empty.
    fn on(count: usize, cpus: &[usize]) -> Result<Self, KernelError> {
        let refused = |reason: String| refused(count, reason);
        if count == 0 || count > MEMBERS_MAX {
            return Err(refused(format!("1 to {MEMBERS_MAX} are possible")));
        }
        let mut team = Team {
            count,
            fork_join: Arc::default(),
            members: Vec::with_capacity(count - 1),
            cpu: cpus.first().copied(),
            forwards: ForwardQueue::default(),
            inside: Some(Self::memberless(count)),
        };
        for index in 1..count {
            let (fork_join, cpu) = (Arc::clone(&team.fork_join), cpus.get(index).copied());
            let (settled, outcome) = sync_channel(1);
            let member = std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || {
                    // An error means that the receiver is gone.
                    let _ = settled.send(cpu.map_or(Ok(()), pin::here));
                    fork_join.serve();
                })
                .map_err(|error| refused(error.to_string()))?;
            team.members.push(member);
            if let Ok(Err(error)) = outcome.recv() {
                return Err(refused(error.to_string()));
            }
        }
        Ok(Self(Arc::new(team)))
    }

    /// A team without members of its own: the caller, and up to three idle members of another team
    /// ([`Threads::each_helped`]).
    pub(crate) fn helped(by: usize) -> Self {
        // Each team has scratch for all its helpers, which should not grow with the square of a large team.
        const HELPED_MAX: usize = 4;
        Self::memberless(by.min(HELPED_MAX))
    }

    /// A team of the caller and helpers, `count` in all.
    fn memberless(count: usize) -> Self {
        Self(Arc::new(Team {
            count,
            fork_join: Arc::default(),
            members: Vec::new(),
            cpu: None,
            forwards: ForwardQueue::default(),
            inside: None,
        }))
    }

    /// Team that computes preempting forwards.
    pub(crate) fn inside(&self) -> Option<&Threads> {
        self.0.inside.as_ref()
    }

    /// Pins the calling thread where the team is pinned; a thread that calls often does this once.
    pub fn settle(&self) -> Result<(), KernelError> {
        match self.0.cpu {
            Some(cpu) => pin::here(cpu).map_err(|error| refused(self.count(), error.to_string())),
            None => Ok(()),
        }
    }

    /// Threads that compute, the caller included.
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Runs `work`, a whole forward ([`ForwardQueue::run`]).
    pub(crate) fn forward<R: Send>(
        &self,
        priority: Priority,
        work: impl FnOnce(Place) -> R + Send,
    ) -> (R, Sharing) {
        self.0.forwards.run(priority, work)
    }

    /// Preemption point between two products of the running forward: runs an urgent forward, if one waits. Each of the
    /// `side_by_side` threads that compute parts calls this; with one, the forward computes on the whole team.
    pub(crate) fn preemption_point(&self, side_by_side: usize) {
        let Some(preemption) = self.0.forwards.preemption() else {
            return;
        };
        let begun = Instant::now();
        match preemption {
            Preemption::Running(round) => self.help(round),
            Preemption::Start(urgent) if side_by_side > 1 => urgent.run(&self.0.forwards),
            Preemption::Start(urgent) => {
                let (round, urgent) = (urgent.round(), Mutex::new(Some(urgent)));
                self.0.fork_join.region(&|| {
                    let first = urgent.lock().take();
                    match first {
                        Some(urgent) => urgent.run(&self.0.forwards),
                        None => self.help(round),
                    }
                });
            }
        }
        self.0.forwards.add_preempted(begun.elapsed(), side_by_side);
    }

    /// Helps with a preempting forward that another thread runs, to its end.
    fn help(&self, round: u64) {
        if let Some(inside) = self.inside() {
            inside.0.fork_join.help(|| !self.0.forwards.is_running(round));
        }
    }

    /// Runs tasks `0..tasks`, each once, and returns when all are done.
    pub(crate) fn each(&self, tasks: usize, run: impl Fn(usize) + Sync) {
        let mut nothing = vec![(); self.count()];
        self.each_with(&mut nothing, tasks, |(), task| run(task));
    }

    /// The same, with scratch for each thread that takes part.
    pub(crate) fn each_with<T: Send>(
        &self,
        scratch: &mut [T],
        tasks: usize,
        run: impl Fn(&mut T, usize) + Sync,
    ) {
        self.seated(scratch, tasks, run, |_| {});
    }

    /// The same for tasks that call `helpers` themselves: a thread without a task left helps with the running ones.
    pub(crate) fn each_helped<T: Send>(
        &self,
        helpers: &Threads,
        scratch: &mut [T],
        tasks: usize,
        run: impl Fn(&mut T, usize) + Sync,
    ) {
        let done = AtomicUsize::new(0);
        let run = |scratch: &mut T, task| {
            // A task that panics is counted too, or the others would wait for it for ever.
            let _counted = Counted(&done);
            run(scratch, task);
        };
        self.seated(scratch, tasks, run, |tasks| {
            let is_over = || done.load(Ordering::Acquire) == tasks;
            while !is_over() {
                helpers
                    .0
                    .fork_join
                    .help(|| is_over() || self.0.forwards.running().is_some());
                if let Some(round) = self.0.forwards.running() {
                    self.help(round);
                }
            }
        });
    }

    /// Runs tasks on as many threads as have a place in `scratch`; each calls `then` when it finds none left.
    fn seated<T: Send>(
        &self,
        scratch: &mut [T],
        tasks: usize,
        run: impl Fn(&mut T, usize) + Sync,
        then: impl Fn(usize) + Sync,
    ) {
        let seats_max = self.count().min(tasks).min(scratch.len());
        if seats_max <= 1 {
            if let [scratch, ..] = scratch {
                (0..tasks).for_each(|task| run(scratch, task));
            }
            return;
        }
        let (seats, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let scratch = Seats(scratch.as_mut_ptr());
        self.0.fork_join.region(&|| {
            let seat = seats.fetch_add(1, Ordering::Relaxed);
            if seat >= seats_max {
                return then(tasks);
            }
            // SAFETY: `seat` is below the length of `scratch`, which the caller has borrowed for as long
            // as the region lasts, and each number is given out once: no other thread has this reference.
            let scratch = unsafe { scratch.seat(seat) };
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return then(tasks);
                }
                run(scratch, task);
            }
        });
    }
}

/// Counter that goes up when this is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

fn refused(threads: usize, reason: String) -> KernelError {
    KernelError::Threads { threads, reason }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.fork_join.end();
        for member in self.members.drain(..) {
            // `serve` catches the panics of tasks and has no other.
            let _ = member.join();
        }
    }
}

/// Scratch space, an element for each thread.
struct Seats<T>(*mut T);

// SAFETY: threads get disjoint elements, as `seat` demands, which `T: Send` lets them use.
unsafe impl<T: Send> Sync for Seats<T> {}

impl<T> Seats<T> {
    /// # Safety
    /// `seat` lies within the slice, which stays borrowed for `'a`, and is asked for once.
    #[allow(clippy::mut_from_ref, reason = "each element is given out once")]
    unsafe fn seat<'a>(&self, seat: usize) -> &'a mut T {
        // SAFETY: the caller vouches for it.
        unsafe { &mut *self.0.add(seat) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn every_task_runs_once_for_every_caller() {
        let threads = Threads::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for tasks in 0..50 {
                        let ran: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                        threads.each(tasks, |task| {
                            ran[task].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(ran.iter().all(|ran| ran.load(Ordering::Relaxed) == 1));
                    }
                });
            }
        });
    }

    #[test]
    fn each_thread_has_scratch_of_its_own() {
        let threads = Threads::new(4).unwrap();
        let mut sums = [0; 4];
        for _ in 0..20 {
            threads.each_with(&mut sums, 100, |sum, task| *sum += task);
        }
        assert_eq!(sums.iter().sum::<usize>(), 20 * 99 * 100 / 2);
    }

    #[test]
    fn sleeping_members_are_woken() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..3 {
            while threads.0.fork_join.asleep() == 0 {
                std::thread::yield_now();
            }
            // Each task waits for the other one, so that both threads are needed.
            let arrived = AtomicUsize::new(0);
            threads.each(2, |_| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_thread_without_a_task_helps_with_the_running_ones() {
        let threads = Threads::new(2).unwrap();
        let helpers = Threads::helped(2);
        for _ in 0..20 {
            threads.each_helped(&helpers, &mut [(), ()], 2, |(), task| {
                if task == 0 {
                    return;
                }
                // Both tasks wait for each other, so the thread of task 0 must come.
                let arrived = AtomicUsize::new(0);
                helpers.each(2, |_| {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < 2 {
                        std::thread::yield_now();
                    }
                });
            });
        }
    }

    #[test]
    fn a_panic_of_a_large_task_releases_its_helpers() {
        let threads = Threads::new(3).unwrap();
        let helpers = Threads::helped(3);
        for bad in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                threads.each_helped(&helpers, &mut [(); 3], 3, |(), task| {
                    helpers.each(8, |_| std::thread::yield_now());
                    assert_ne!(task, bad, "on purpose");
                });
            }));
            assert!(outcome.is_err());
        }
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_the_team_goes_on() {
        let threads = Threads::new(2).unwrap();
        for bad in 0..8 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                threads.each(8, |task| assert_ne!(task, bad, "on purpose"));
            }));
            assert!(outcome.is_err());
        }
        let ran = AtomicUsize::new(0);
        threads.each(8, |_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "an interpreter has no CPUs to choose from")]
    fn a_pinned_team_has_a_cpu_for_each_of_its_threads() {
        let cpus = pin::allowed().unwrap();
        let count = cpus.len().min(4);
        // On a thread of its own, which ends pinned.
        let found = std::thread::spawn(move || {
            let threads = Threads::pinned(count).unwrap();
            threads.settle().unwrap();
            let (seen, arrived) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
            threads.each(count, |_| {
                seen.lock().push(pin::allowed().unwrap());
                // Each task waits for the others, so that every thread takes one.
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < count {
                    std::thread::yield_now();
                }
            });
            let mut seen = seen.into_inner();
            seen.sort_unstable();
            seen
        });
        let expected: Vec<Vec<usize>> = cpus.iter().take(count).map(|&cpu| vec![cpu]).collect();
        assert_eq!(found.join().unwrap(), expected);
        assert_eq!(
            pin::allowed().unwrap(),
            cpus,
            "the thread that made the team is not pinned"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "an interpreter has no CPUs to choose from")]
    fn more_pinned_threads_than_cpus_are_refused() {
        let cpus = pin::allowed().unwrap().len();
        let error = Threads::pinned(cpus + 1).unwrap_err().to_string();
        let reason = format!("they cannot be pinned to the {cpus} cpus of this process");
        assert_eq!(
            error,
            format!("cannot start {} compute threads: {reason}", cpus + 1)
        );
    }

    #[test]
    fn a_team_of_none_is_refused() {
        assert!(Threads::new(0).is_err());
    }
}
