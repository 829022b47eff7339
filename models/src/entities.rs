//! From the logits of tokens to entities: labelled spans of the text.
//!
//! All strategies but [`Aggregation::Bioes`] equal transformers' `TokenClassificationPipeline` (5.23).

use std::ops::Range;

use crate::TokenSpan;

/// Rule that joins labelled tokens to entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Each token with a label other than `O` is an entity of its own, with its whole label.
    None,
    /// Neighbours with the same tag are one entity; `B-` begins a new one.
    #[default]
    Simple,
    /// Like `Simple`, over words: a word has the label of its first token.
    First,
    /// Like `Simple`, over words: a word has the label with the highest mean probability.
    Average,
    /// Like `Simple`, over words: a word has the label of its most certain token.
    Max,
    /// Strict BIOES: `B- I-… E-` and `S-` are entities, anything else is none.
    Bioes,
}

impl Aggregation {
    /// Every strategy.
    pub const ALL: [Aggregation; 6] = [
        Aggregation::None,
        Aggregation::Simple,
        Aggregation::First,
        Aggregation::Average,
        Aggregation::Max,
        Aggregation::Bioes,
    ];

    /// The name in requests and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Aggregation::None => "none",
            Aggregation::Simple => "simple",
            Aggregation::First => "first",
            Aggregation::Average => "average",
            Aggregation::Max => "max",
            Aggregation::Bioes => "bioes",
        }
    }

    /// The strategy called `name`.
    pub fn named(name: &str) -> Option<Aggregation> {
        Aggregation::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity<'a> {
    /// The label: with its prefix for [`Aggregation::None`], otherwise without.
    pub label: &'a str,
    /// Mean probability of the label over the entity's tokens or words.
    pub score: f32,
    /// Bytes of the text.
    pub bytes: Range<usize>,
    /// The entity's tokens, as positions in `spans`.
    pub tokens: Range<usize>,
}

/// A token or a word with its label.
struct Unit<'a> {
    label: &'a str,
    score: f32,
    tokens: Range<usize>,
}

/// The entities of one text. `logits` are f32 `[spans, labels]`, row-major, without special tokens. Labels called
/// `O` are no entities.
pub fn entities<'a>(
    labels: &'a [String],
    logits: &[f32],
    spans: &[TokenSpan],
    aggregation: Aggregation,
) -> Vec<Entity<'a>> {
    if labels.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<f32>> = logits.chunks_exact(labels.len()).map(softmax).collect();
    let rows = &rows[..rows.len().min(spans.len())];
    let units = match aggregation {
        Aggregation::None | Aggregation::Simple | Aggregation::Bioes => tokens(labels, rows),
        Aggregation::First | Aggregation::Average | Aggregation::Max => {
            words(labels, rows, spans, aggregation)
        }
    };
    let found = match aggregation {
        Aggregation::None => units,
        Aggregation::Bioes => bioes(&units),
        _ => groups(&units),
    };
    let entity = |unit: Unit<'a>| Entity {
        label: unit.label,
        score: unit.score,
        bytes: spans[unit.tokens.start].start as usize..spans[unit.tokens.end - 1].end as usize,
        tokens: unit.tokens,
    };
    found
        .into_iter()
        .filter(|unit| unit.label != "O")
        .map(entity)
        .collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f32> = logits.iter().map(|&x| (x - most).exp()).collect();
    let sum: f32 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// Position of the largest value, the first of equals.
fn best(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

fn unit<'a>(labels: &'a [String], row: &[f32], tokens: Range<usize>) -> Unit<'a> {
    let best = best(row);
    Unit {
        label: &labels[best],
        score: row[best],
        tokens,
    }
}

fn tokens<'a>(labels: &'a [String], rows: &[Vec<f32>]) -> Vec<Unit<'a>> {
    let token = |(at, row): (usize, &Vec<f32>)| unit(labels, row, at..at + 1);
    rows.iter().enumerate().map(token).collect()
}

fn words<'a>(
    labels: &'a [String],
    rows: &[Vec<f32>],
    spans: &[TokenSpan],
    aggregation: Aggregation,
) -> Vec<Unit<'a>> {
    let mut units = Vec::new();
    let mut begin = 0;
    while begin < rows.len() {
        let continued = spans[begin + 1..rows.len()].iter();
        let end = begin + 1 + continued.take_while(|span| span.continues).count();
        let word = &rows[begin..end];
        let row = match aggregation {
            Aggregation::Average => mean(word),
            Aggregation::Max => {
                let certain = word.iter().map(|row| row[best(row)]).collect::<Vec<_>>();
                word[best(&certain)].clone()
            }
            _ => word[0].clone(),
        };
        units.push(unit(labels, &row, begin..end));
        begin = end;
    }
    units
}

fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; rows[0].len()];
    for row in rows {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sum.iter().map(|sum| sum / rows.len() as f32).collect()
}

