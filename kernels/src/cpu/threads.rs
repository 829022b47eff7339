//! The compute threads: one team for all models, and regions of tasks that its members take one by one.
//!
//! Whoever has a region computes itself and rings for the others; a member that comes late, because it
//! slept or another process has its core, finds the tasks taken, and nobody has waited for it. Between
//! two regions members look out for some microseconds before they sleep: a forward has some forty
//! regions, and waking a thread costs more than the gap between two.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use parking_lot::{Condvar, FairMutex, Mutex};

use super::pin;
use crate::ops::KernelError;

/// How often a member looks for the next region before it sleeps: some tens of microseconds.
const LOOKS: u32 = 1000;

/// The gate of a region: its number, whether it is open, and how many members are inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const NUMBER: u32 = 32;

/// A team of compute threads. Clones share it; its members end with the last clone.
#[derive(Clone)]
pub struct Threads(Arc<Team>);

struct Team {
    /// Who computes, the caller included.
    count: usize,
    shared: Arc<Shared>,
    members: Vec<JoinHandle<()>>,
    /// Where whoever calls is to run, in a team that is pinned.
    cpu: Option<usize>,
    /// Held for a whole forward: models take turns, in the order in which they came.
    turn: FairMutex<()>,
}

#[derive(Default)]
struct Shared {
    gate: AtomicU64,
    /// Valid while a member is inside or the gate is open.
    region: AtomicPtr<Region<'static>>,
    /// Whether somebody has the members.
    taken: AtomicBool,
    asleep: AtomicUsize,
    /// True once the team ends.
    ended: Mutex<bool>,
    bell: Condvar,
}

/// What members do once they are inside, and what they panicked with.
struct Region<'a> {
    work: &'a (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Threads {
    /// A team of `count` threads, of which one is whoever calls.
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

    /// A team on `cpus`, the first of them for whoever calls; on any where there are none.
    fn on(count: usize, cpus: &[usize]) -> Result<Self, KernelError> {
        let refused = |reason: String| refused(count, reason);
        if count == 0 || count as u64 > INSIDE {
            return Err(refused(format!("1 to {INSIDE} are possible")));
        }
        let mut team = Team {
            count,
            shared: Arc::default(),
            members: Vec::with_capacity(count - 1),
            cpu: cpus.first().copied(),
            turn: FairMutex::new(()),
        };
        for index in 1..count {
            let (shared, cpu) = (Arc::clone(&team.shared), cpus.get(index).copied());
            let (settled, outcome) = sync_channel(1);
            let member = std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || {
                    // An error means that nobody waits any more.
                    let _ = settled.send(cpu.map_or(Ok(()), pin::here));
                    shared.serve();
                })
                .map_err(|error| refused(error.to_string()))?;
            team.members.push(member);
            if let Ok(Err(error)) = outcome.recv() {
                return Err(refused(error.to_string()));
            }
        }
        Ok(Self(Arc::new(team)))
    }

    /// A team of nobody but whoever calls.
    pub(crate) fn none() -> Self {
        Self(Arc::new(Team {
            count: 1,
            shared: Arc::default(),
            members: Vec::new(),
            cpu: None,
            turn: FairMutex::new(()),
        }))
    }

    /// Called once by a thread that is to call often: pins it where the team is pinned.
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

    /// Runs `work`, a whole forward, when it is its turn.
    pub(crate) fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let _turn = self.0.turn.lock();
        work()
    }

    /// Runs tasks `0..tasks`, each once, and returns when all are done.
    pub(crate) fn each(&self, tasks: usize, run: impl Fn(usize) + Sync) {
        let mut nothing = vec![(); self.count()];
        self.each_with(&mut nothing, tasks, |(), task| run(task));
    }

    /// The same, with something to work in for each thread that takes part.
    pub(crate) fn each_with<T: Send>(
        &self,
        scratch: &mut [T],
        tasks: usize,
        run: impl Fn(&mut T, usize) + Sync,
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
        self.0.shared.region(&|| {
            let seat = seats.fetch_add(1, Ordering::Relaxed);
            if seat >= seats_max {
                return;
            }
            // SAFETY: `seat` is below the length of `scratch`, which the caller has borrowed for as long
            // as the region lasts, and each number is given out once: nobody else has this reference.
            let scratch = unsafe { scratch.seat(seat) };
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                run(scratch, task);
            }
        });
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
        *self.shared.ended.lock() = true;
        self.shared.bell.notify_all();
        for member in self.members.drain(..) {
            // It catches what tasks panic with, and has nothing else to panic about.
            let _ = member.join();
        }
    }
}

