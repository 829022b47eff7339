//! Limits of a model's batches, checked once before anything runs.

use std::time::Duration;

/// Limits that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A limit of zero, under which nothing would ever run.
    #[error("{what} must be at least 1")]
    Zero {
        /// The setting's name.
        what: &'static str,
    },
    /// The longest text would wait forever.
    #[error("batch of {tokens_max} tokens cannot hold one text of {window}")]
    BatchTooSmall {
        /// The batch's bound.
        tokens_max: usize,
        /// The longest text, in tokens.
        window: usize,
    },
    /// Offsets into a batch are 32 bits wide.
    #[error("batch of {tokens_max} tokens exceeds the limit of {}", u32::MAX)]
    BatchTooLarge {
        /// The batch's bound.
        tokens_max: usize,
    },
    /// The longest text would never be admitted.
    #[error("queue of {tokens_max} tokens cannot hold one text of {window}")]
    QueueTooSmall {
        /// The queue's bound.
        tokens_max: usize,
        /// The longest text, in tokens.
        window: usize,
    },
}

/// Rules for when a batch is full, when it starts and which class goes first. [`BatchPolicy::new`] alone makes
/// one, so every policy lets the longest text run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    tokens_max: usize,
    requests_max: usize,
    bulk_age_max: Duration,
    window: usize,
    queue_delay_max: Duration,
    interactive_target: Option<Duration>,
}

impl BatchPolicy {
    /// * `tokens_max`, `requests_max`: bounds of one batch;
    /// * `bulk_age_max`: bulk work older than this goes before interactive work;
    /// * `window`: length of the longest text, in tokens;
    /// * `queue_delay_max`: time that a batch which is not full waits for more; zero starts it at once;
    /// * `interactive_target`: latency that interactive work should keep. While there is such work, bulk
    ///   work joins no batch that would then take too long.
    pub fn new(
        tokens_max: usize,
        requests_max: usize,
        bulk_age_max: Duration,
        window: usize,
        queue_delay_max: Duration,
        interactive_target: Option<Duration>,
    ) -> Result<BatchPolicy, PolicyError> {
        at_least_one("requests_max", requests_max)?;
        at_least_one("window", window)?;
        if interactive_target.is_some_and(|target| target.is_zero()) {
            return Err(PolicyError::Zero {
                what: "interactive_target",
            });
        }
        if tokens_max < window {
            return Err(PolicyError::BatchTooSmall { tokens_max, window });
        }
        if u32::try_from(tokens_max).is_err() {
            return Err(PolicyError::BatchTooLarge { tokens_max });
        }
        Ok(BatchPolicy {
            tokens_max,
            requests_max,
            bulk_age_max,
            window,
            queue_delay_max,
            interactive_target,
        })
    }

    /// A copy with batches of at most `tokens_max` tokens, but never fewer than the longest text has.
    #[must_use]
    pub(crate) fn lowered(&self, tokens_max: usize) -> BatchPolicy {
        BatchPolicy {
            tokens_max: tokens_max.clamp(self.window, self.tokens_max),
            ..self.clone()
        }
    }

    /// Most tokens of one batch.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Most texts of one batch.
    pub fn requests_max(&self) -> usize {
        self.requests_max
    }

    /// Age from which bulk work goes first.
    pub fn bulk_age_max(&self) -> Duration {
        self.bulk_age_max
    }

    /// Length of the longest text, in tokens.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Time that a batch which is not full waits for more.
    pub fn queue_delay_max(&self) -> Duration {
        self.queue_delay_max
    }

    /// Latency that interactive work should keep.
    pub fn interactive_target(&self) -> Option<Duration> {
        self.interactive_target
    }
}

pub(crate) fn at_least_one(what: &'static str, value: usize) -> Result<(), PolicyError> {
    if value == 0 {
        Err(PolicyError::Zero { what })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens_max: usize, requests_max: usize, window: usize, expected: &str) {
        let policy = BatchPolicy::new(
            tokens_max,
            requests_max,
            Duration::ZERO,
            window,
            Duration::ZERO,
            None,
        );
        assert_eq!(policy.err().map_or("ok".into(), |e| e.to_string()), expected);
    }

    #[test]
    fn every_policy_lets_the_longest_text_run() {
        check(512, 1, 512, "ok");
        check(256, 8, 512, "batch of 256 tokens cannot hold one text of 512");
        check(256, 0, 128, "requests_max must be at least 1");
        check(256, 8, 0, "window must be at least 1");
        check(
            usize::MAX,
            8,
            512,
            "batch of 18446744073709551615 tokens exceeds the limit of 4294967295",
        );
    }

    #[test]
    fn a_target_of_zero_is_refused() {
        let policy = BatchPolicy::new(8, 8, Duration::ZERO, 8, Duration::ZERO, Some(Duration::ZERO));
        assert_eq!(
            policy,
            Err(PolicyError::Zero {
                what: "interactive_target"
            })
        );
    }
}
