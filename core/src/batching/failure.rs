//! Failed batches: which of their texts run again, together with which others, and how the rest is rejected.
//!
//! A batch on which the model fails is halved again and again, until the faulty text runs alone. One bad text
//! costs about `2 log n` runs and harms no other. A batch that exceeds the device's memory is halved once: a half
//! that is still too large is refused, and the budget of later batches is lowered. On a lost device nothing runs
//! again.

use super::batch::PackedTokens;
use super::reply::{Outcome, Rejection};

/// Reason why a batch did not run, with its description for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The model failed on these texts and may work on others.
    Model(String),
    /// The device had too little memory for the batch.
    OutOfMemory(String),
    /// The device does no more work for this process.
    Lost(String),
}

/// Result of a batch that failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rescued {
    /// One row for each text.
    pub rows: Vec<Outcome>,
    /// Tokens of the smallest run that found too little memory.
    pub too_large: Option<usize>,
    /// Reason why the device is lost, if it is.
    pub lost: Option<String>,
}

impl Failure {
    /// Rejection for `texts` texts that are not retried here. Texts that are not at fault may be answered by
    /// another replica, or later by this one.
    fn rejection(self, texts: usize) -> Rejection {
        match self {
            Failure::Model(why) => Rejection::Model(why),
            Failure::OutOfMemory(why) if texts == 1 => Rejection::NoMemory(why),
            Failure::OutOfMemory(why) | Failure::Lost(why) => Rejection::NotReady(why),
        }
    }
}

/// Recovers the rows of `tokens`, which failed as a whole. `run` runs a part of the texts by itself.
pub fn rescue(
    tokens: &PackedTokens,
    failure: Failure,
    run: impl FnMut(&PackedTokens) -> Result<Vec<Outcome>, Failure>,
) -> Rescued {
    let mut rescue = Rescue {
        run,
        found: Rescued::default(),
    };
    rescue.failed(tokens, failure, false);
    rescue.found
}

struct Rescue<F> {
    run: F,
    found: Rescued,
}

