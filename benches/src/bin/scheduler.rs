//! Measures the line without a model: texts a second, time added to each text at half of
//! 100,000 a second, and cost of the metrics. Prints JSON.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::Parser;
use penstock_benches::load::figures::median;
use penstock_benches::scheduler::{MeasuredLine, MetricsCost, flood, metrics_cost, trickle};
use serde::Serialize;

/// Queue, batcher, executor and responders around a model that answers at once.
#[derive(Parser)]
struct Arguments {
    /// Token budget of a batch.
    #[arg(long, default_value_t = 8192)]
    tokens: usize,
    /// Texts of each flood.
    #[arg(long, default_value_t = 500_000)]
    texts: usize,
    /// Arrivals a second for the added latency.
    #[arg(long, default_value_t = 50_000.0)]
    rate: f64,
    /// Seconds of arrivals.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds; the medians are printed too.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Serialize)]
struct Report {
    texts_per_second: f64,
    added_p50_us: f64,
    added_p99_us: f64,
    arrivals_per_second: f64,
    metrics: MetricsCost,
    floods: Vec<MeasuredLine>,
    trickles: Vec<MeasuredLine>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (mut floods, mut trickles) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        floods.push(flood(arguments.tokens, arguments.texts)?);
        trickles.push(trickle(arguments.tokens, arguments.rate, arguments.seconds)?);
    }
    let report = Report {
        texts_per_second: median(floods.iter().map(|m| m.texts_per_second).collect()),
        added_p50_us: median(trickles.iter().map(|m| m.p50_us).collect()),
        added_p99_us: median(trickles.iter().map(|m| m.p99_us).collect()),
        arrivals_per_second: median(trickles.iter().map(|m| m.texts_per_second).collect()),
        metrics: metrics_cost(1_000_000),
        floods,
        trickles,
    };
    writeln!(stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    Ok(())
}
