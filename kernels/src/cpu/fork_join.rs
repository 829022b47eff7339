//! Fork and join: parallel regions that the caller opens and members enter while they are open.
//!
//! The caller of a region computes too, and wakes the members. A late member, which slept or lost its core to
//! another process, finds the tasks taken, and the region does not wait for it. Between two regions members spin
//! for some microseconds before they sleep: a forward has some forty regions, and waking a thread costs more
//! than the gap between two.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// Polls for the next region before a member sleeps: some tens of microseconds.
const POLLS_MAX: u32 = 1000;

/// Layout of the state: the region's number, whether it is open, and how many members are inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const NUMBER: u32 = 32;

/// Members that one state can count.
pub(crate) const MEMBERS_MAX: usize = INSIDE as usize;

/// Members of a team, and the region that they may enter.
#[derive(Default)]
pub(crate) struct ForkJoin {
    state: AtomicU64,
    /// Valid while a member is inside or the region is open.
    region: AtomicPtr<Region<'static>>,
    /// Whether a caller has the members.
    taken: AtomicBool,
    asleep: AtomicUsize,
    /// True once the team ends.
    ended: Mutex<bool>,
    bell: Condvar,
}

/// Work of the members inside, and their first panic.
struct Region<'a> {
    work: &'a (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl ForkJoin {
    /// Runs `work` here and on every member that enters in time; returns when all have left.
    pub(crate) fn region(&self, work: &(dyn Fn() + Sync)) {
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
        let number = (self.state.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1);
        // The state is stored before `asleep` is read, and members raise `asleep` before they read the state a last
        // time: one of the two sees the other.
        self.state.store(number << NUMBER | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.ended.lock());
            self.bell.notify_all();
        }
    }

    /// Runs regions, one after the other, until the team ends: the life of a member.
    pub(crate) fn serve(&self) {
        let mut seen = 0;
        while let Some(number) = self.next(seen) {
            seen = number;
            self.attend();
        }
    }

    /// Runs regions of other callers until `is_over`, for a thread without work of its own.
    pub(crate) fn help(&self, is_over: impl Fn() -> bool) {
        let (mut seen, mut polls) = (0, 0);
        while !is_over() {
            if let Some(number) = self.enter(seen) {
                (seen, polls) = (number, 0);
                self.attend();
            } else {
                wait(&mut polls);
            }
        }
    }

    /// Does the work of the entered region, and leaves.
    fn attend(&self) {
        // SAFETY: this member has been counted inside since the region was open, and the region's owner does
        // not leave it before the count is zero again.
        let region = unsafe { &*self.region.load(Ordering::Relaxed) };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(region.work)) {
            region.panic.lock().get_or_insert(panic);
        }
        self.state.fetch_sub(1, Ordering::Release);
    }

    /// Enters a region after `seen`, if one is open, and returns its number.
    fn enter(&self, seen: u64) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        if !is_open(state, seen) {
            return None;
        }
        let entered = self
            .state
            .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed);
        entered.ok().map(|state| state >> NUMBER)
    }

    /// Enters the next region after `seen` and returns its number; `None` once the team ends.
    fn next(&self, seen: u64) -> Option<u64> {
        let mut polls = 0;
        loop {
            if let Some(number) = self.enter(seen) {
                return Some(number);
            }
            if polls < POLLS_MAX {
                polls += 1;
                spin_loop();
            } else if self.sleep(seen) {
                polls = 0;
            } else {
                return None;
            }
        }
    }

    /// Ends the team.
    pub(crate) fn end(&self) {
        *self.ended.lock() = true;
        self.bell.notify_all();
    }

    /// Count of sleeping members.
    #[cfg(test)]
    pub(crate) fn asleep(&self) -> usize {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Sleeps until a region after `seen` is open; false once the team ends.
    fn sleep(&self, seen: u64) -> bool {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let mut ended = self.ended.lock();
        while !*ended && !is_open(self.state.load(Ordering::SeqCst), seen) {
            self.bell.wait(&mut ended);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        !*ended
    }
}

fn is_open(state: u64, seen: u64) -> bool {
    state & OPEN != 0 && state >> NUMBER != seen
}

/// Waits before the next poll; after many polls it yields the core.
fn wait(polls: &mut u32) {
    if *polls < POLLS_MAX {
        *polls += 1;
        spin_loop();
    } else {
        // A thread has lost its core within a task; it may be waiting for this one.
        std::thread::yield_now();
    }
}

/// Closes a region and waits until no member is inside, even where its owner panics.
struct Leave<'a>(&'a ForkJoin);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut polls = 0;
        while self.0.state.load(Ordering::Acquire) & INSIDE != 0 {
            wait(&mut polls);
        }
        self.0.taken.store(false, Ordering::Release);
    }
}
