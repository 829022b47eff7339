//! Cuts a batch into parts of about equal work, for a device that computes them side by side.
//!
//! Threads that share every product of a batch exchange its activations forty times. Threads with texts of
//! their own exchange nothing, so a batch is cut wherever it has enough texts for even parts.

use penstock_core::PackedTokens;

/// Tokens of a part. A larger part hardly computes more tokens a second (docs/performance.md).
const PART_TOKENS: usize = 512;
/// Least tokens of a part. A smaller one mostly reads weights, and all threads together are faster.
const PART_TOKENS_MIN: usize = 128;
/// Bound of the longest part over the mean, as a quotient: beyond it too many threads wait.
const UNEVEN_MAX: (usize, usize) = (9, 8);

/// A subset of the texts of a batch.
pub(super) struct Part {
    /// Numbers of the texts in the batch.
    pub(super) texts: Vec<usize>,
    /// Tokens of these texts.
    pub(super) tokens: PackedTokens,
}

/// The parts of `batch` for `seats` threads and a model `hidden` wide; empty where it is better left whole.
pub(super) fn cut(batch: &PackedTokens, seats: usize, hidden: usize) -> Vec<Part> {
    if seats < 2 || batch.tokens() < seats * PART_TOKENS_MIN {
        return Vec::new();
    }
    let count = seats * batch.tokens().div_ceil(seats * PART_TOKENS);
    // Products cost 24·hidden² operations a token, attention 4·hidden for each pair of tokens.
    let cost = |len: usize| len * (6 * hidden + len);
    let mut texts: Vec<(usize, usize)> = batch.lengths().map(cost).enumerate().collect();
    // The longest text comes first; each goes to the part with the least work.
    texts.sort_by_key(|&(_, cost)| std::cmp::Reverse(cost));
    let mut parts = vec![(0, Vec::new()); count];
    for (text, cost) in texts {
        if let Some((load, texts)) = parts.iter_mut().min_by_key(|(load, _)| *load) {
            *load += cost;
            texts.push(text);
        }
    }
    let total: usize = parts.iter().map(|(load, _)| load).sum();
    let longest = parts.iter().map(|(load, _)| *load).max().unwrap_or(0);
    if longest * count * UNEVEN_MAX.1 > total * UNEVEN_MAX.0 {
        return Vec::new();
    }
    let part = |texts: Vec<usize>| Part {
        tokens: PackedTokens::from_texts(texts.iter().map(|&text| batch.text(text))),
        texts,
    };
    parts.into_iter().map(|(_, texts)| part(texts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the tokens of each part for a batch of texts of these lengths.
    fn check(lengths: &[usize], seats: usize, expected: &[usize]) {
        let texts: Vec<Vec<u32>> = lengths
            .iter()
            .enumerate()
            .map(|(text, &len)| vec![text as u32; len])
            .collect();
        let batch = PackedTokens::from_texts(texts.iter().map(Vec::as_slice));
        let parts = cut(&batch, seats, 384);
        let tokens: Vec<usize> = parts.iter().map(|part| part.tokens.tokens()).collect();
        assert_eq!(tokens, expected, "{lengths:?} on {seats}");
        let mut seen: Vec<usize> = parts.iter().flat_map(|part| part.texts.clone()).collect();
        seen.sort_unstable();
        assert!(seen.is_empty() || seen == (0..lengths.len()).collect::<Vec<_>>());
        for part in &parts {
            for (place, &text) in part.texts.iter().enumerate() {
                assert_eq!(part.tokens.text(place), texts[text]);
            }
        }
    }

    #[test]
    fn every_text_is_in_one_part_and_the_parts_are_even() {
        check(&[100, 50, 50, 100], 2, &[150, 150]);
        check(&[64; 32], 2, &[512; 4]);
        check(&[64; 32], 4, &[512; 4]);
        check(&[300, 20, 20, 20, 20, 20, 20, 200], 2, &[300, 320]);
    }

    #[test]
    fn a_batch_that_cannot_be_cut_evenly_stays_whole() {
        check(&[512], 2, &[]);
        check(&[512, 20, 20], 2, &[]);
        check(&[10; 10], 2, &[]);
        check(&[64; 32], 1, &[]);
        check(&[], 2, &[]);
    }
}