impl<F: FnMut(&PackedTokens) -> Result<Vec<Outcome>, Failure>> Rescue<F> {
    /// Splits or rejects a part that failed. `halved`: it is already a half of a run that found no memory.
    fn failed(&mut self, tokens: &PackedTokens, failure: Failure, halved: bool) {
        let texts = tokens.sequences();
        let (cut, halved) = match &failure {
            Failure::Model(_) => (texts / 2, halved),
            Failure::OutOfMemory(_) => {
                let size = tokens.tokens();
                self.found.too_large = Some(self.found.too_large.map_or(size, |least| least.min(size)));
                (if halved { 0 } else { tokens.middle() }, true)
            }
            Failure::Lost(why) => {
                self.found.lost.get_or_insert_with(|| why.clone());
                (0, halved)
            }
        };
        if cut == 0 {
            let told = std::iter::repeat_n(Err(failure.rejection(texts)), texts);
            return self.found.rows.extend(told);
        }
        for part in [0..cut, cut..texts] {
            let part = tokens.part(part);
            match self.found.lost.clone() {
                Some(why) => self.failed(&part, Failure::Lost(why), halved),
                None => match (self.run)(&part) {
                    Ok(rows) => self.found.rows.extend(rows),
                    Err(failure) => self.failed(&part, failure, halved),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::reply::Reply;

    /// Texts of these lengths; every token of a text is its number.
    fn packed(lengths: &[usize]) -> PackedTokens {
        let texts: Vec<Vec<u32>> = lengths
            .iter()
            .zip(0..)
            .map(|(&length, text)| vec![text; length])
            .collect();
        PackedTokens::from_texts(texts.iter().map(Vec::as_slice))
    }

    fn answers(tokens: &PackedTokens) -> Vec<Outcome> {
        let first = |text| Ok(Reply::Embedding(vec![tokens.text(text)[0] as f32]));
        (0..tokens.sequences()).map(first).collect()
    }

    /// Runs a batch whose parts fail as `fails` says, and returns its result and the number of runs. Every
    /// row must be the text's own.
    fn check(lengths: &[usize], fails: impl Fn(&PackedTokens) -> Option<Failure>) -> (Rescued, usize) {
        let (tokens, mut runs) = (packed(lengths), 0);
        let rescued = rescue(&tokens, fails(&tokens).expect("it fails as a whole"), |part| {
            runs += 1;
            fails(part).map_or_else(|| Ok(answers(part)), Err)
        });
        assert_eq!(rescued.rows.len(), lengths.len());
        for (row, own) in rescued.rows.iter().zip(answers(&tokens)) {
            assert!(row.is_err() || *row == own, "{row:?} is not {own:?}");
        }
        (rescued, runs)
    }

    fn above(tokens_max: usize) -> impl Fn(&PackedTokens) -> Option<Failure> {
        move |tokens| (tokens.tokens() > tokens_max).then(|| Failure::OutOfMemory("full".into()))
    }

    #[test]
    fn one_bad_text_harms_no_other() {
        let (rescued, runs) = check(&[3; 32], |tokens| {
            let guilty = tokens.ids.contains(&17);
            guilty.then(|| Failure::Model("17".into()))
        });
        for (text, row) in rescued.rows.iter().enumerate() {
            let expected = text == 17;
            assert_eq!(*row == Err(Rejection::Model("17".into())), expected, "{row:?}");
        }
        assert_eq!((rescued.too_large, rescued.lost, runs), (None, None, 10));
    }

    #[test]
    fn a_batch_without_memory_runs_in_two_halves_of_equal_size() {
        let (rescued, runs) = check(&[8, 8, 8, 8], above(16));
        assert!(rescued.rows.iter().all(Result::is_ok));
        assert_eq!((rescued.too_large, runs), (Some(32), 2));
        // Half of the texts would hold more than half of the tokens.
        let (rescued, _) = check(&[30, 30, 15, 15, 15, 15], above(60));
        assert!(rescued.rows.iter().all(Result::is_ok), "{rescued:?}");
    }

    #[test]
    fn a_batch_without_memory_is_halved_once() {
        let (rescued, runs) = check(&[8, 8, 8, 8], above(8));
        let full = Err(Rejection::NotReady("full".into()));
        assert!(rescued.rows.iter().all(|row| *row == full), "{rescued:?}");
        assert_eq!((rescued.too_large, runs), (Some(16), 2));
        let (rescued, runs) = check(&[8], above(4));
        let alone = Err(Rejection::NoMemory("full".into()));
        assert_eq!((rescued.rows, runs), (vec![alone], 0));
    }

    #[test]
    fn a_bad_text_is_found_in_a_half_that_has_memory() {
        let (rescued, _) = check(&[8; 8], |tokens| {
            let guilty = tokens.ids.contains(&2);
            above(32)(tokens).or(guilty.then(|| Failure::Model("2".into())))
        });
        let failed: Vec<usize> = (0..8).filter(|&text| rescued.rows[text].is_err()).collect();
        assert_eq!(failed, [2]);
    }

    #[test]
    fn a_lost_device_runs_nothing_again() {
        let lost = || Some(Failure::Lost("gone".into()));
        let (rescued, runs) = check(&[1; 4], |_| lost());
        let gone = Err(Rejection::NotReady("gone".into()));
        assert!(rescued.rows.iter().all(|row| *row == gone));
        assert_eq!((rescued.lost.as_deref(), runs), (Some("gone"), 0));
        // The device is lost in the first half.
        let (rescued, runs) = check(&[1; 4], |tokens| match tokens.sequences() {
            4 => Some(Failure::Model("first".into())),
            _ => lost(),
        });
        assert!(rescued.rows.iter().all(|row| *row == gone), "{rescued:?}");
        assert_eq!(runs, 1);
    }
}
