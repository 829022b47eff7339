//! The gate between who has work and who computes it: regions that members enter while they are open.
//!
//! Whoever has a region computes itself and rings for the others; a member that comes late, because it
//! slept or another process has its core, finds the tasks taken, and nobody has waited for it. Between
//! two regions members look out for some microseconds before they sleep: a forward has some forty
//! regions, and waking a thread costs more than the gap between two.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// How often a member looks for the next region before it sleeps: some tens of microseconds.
const LOOKS: u32 = 1000;

/// The state of a gate: the region's number, whether it is open, and how many members are inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const NUMBER: u32 = 32;

/// Threads that one gate can count.
pub(crate) const MEMBERS_MAX: usize = INSIDE as usize;

#[derive(Default)]
pub(crate) struct Gate {
    state: AtomicU64,
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

impl Gate {
    /// Runs `work` here and on every member that comes in time; returns when all have left it.
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
        // Before `asleep` is read, as members raise `asleep` before they read the gate a last time: one of
        // the two sees the other.
        self.state.store(number << NUMBER | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.ended.lock());
            self.bell.notify_all();
        }
    }

    /// What a member does: regions, one after the other.
    pub(crate) fn serve(&self) {
        let mut seen = 0;
        while let Some(number) = self.next(seen) {
            seen = number;
            self.attend();
        }
    }

    /// What somebody does who has nothing better to do: regions of others, until `is_over`.
    pub(crate) fn help(&self, is_over: impl Fn() -> bool) {
        let (mut seen, mut looks) = (0, 0);
        while !is_over() {
            if let Some(number) = self.enter(seen) {
                (seen, looks) = (number, 0);
                self.attend();
            } else {
                wait(&mut looks);
            }
        }
    }

    /// Does the work of the region that it has entered, and leaves.
    fn attend(&self) {
        // SAFETY: this member is counted inside since the gate was open, and the region's owner does
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
        let mut looks = 0;
        loop {
            if let Some(number) = self.enter(seen) {
                return Some(number);
            }
            if looks < LOOKS {
                looks += 1;
                spin_loop();
            } else if self.sleep(seen) {
                looks = 0;
            } else {
                return None;
            }
        }
    }

    /// Lets the members go.
    pub(crate) fn end(&self) {
        *self.ended.lock() = true;
        self.bell.notify_all();
    }

    /// Members that sleep.
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

/// Looks again soon; after many looks, lets others have the core.
fn wait(looks: &mut u32) {
    if *looks < LOOKS {
        *looks += 1;
        spin_loop();
    } else {
        // A thread lost its core within a task: this one may be what it waits for.
        std::thread::yield_now();
    }
}

/// Closes a region and waits until nobody is inside, even where its owner panics.
struct Leave<'a>(&'a Gate);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while self.0.state.load(Ordering::Acquire) & INSIDE != 0 {
            wait(&mut looks);
        }
        self.0.taken.store(false, Ordering::Release);
    }
}
