//! Several targets in turn, several times, so that a slow minute of the machine affects all of them alike.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::figures::{Figures, median};
use super::{Adapter, Feed, closed, open};

/// Kind of load.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Requests in flight at any time.
    Concurrency(usize),
    /// Mean arrivals a second.
    Rate(f64),
}

/// Durations and rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// Bursts of each target.
    pub rounds: usize,
    /// Unmeasured start of each burst.
    #[serde(serialize_with = "seconds")]
    pub warm: Duration,
    /// The measured part.
    #[serde(serialize_with = "seconds")]
    pub measured: Duration,
}

fn seconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64())
}

/// One target under one manner of load.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The target's name.
    pub target: String,
    /// The load.
    pub manner: Manner,
    /// Medians over the rounds.
    pub median: Figures,
    /// Texts a second over those of the first target: the median of the rounds' ratios.
    pub texts_ratio: f64,
    /// The same for the p99.
    pub p99_ratio: f64,
    /// Every round.
    pub rounds: Vec<Figures>,
}

/// Runs every manner on every target, round by round.
pub async fn run(
    targets: &[(String, Arc<dyn Adapter>)],
    feed: &Arc<Feed>,
    manners: &[Manner],
    plan: Plan,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &manner in manners {
        let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); targets.len()];
        for round in 0..plan.rounds {
            for step in 0..targets.len() {
                // Each round starts with another target.
                let which = (round + step) % targets.len();
                figures[which].push(burst(&targets[which].1, feed, manner, plan, round).await?);
            }
        }
        let first = figures[0].clone();
        for ((name, _), rounds) in targets.iter().zip(figures) {
            rows.push(Row {
                target: name.clone(),
                manner,
                median: Figures::medians(&rounds),
                texts_ratio: ratio(&rounds, &first, |f| f.texts_per_second),
                p99_ratio: ratio(&rounds, &first, |f| f.p99_ms),
                rounds,
            });
        }
    }
    Ok(rows)
}

async fn burst(
    adapter: &Arc<dyn Adapter>,
    feed: &Arc<Feed>,
    manner: Manner,
    plan: Plan,
    round: usize,
) -> Result<Figures> {
    match manner {
        Manner::Concurrency(workers) => closed::run(adapter, feed, workers, plan.warm, plan.measured).await,
        Manner::Rate(rate) => open::run(adapter, feed, rate, round as u64, plan.warm, plan.measured).await,
    }
}

fn ratio(rounds: &[Figures], first: &[Figures], pick: fn(&Figures) -> f64) -> f64 {
    let ratios = rounds.iter().zip(first).map(|(a, b)| (pick(a), pick(b)));
    median(ratios.filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b).collect())
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| load | target | requests/s | texts/s | tokens/s | p50 ms | p90 ms | p99 ms | p99.9 ms | errors \
         | texts/s ratio | p99 ratio |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let m = &row.median;
        let load = match row.manner {
            Manner::Concurrency(workers) => format!("closed, {workers}"),
            Manner::Rate(rate) => format!("open, {rate}/s"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {load} | {} | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.3} | {:.3} |",
            row.target,
            m.requests_per_second,
            m.texts_per_second,
            m.tokens_per_second,
            m.p50_ms,
            m.p90_ms,
            m.p99_ms,
            m.p999_ms,
            m.errors,
            row.texts_ratio,
            row.p99_ratio,
        );
    }
    table
}