/// Whether a label begins an entity, and its tag. A label without a prefix continues one.
fn tag(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(tag) => (true, tag),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

/// Neighbours with the same tag, joined.
fn groups<'a>(units: &[Unit<'a>]) -> Vec<Unit<'a>> {
    let joined = |one: &Unit<'a>, next: &Unit<'a>| {
        let (begins, name) = tag(next.label);
        !begins && name == tag(one.label).1
    };
    let group = |units: &[Unit<'a>]| {
        let label = units[0].label;
        join(units, label.split_once('-').map_or(label, |(_, tag)| tag))
    };
    units.chunk_by(joined).map(group).collect()
}

fn join<'a>(units: &[Unit<'a>], label: &'a str) -> Unit<'a> {
    Unit {
        label,
        score: units.iter().map(|unit| unit.score).sum::<f32>() / units.len() as f32,
        tokens: units[0].tokens.start..units[units.len() - 1].tokens.end,
    }
}

/// Whole entities of the BIOES scheme.
fn bioes<'a>(units: &[Unit<'a>]) -> Vec<Unit<'a>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str)> = None;
    for (at, unit) in units.iter().enumerate() {
        open = match (unit.label.split_once('-'), open) {
            (Some(("S", name)), _) => {
                found.push(join(&units[at..=at], name));
                None
            }
            (Some(("B", name)), _) => Some((at, name)),
            (Some(("I", name)), Some((begin, open))) if name == open => Some((begin, open)),
            (Some(("E", name)), Some((begin, open))) if name == open => {
                found.push(join(&units[begin..=at], name));
                None
            }
            _ => None,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = ["O", "B-X", "I-X", "B-Y", "I-Y", "Z", "S-X", "E-X", "E-Y"];

    /// Spans of one byte each; a token whose name ends in `+` continues the word before it.
    fn found(tokens: &[&str], aggregation: Aggregation) -> Vec<(String, Range<usize>)> {
        let labels: Vec<String> = NAMES.map(str::to_owned).to_vec();
        let (mut logits, mut spans) = (Vec::new(), Vec::new());
        for (at, token) in tokens.iter().enumerate() {
            let name = token.trim_end_matches('+');
            // The later token is the more certain one.
            logits.extend(NAMES.map(|label| f32::from(u8::from(label == name)) * (4.0 + at as f32)));
            spans.push(TokenSpan {
                start: at as u32,
                end: at as u32 + 1,
                continues: token.ends_with('+'),
            });
        }
        let found = entities(&labels, &logits, &spans, aggregation);
        found
            .into_iter()
            .map(|one| (one.label.to_owned(), one.bytes))
            .collect()
    }

    fn check(tokens: &[&str], aggregation: Aggregation, expected: &[(&str, Range<usize>)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(label, bytes)| ((*label).to_owned(), bytes.clone()))
            .collect();
        assert_eq!(found(tokens, aggregation), expected, "{tokens:?} {aggregation:?}");
    }

    #[test]
    fn tokens_without_aggregation_keep_their_labels() {
        check(
            &["B-X", "O", "I-X"],
            Aggregation::None,
            &[("B-X", 0..1), ("I-X", 2..3)],
        );
        check(&[], Aggregation::None, &[]);
    }

    #[test]
    fn neighbours_with_a_tag_are_one_entity_until_another_begins() {
        let simple = Aggregation::Simple;
        check(&["B-X", "I-X", "I-Y"], simple, &[("X", 0..2), ("Y", 2..3)]);
        check(&["B-X", "B-X"], simple, &[("X", 0..1), ("X", 1..2)]);
        check(
            &["I-X", "I-X", "O", "Z", "Z"],
            simple,
            &[("X", 0..2), ("Z", 3..5)],
        );
        check(&["O", "O"], simple, &[]);
    }

    #[test]
    fn a_word_has_one_label() {
        let word = ["B-X", "I-Y+", "I-Y"];
        check(&word, Aggregation::Simple, &[("X", 0..1), ("Y", 1..3)]);
        check(&word, Aggregation::First, &[("X", 0..2), ("Y", 2..3)]);
        check(&word, Aggregation::Max, &[("Y", 0..3)]);
        check(&word, Aggregation::Average, &[("Y", 0..3)]);
        // A first token that continues a word begins one all the same.
        check(&["B-X+", "O+"], Aggregation::First, &[("X", 0..2)]);
    }

    #[test]
    fn only_whole_entities_of_bioes_count() {
        let bioes = Aggregation::Bioes;
        check(&["B-X", "I-X", "E-X", "S-X"], bioes, &[("X", 0..3), ("X", 3..4)]);
        check(&["B-X", "I-X", "O", "E-X"], bioes, &[]);
        check(&["B-X", "E-Y", "I-X", "B-X", "B-X", "E-X"], bioes, &[("X", 4..6)]);
    }

    #[test]
    fn every_strategy_is_found_by_its_name() {
        for one in Aggregation::ALL {
            assert_eq!(Aggregation::named(one.name()), Some(one));
        }
        assert_eq!(Aggregation::named("Simple"), None);
    }
}
