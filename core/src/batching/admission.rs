//! Admission: bounds on the tokens, bytes and texts in flight, and the permit that returns its room when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::policy::{PolicyError, at_least_one};
use super::reply::Rejection;
use super::request::Class;

/// Bounds on the work in flight. A submission enters before it is tokenized, with an upper bound of its
/// tokens, and returns the surplus afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionBounds {
    /// Tokens of all texts together.
    pub tokens_max: usize,
    /// Bytes of the texts that are not tokenized yet.
    pub bytes_max: usize,
    /// Texts.
    pub texts_max: usize,
}

impl AdmissionBounds {
    /// Refuses bounds under which a text of `window` tokens could never enter.
    pub fn check_window(&self, window: usize) -> Result<(), PolicyError> {
        if self.tokens_max < window {
            return Err(PolicyError::QueueTooSmall {
                tokens_max: self.tokens_max,
                window,
            });
        }
        Ok(())
    }

    /// Bounds of bulk work. They are lower, so that a stream which keeps the queue full leaves room for
    /// interactive work.
    fn bulk_share(&self) -> AdmissionBounds {
        let share = |bound: usize| bound - bound / INTERACTIVE_RESERVE;
        AdmissionBounds {
            tokens_max: share(self.tokens_max),
            bytes_max: share(self.bytes_max),
            texts_max: share(self.texts_max),
        }
    }
}

/// Each bound keeps one part in this many for interactive work.
const INTERACTIVE_RESERVE: usize = 8;

/// Tokens and texts of one class, for the gauges and for the rule that bulk work may use everything while alone.
#[derive(Debug, Default)]
struct InUse {
    tokens: AtomicUsize,
    texts: AtomicUsize,
}

/// The gate in front of the queue: lock-free, never past its bounds.
pub struct Admission {
    bounds: AdmissionBounds,
    tokens: AtomicUsize,
    bytes: AtomicUsize,
    texts: AtomicUsize,
    classes: [InUse; 2],
    released: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Room that one submission asks for.
#[derive(Clone, Copy)]
struct Want {
    tokens: usize,
    bytes: usize,
    texts: usize,
}

impl Admission {
    /// An admission gate with nothing in flight.
    pub fn new(bounds: AdmissionBounds) -> Result<Arc<Admission>, PolicyError> {
        Admission::build(bounds, None)
    }

