//! The bare forward: a model on packed batches, with no server around it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use penstock_core::PackedTokens;
use penstock_models::{Loaded, Model};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Order in which texts are put into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// In order of arrival.
    Arrival,
    /// By length; the batches are then shuffled, so that each burst has short and long ones.
    Sorted,
    /// Generated texts of one length.
    Equal,
}

/// Rule by which texts are put into batches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Arrangement {
    /// Order of the texts.
    pub order: Order,
    /// Most tokens of a batch; absent, any number.
    pub tokens: Option<usize>,
    /// Most texts of a batch; absent, any number.
    pub texts: Option<usize>,
    /// The length of each text where all are equal.
    pub length: Option<usize>,
    /// Whether a batch is tokenized right before it runs, or was beforehand.
    #[serde(default)]
    pub tokenize: bool,
}

/// A requested burst.
#[derive(Clone, Debug, Deserialize)]
pub struct Wanted {
    /// Batches of the case.
    #[serde(flatten)]
    pub arrangement: Arrangement,
    /// The burst ends after the batch in which this time has passed.
    pub seconds: f64,
}

/// Results of a burst.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Texts computed.
    pub texts: usize,
    /// Tokens computed; there is no padding.
    pub tokens: usize,
    /// Batches run.
    pub batches: usize,
    /// Total time of the batches.
    pub seconds: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Texts a second.
    pub texts_per_second: f64,
    /// Median time of a batch; on a device that takes batches ahead, the time from one to the next.
    pub batch_ms_p50: f64,
    /// The time that one batch of a hundred exceeds.
    pub batch_ms_p99: f64,
}

struct Prepared {
    /// Texts of each batch, and their tokens.
    batches: Vec<(Vec<usize>, PackedTokens)>,
    next: usize,
}

/// A model, its texts, and where each arrangement stopped.
pub struct Forward {
    loaded: Loaded,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    prepared: HashMap<Arrangement, Prepared>,
}

impl Forward {
    /// Tokenizes every text once.
    pub fn new(loaded: Loaded, texts: Vec<String>) -> Result<Forward> {
        let ids = texts
            .iter()
            .map(|text| Ok(loaded.tokenizer.encode(text, true)?.as_slice().to_vec()))
            .collect::<Result<_>>()?;
        Ok(Forward {
            loaded,
            texts,
            ids,
            prepared: HashMap::new(),
        })
    }

    /// Tokens of each text.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.ids.iter().map(Vec::len)
    }

    /// Runs batches for the wanted time and goes on where the same arrangement stopped, so that the
    /// bursts of a run cover the whole workload.
    pub fn burst(&mut self, wanted: &Wanted) -> Result<Measured> {
        let arrangement = &wanted.arrangement;
        if !self.prepared.contains_key(arrangement) {
            let batches = arrange(arrangement, &self.ids);
            for (_, packed) in batches.iter().take(2) {
                self.loaded.model.forward(packed)?;
            }
            self.prepared
                .insert(arrangement.clone(), Prepared { batches, next: 0 });
        }
        let prepared = self
            .prepared
            .get_mut(arrangement)
            .context("an arrangement that was just made")?;
        let budget = Duration::from_secs_f64(wanted.seconds);
        let (mut texts, mut tokens, mut times) = (0, 0, Vec::new());
        let mut ahead = 0;
        let model = self.loaded.model.as_mut();
        let start = Instant::now();
        while start.elapsed() < budget {
            let (members, packed) = &prepared.batches[prepared.next % prepared.batches.len()];
            prepared.next += 1;
            let before = Instant::now();
            if arrangement.tokenize {
                let mut packed = PackedTokens::default();
                for &member in members {
                    packed.push(
                        self.loaded
                            .tokenizer
                            .encode(&self.texts[member], true)?
                            .as_slice(),
                    );
                }
                step(model, &packed, &mut ahead)?;
            } else {
                step(model, packed, &mut ahead)?;
            }
            times.push(before.elapsed());
            texts += packed.sequences();
            tokens += packed.tokens();
        }
        for _ in 0..ahead {
            model
                .pipelined()
                .context("a device that took batches")?
                .receive()?;
        }
        let seconds = start.elapsed().as_secs_f64();
        times.sort_unstable();
        let quantile = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
        Ok(Measured {
            texts,
            tokens,
            batches: times.len(),
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            texts_per_second: texts as f64 / seconds,
            batch_ms_p50: quantile(50),
            batch_ms_p99: quantile(99),
        })
    }
}

