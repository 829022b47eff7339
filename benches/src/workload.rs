//! The measured texts: a JSON Lines file, or the project's own generated ones.
//!
//! A figure about batching depends on the spread of lengths more than on anything else. The generated
//! workload therefore takes its lengths from the quantiles of a mixed corpus. The corpus has 2,000 English
//! texts (documentation sentences, paragraphs): 5 to 197 tokens, median 30, mean 43, with a long tail.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

mod words;

/// Token lengths, special tokens included, at the quantiles 0, 1/40, …, 40/40 of the corpus.
const LENGTH_QUANTILES: [f64; 41] = [
    5.0, 7.0, 8.0, 8.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0, 22.0, 23.0, 25.0,
    26.0, 28.0, 30.0, 31.0, 33.0, 35.0, 37.0, 40.0, 43.0, 45.0, 48.0, 52.0, 56.0, 62.0, 67.0, 72.0, 79.0,
    87.0, 99.0, 111.0, 136.0, 157.0, 197.0,
];

/// Default number of texts of the generated workload.
pub const COUNT: usize = 2000;

/// The seed of the generated workload: the same texts on every machine.
pub const SEED: u64 = 2;

/// The `[CLS]` and `[SEP]` that a BERT tokenizer adds.
const SPECIAL_TOKENS: usize = 2;

/// The texts of `file`, or the generated ones without a file.
pub fn texts(file: Option<&Path>) -> Result<Vec<String>> {
    match file {
        Some(path) => read(path),
        None => Ok(generate(COUNT, SEED)),
    }
}

/// One line that names the workload in a result.
pub fn describe(file: Option<&Path>, texts: &[String]) -> String {
    let source = file.map_or("generated".to_owned(), |f| {
        f.file_name()
            .map_or_else(|| "file".to_owned(), |n| n.to_string_lossy().into_owned())
    });
    format!("{source}, {} texts", texts.len())
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
}

fn read(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut texts = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Line = serde_json::from_str(&line)
            .with_context(|| format!("{}:{}: no JSON object with \"text\"", path.display(), number + 1))?;
        texts.push(parsed.text);
    }
    if texts.is_empty() {
        bail!("{} holds no text", path.display());
    }
    Ok(texts)
}

/// `count` texts whose lengths follow the corpus; the same for the same seed.
pub fn generate(count: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    lengths(count, &mut rng)
        .into_iter()
        .map(|tokens| text(tokens, &mut rng))
        .collect()
}

/// One draw from each of `count` equal slices of the distribution, then shuffled. Even few texts thus have
/// the spread of the corpus.
pub fn lengths(count: usize, rng: &mut StdRng) -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..count)
        .map(|slice| quantile((slice as f64 + rng.random::<f64>()) / count as f64).round() as usize)
        .collect();
    lengths.shuffle(rng);
    lengths
}

fn quantile(at: f64) -> f64 {
    let last = LENGTH_QUANTILES.len() - 1;
    let position = at.clamp(0.0, 1.0) * last as f64;
    let below = (position as usize).min(last - 1);
    let (low, high) = (LENGTH_QUANTILES[below], LENGTH_QUANTILES[below + 1]);
    low + (high - low) * (position - below as f64)
}

/// Sentences that a BERT (English, uncased) tokenizer turns into exactly `tokens` ids.
fn text(tokens: usize, rng: &mut StdRng) -> String {
    // One piece is kept for the full stop of a sentence that has to be cut.
    let mut left = tokens.saturating_sub(SPECIAL_TOKENS + 1).max(1);
    let mut text = String::with_capacity(tokens * 6);
    let mut starts = true;
    while left > 0 {
        for slot in words::SENTENCES.choose(rng).copied().unwrap_or("N").split(' ') {
            let (word, pieces) = fit(words::draw(slot, rng), left, rng);
            push(&mut text, &word, starts);
            starts = word == ".";
            left -= pieces;
            if left == 0 {
                break;
            }
        }
    }
    // Two full stops in a row would be an ellipsis to a reader, and one token too few for some tokenizers.
    push(&mut text, if starts { "!" } else { "." }, false);
    text
}

/// A word of several pieces that no longer fits gives way to a plain one.
fn fit(drawn: (String, usize), left: usize, rng: &mut StdRng) -> (String, usize) {
    if drawn.1 <= left {
        drawn
    } else {
        words::draw("N", rng)
    }
}

fn push(text: &mut String, word: &str, capital: bool) {
    let is_mark = matches!(word, "." | "," | ";" | "!");
    if !is_mark && !text.is_empty() {
        text.push(' ');
    }
    if capital {
        let mut letters = word.chars();
        text.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    } else {
        text.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_corpus() {
        let mut lengths = lengths(COUNT, &mut StdRng::seed_from_u64(SEED));
        lengths.sort_unstable();
        let mean = lengths.iter().sum::<usize>() as f64 / COUNT as f64;
        assert!((42.0..45.0).contains(&mean), "mean {mean}");
        assert_eq!(lengths[COUNT / 2], 30);
        assert!(lengths[0] >= 5 && lengths[COUNT - 1] <= 197);
    }

    #[test]
    fn same_seed_same_texts() {
        assert_eq!(generate(50, 7), generate(50, 7));
        assert_ne!(generate(50, 7), generate(50, 8));
    }

    #[test]
    fn few_texts_still_spread() {
        let lengths = lengths(10, &mut StdRng::seed_from_u64(1));
        assert!(
            lengths.iter().max() > Some(&100) && lengths.iter().min() < Some(&12),
            "{lengths:?}"
        );
    }

    #[test]
    fn lines_without_text_are_named() {
        let folder = std::env::temp_dir().join(format!("penstock-workload-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("texts.jsonl");
        std::fs::write(&path, "{\"text\": \"one\"}\n{\"txt\": \"two\"}\n").unwrap();
        let error = texts(Some(&path)).unwrap_err().to_string();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("texts.jsonl:2"), "{error}");
    }
}