/// Scratch space of which each thread takes one.
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

impl Shared {
    /// Runs `work` here and on every member that comes in time; returns when all have left it.
    fn region(&self, work: &(dyn Fn() + Sync)) {
        if self.taken.swap(true, Ordering::Acquire) {
            // Another caller has the members.
            return work();
        }
        let region = Region {
            work,
            panic: Mutex::new(None),
        };
        let leave = Leave(self);
        self.open(&region);
        work();
        drop(leave);
        if let Some(panic) = region.panic.into_inner() {
            resume_unwind(panic);
        }
    }

    fn open(&self, region: &Region<'_>) {
        let region = std::ptr::from_ref(region).cast::<Region<'static>>().cast_mut();
        self.region.store(region, Ordering::Relaxed);
        let number = (self.gate.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1);
        // Before `asleep` is read, as members raise `asleep` before they read the gate a last time: one of
        // the two sees the other.
        self.gate.store(number << NUMBER | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.ended.lock());
            self.bell.notify_all();
        }
    }

    /// What a member does: regions, one after the other.
    fn serve(&self) {
        let mut seen = 0;
        while let Some(number) = self.next(seen) {
            seen = number;
            // SAFETY: this member is counted inside since the gate was open, and the region's owner does
            // not leave it before the count is zero again.
            let region = unsafe { &*self.region.load(Ordering::Relaxed) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(region.work)) {
                region.panic.lock().get_or_insert(panic);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Enters the next region after `seen` and returns its number; `None` once the team ends.
    fn next(&self, seen: u64) -> Option<u64> {
        let mut looks = 0;
        loop {
            let gate = self.gate.load(Ordering::Acquire);
            if is_open(gate, seen) {
                let inside = gate + 1;
                let entered = self
                    .gate
                    .compare_exchange(gate, inside, Ordering::Acquire, Ordering::Relaxed);
                if entered.is_ok() {
                    return Some(gate >> NUMBER);
                }
            } else if looks < LOOKS {
                looks += 1;
                spin_loop();
            } else if self.sleep(seen) {
                looks = 0;
            } else {
                return None;
            }
        }
    }

    /// Sleeps until a region after `seen` is open; false once the team ends.
    fn sleep(&self, seen: u64) -> bool {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let mut ended = self.ended.lock();
        while !*ended && !is_open(self.gate.load(Ordering::SeqCst), seen) {
            self.bell.wait(&mut ended);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        !*ended
    }
}

fn is_open(gate: u64, seen: u64) -> bool {
    gate & OPEN != 0 && gate >> NUMBER != seen
}

/// Closes a region and waits until nobody is inside, even where its owner panics.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while self.0.gate.load(Ordering::Acquire) & INSIDE != 0 {
            if looks < LOOKS {
                looks += 1;
                spin_loop();
            } else {
                // A member lost its core within a task: this one may be what it waits for.
                std::thread::yield_now();
            }
        }
        self.0.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_calls() {
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
    fn each_thread_works_in_a_place_of_its_own() {
        let threads = Threads::new(4).unwrap();
        let mut sums = [0; 4];
        for _ in 0..20 {
            threads.each_with(&mut sums, 100, |sum, task| *sum += task);
        }
        assert_eq!(sums.iter().sum::<usize>(), 20 * 99 * 100 / 2);
    }

    #[test]
    fn members_that_sleep_are_called() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..3 {
            while threads.0.shared.asleep.load(Ordering::SeqCst) == 0 {
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
    fn a_task_that_panics_is_heard_and_the_team_lives_on() {
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
        assert_eq!(pin::allowed().unwrap(), cpus, "who only made the team stays free");
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
