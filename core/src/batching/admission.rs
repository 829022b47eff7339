//! Who may come in: bounds on tokens, bytes and texts, and the permit that gives room back when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::policy::{PolicyError, at_least_one};
use super::reply::Rejection;
use super::request::Class;

/// What may be inside at once. A submission enters with an upper bound of its tokens, before it is
/// tokenized, and gives the surplus back afterwards.
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

    /// What bulk work may fill, so that a stream which keeps the queue full leaves room for a person.
    fn bulk_share(&self) -> AdmissionBounds {
        let share = |bound: usize| bound - bound / INTERACTIVE_RESERVE;
        AdmissionBounds {
            tokens_max: share(self.tokens_max),
            bytes_max: share(self.bytes_max),
            texts_max: share(self.texts_max),
        }
    }
}

/// One part in so many of each bound is kept for interactive work.
const INTERACTIVE_RESERVE: usize = 8;

/// Tokens and texts of one class, for the gauges and for the rule that bulk work alone may use all.
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

/// What one submission asks for.
#[derive(Clone, Copy)]
struct Want {
    tokens: usize,
    bytes: usize,
    texts: usize,
}

impl Admission {
    /// A gate with nothing inside.
    pub fn new(bounds: AdmissionBounds) -> Result<Arc<Admission>, PolicyError> {
        Admission::build(bounds, None)
    }

    /// The same; `released` is called whenever room came back, so that a refused submission that waits
    /// can try again. It is called from whatever thread drops a permit and must not block.
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

    /// Lets one text in, or refuses it as [`Rejection::Overloaded`]. `tokens` is an upper bound.
    ///
    /// Bulk work may fill seven eighths of each bound; with no other bulk work inside, all of it, so
    /// that whatever fits the bounds is admitted some day.
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

    /// Lets a submission of `(tokens, bytes)` texts in as a whole, or none of it.
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

    /// How many texts of `class` are inside.
    pub fn depth(&self, class: Class) -> usize {
        self.in_use(class).texts.load(SeqCst)
    }

    /// How many tokens of `class` are inside, upper bounds where a text is not tokenized yet.
    pub fn tokens(&self, class: Class) -> usize {
        self.in_use(class).tokens.load(SeqCst)
    }

    /// What may be inside at once.
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
        // Look before taking: a plain refusal then takes nothing back and wakes nobody. Otherwise two
        // waiting submissions could wake each other for ever with room they only held for a moment.
        for counter in &counters {
            counter.look().map_err(|used| counter.refusal(what, used))?;
        }
        self.take(&counters)
            .map_err(|(counter, used)| counter.refusal(what, used))?;
        self.in_use(class).tokens.fetch_add(want.tokens, SeqCst);
        self.in_use(class).texts.fetch_add(want.texts, SeqCst);
        Ok(())
    }

    /// Takes from all, or gives back what it took, where another thread came in between.
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
        // The class first: `depth` may then say less than there is, never more than the bound.
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

/// One bound, and what a submission wants of it.
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

    /// What is taken, where that leaves too little.
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

/// The room one text takes. Dropping it gives the room back.
#[must_use = "dropping a permit gives its room back"]
pub struct Permit {
    admission: Arc<Admission>,
    class: Class,
    tokens: usize,
    bytes: usize,
}

impl Permit {
    /// The text is tokenized into `tokens`: gives the surplus over the real count back, and all bytes,
    /// for the text itself is gone. A count above the permit's own leaves the permit as it is: a permit
    /// never grows, or the bound would not hold.
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

    /// How many tokens the permit holds.
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