    /// Like [`Admission::new`]. `released` is called whenever room is returned, so that a refused submission
    /// can try again. The call comes from the thread that drops a permit and must not block.
    pub fn with_release(
        bounds: AdmissionBounds,
        released: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Arc<Admission>, PolicyError> {
        Admission::build(bounds, Some(released))
    }

    fn build(
        bounds: AdmissionBounds,
        released: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Result<Arc<Admission>, PolicyError> {
        at_least_one("tokens_max", bounds.tokens_max)?;
        at_least_one("bytes_max", bounds.bytes_max)?;
        at_least_one("texts_max", bounds.texts_max)?;
        Ok(Arc::new(Admission {
            bounds,
            tokens: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            texts: AtomicUsize::new(0),
            classes: [InUse::default(), InUse::default()],
            released,
        }))
    }

    /// Admits one text, or refuses it as [`Rejection::Overloaded`]. `tokens` is an upper bound.
    ///
    /// Bulk work may fill seven eighths of each bound. A bulk text may fill all of it while no other is in
    /// flight: every text that fits the bounds is admitted in the end.
    pub fn admit(self: &Arc<Self>, class: Class, tokens: usize, bytes: usize) -> Result<Permit, Rejection> {
        self.reserve(
            class,
            Want {
                tokens,
                bytes,
                texts: 1,
            },
        )?;
        Ok(self.permit(class, tokens, bytes))
    }

    /// Admits all texts of a submission, each given as `(tokens, bytes)`, or none of them.
    pub fn admit_all(
        self: &Arc<Self>,
        class: Class,
        texts: &[(usize, usize)],
    ) -> Result<Vec<Permit>, Rejection> {
        let none = Want {
            tokens: 0,
            bytes: 0,
            texts: texts.len(),
        };
        let want = texts.iter().fold(none, |sum, &(tokens, bytes)| Want {
            tokens: sum.tokens.saturating_add(tokens),
            bytes: sum.bytes.saturating_add(bytes),
            ..sum
        });
        self.reserve(class, want)?;
        Ok(texts
            .iter()
            .map(|&(tokens, bytes)| self.permit(class, tokens, bytes))
            .collect())
    }

    /// Texts of `class` in flight.
    pub fn depth(&self, class: Class) -> usize {
        self.in_use(class).texts.load(SeqCst)
    }

    /// Tokens of `class` in flight; a text that is not tokenized yet counts with its upper bound.
    pub fn tokens(&self, class: Class) -> usize {
        self.in_use(class).tokens.load(SeqCst)
    }

    /// The bounds on the work in flight.
    pub fn bounds(&self) -> AdmissionBounds {
        self.bounds
    }

    fn in_use(&self, class: Class) -> &InUse {
        match class {
            Class::Interactive => &self.classes[0],
            Class::Bulk => &self.classes[1],
        }
    }

    fn permit(self: &Arc<Self>, class: Class, tokens: usize, bytes: usize) -> Permit {
        Permit {
            admission: Arc::clone(self),
            class,
            tokens,
            bytes,
        }
    }

    fn reserve(&self, class: Class, want: Want) -> Result<(), Rejection> {
        let alone = self.depth(class) == 0;
        let (what, limit) = match class {
            Class::Bulk if !alone => ("the queue for bulk work", self.bounds.bulk_share()),
            Class::Bulk | Class::Interactive => ("the queue", self.bounds),
        };
        let counters = [
            Counter {
                used: &self.tokens,
                amount: want.tokens,
                bound: limit.tokens_max,
                unit: "tokens",
            },
            Counter {
                used: &self.bytes,
                amount: want.bytes,
                bound: limit.bytes_max,
                unit: "bytes",
            },
            Counter {
                used: &self.texts,
                amount: want.texts,
                bound: limit.texts_max,
                unit: "texts",
            },
        ];
        // Look before taking: a refusal then has nothing to return and wakes no waiter. Otherwise two
        // waiting submissions could wake each other forever with room that they held for a moment.
        for counter in &counters {
            counter.look().map_err(|used| counter.refusal(what, used))?;
        }
        self.take(&counters)
            .map_err(|(counter, used)| counter.refusal(what, used))?;
        self.in_use(class).tokens.fetch_add(want.tokens, SeqCst);
        self.in_use(class).texts.fetch_add(want.texts, SeqCst);
        Ok(())
    }

    /// Takes from every counter. Where another thread came in between, all that was taken is returned.
    fn take<'a>(&self, counters: &'a [Counter<'a>]) -> Result<(), (&'a Counter<'a>, usize)> {
        for (taken, counter) in counters.iter().enumerate() {
            if let Err(used) = counter.take() {
                for before in &counters[..taken] {
                    before.used.fetch_sub(before.amount, SeqCst);
                }
                if taken > 0 {
                    self.notify();
                }
                return Err((counter, used));
            }
        }
        Ok(())
    }

    fn release(&self, class: Class, back: Want) {
        // The class's counters go first: `depth` may then be too low for a moment, never above the bound.
        self.in_use(class).tokens.fetch_sub(back.tokens, SeqCst);
        self.in_use(class).texts.fetch_sub(back.texts, SeqCst);
        self.tokens.fetch_sub(back.tokens, SeqCst);
        self.bytes.fetch_sub(back.bytes, SeqCst);
        self.texts.fetch_sub(back.texts, SeqCst);
        self.notify();
    }

    fn notify(&self) {
        if let Some(released) = &self.released {
            released();
        }
    }
}

/// One bound, and the amount that a submission wants of it.
struct Counter<'a> {
    used: &'a AtomicUsize,
    amount: usize,
    bound: usize,
    unit: &'static str,
}

impl Counter<'_> {
    fn fits(&self, used: usize) -> bool {
        used.checked_add(self.amount).is_some_and(|sum| sum <= self.bound)
    }

    /// Fails with the amount in use where too little is left.
    fn look(&self) -> Result<(), usize> {
        let used = self.used.load(SeqCst);
        if self.fits(used) { Ok(()) } else { Err(used) }
    }

    fn take(&self) -> Result<(), usize> {
        let more = |used| self.fits(used).then(|| used + self.amount);
        self.used.fetch_update(SeqCst, SeqCst, more).map(|_| ())
    }

    fn refusal(&self, what: &'static str, used: usize) -> Rejection {
        Rejection::Overloaded {
            what,
            used,
            bound: self.bound,
            unit: self.unit,
        }
    }
}

/// Room that one text takes. Dropping the permit returns it.
#[must_use = "dropping a permit returns its room"]
pub struct Permit {
    admission: Arc<Admission>,
    class: Class,
    tokens: usize,
    bytes: usize,
}

impl Permit {
    /// Returns the surplus over the real count of `tokens`, and all bytes: once tokenized, the text itself is
    /// gone. A permit never grows, or the bound would not hold: a higher count leaves it unchanged.
    pub fn settle(&mut self, tokens: usize) {
        let surplus = self.tokens.saturating_sub(tokens);
        let back = Want {
            tokens: surplus,
            bytes: self.bytes,
            texts: 0,
        };
        self.tokens -= surplus;
        self.bytes = 0;
        if back.tokens > 0 || back.bytes > 0 {
            self.admission.release(self.class, back);
        }
    }

    /// Tokens that the permit holds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let back = Want {
            tokens: self.tokens,
            bytes: self.bytes,
            texts: 1,
        };
        self.admission.release(self.class, back);
    }
}

#[cfg(test)]
mod tests;