/// Runs a batch. A device that takes batches ahead gets it while earlier ones run, as from the server's executor;
/// `ahead` of them are on their way.
fn step(model: &mut dyn Model, packed: &PackedTokens, ahead: &mut usize) -> Result<()> {
    let Some(device) = model.pipelined() else {
        model.forward(packed)?;
        return Ok(());
    };
    if *ahead == device.in_flight_max() {
        *ahead -= 1;
        device.receive()?;
    }
    device.submit(packed)?;
    *ahead += 1;
    Ok(())
}

/// The batches: indices of texts, and their packed tokens.
pub fn arrange(arrangement: &Arrangement, ids: &[Vec<u32>]) -> Vec<(Vec<usize>, PackedTokens)> {
    let mut rng = StdRng::seed_from_u64(1);
    let length = arrangement.length.unwrap_or(64);
    if arrangement.order == Order::Equal {
        let texts = arrangement.texts.unwrap_or(1);
        let rows: Vec<Vec<u32>> = (0..texts)
            .map(|_| (0..length).map(|_| rng.random_range(1000..20_000)).collect())
            .collect();
        return vec![(
            Vec::new(),
            PackedTokens::from_texts(rows.iter().map(Vec::as_slice)),
        )];
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    if arrangement.order == Order::Sorted {
        order.sort_by_key(|&i| ids[i].len());
    }
    let mut batches: Vec<(Vec<usize>, PackedTokens)> = Vec::new();
    for index in order {
        let full = batches.last().is_none_or(|(members, packed)| {
            arrangement.texts.is_some_and(|max| members.len() >= max)
                || arrangement
                    .tokens
                    .is_some_and(|max| packed.tokens() + ids[index].len() > max)
        });
        if full {
            batches.push((Vec::new(), PackedTokens::default()));
        }
        if let Some((members, packed)) = batches.last_mut() {
            members.push(index);
            packed.push(&ids[index]);
        }
    }
    if arrangement.order == Order::Sorted {
        batches.shuffle(&mut rng);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(order: Order, tokens: Option<usize>, texts: Option<usize>, expected: &[&[usize]]) {
        let ids: Vec<Vec<u32>> = [3, 9, 2, 4].iter().map(|&n| vec![7; n]).collect();
        let arrangement = Arrangement {
            order,
            tokens,
            texts,
            length: None,
            tokenize: false,
        };
        let mut got: Vec<Vec<usize>> = arrange(&arrangement, &ids)
            .into_iter()
            .map(|(members, packed)| {
                assert_eq!(
                    packed.tokens(),
                    members.iter().map(|&m| ids[m].len()).sum::<usize>()
                );
                members
            })
            .collect();
        if order == Order::Sorted {
            got.sort_by_key(|b| ids[b[0]].len());
        }
        assert_eq!(got, expected);
    }

    #[test]
    fn batches_close_at_their_bounds() {
        check(Order::Arrival, Some(12), None, &[&[0, 1], &[2, 3]]);
        check(Order::Arrival, None, Some(3), &[&[0, 1, 2], &[3]]);
        check(Order::Arrival, Some(5), Some(2), &[&[0], &[1], &[2], &[3]]);
        check(Order::Sorted, None, Some(2), &[&[2, 0], &[3, 1]]);
    }
}
