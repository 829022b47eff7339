//! Puts load on one or several servers and prints the results, as a table and as JSON.

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use penstock_benches::load::rounds::{self, Manner, Plan, Row};
use penstock_benches::load::target::Target;
use penstock_benches::load::{Adapter, Feed};
use penstock_benches::workload;
use penstock_models::{self as models, LoadOptions};
use serde::Serialize;
use tokio::runtime::Builder;

/// Closed-loop and open-loop load, several targets interleaved.
#[derive(Parser)]
struct Arguments {
    /// `NAME=PROTOCOL@HOST:PORT/MODEL`; protocols: kserve-grpc, penstock-stream, tei-http, v2-http. The
    /// first target is the one the others are compared with.
    #[arg(long = "target", required = true)]
    targets: Vec<Target>,
    /// Closed loop: so many requests on their way at any time; one table row for each.
    #[arg(long, value_delimiter = ',')]
    concurrency: Vec<usize>,
    /// Open loop: so many Poisson arrivals a second; one table row for each.
    #[arg(long, value_delimiter = ',')]
    rate: Vec<f64>,
    /// Texts in one request.
    #[arg(long, default_value_t = 1)]
    texts_per_request: usize,
    /// JSON Lines with "text"; without it, the generated workload.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// A model folder: its tokenizer counts tokens/s.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// gRPC connections for each target. HTTP/1.1 opens as many as requests are on their way.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Threads of the client. The server that is measured needs the cores, so one; for a GPU that is too little.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bursts of each target for each load.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds at the start of each burst that are not measured.
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
    /// Measured seconds of each burst.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// File for the JSON; `-` prints it instead of the table.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    workload: String,
    texts_per_request: usize,
    plan: Plan,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = match arguments.threads {
        0 | 1 => Builder::new_current_thread(),
        threads => {
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    runtime.enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let texts = workload::texts(arguments.texts.as_deref())?;
    let described = workload::describe(arguments.texts.as_deref(), &texts);
    let tokens = count_tokens(arguments, &texts)?;
    let feed = Arc::new(Feed::new(texts, tokens, arguments.texts_per_request.max(1)));
    let closed = arguments.concurrency.iter().map(|&c| Manner::Concurrency(c));
    let manners: Vec<Manner> = closed
        .chain(arguments.rate.iter().map(|&r| Manner::Rate(r)))
        .collect();
    if manners.is_empty() {
        bail!("no load is asked for; give --concurrency 1,8,32,64 or --rate 100");
    }
    if arguments.rate.iter().any(|r| *r <= 0.0) || arguments.concurrency.contains(&0) {
        bail!("a rate or a concurrency of zero sends nothing");
    }
    let mut targets: Vec<(String, Arc<dyn Adapter>)> = Vec::new();
    for target in &arguments.targets {
        targets.push((
            target.name.clone(),
            target.connect(arguments.connections.max(1)).await?,
        ));
    }
    let plan = Plan {
        rounds: arguments.rounds.max(1),
        warm: Duration::from_secs_f64(arguments.warm),
        measured: Duration::from_secs_f64(arguments.seconds),
    };
    let rows = rounds::run(&targets, &feed, &manners, plan).await?;
    for row in &rows {
        if let Some(error) = &row.median.error {
            writeln!(
                stderr(),
                "{}: {} errors, the first: {error}",
                row.target,
                row.median.errors
            )?;
        }
    }
    let report = Report {
        workload: described,
        texts_per_request: arguments.texts_per_request,
        plan,
        rows,
    };
    write(&report, arguments.json.as_deref())
}

fn count_tokens(arguments: &Arguments, texts: &[String]) -> Result<Vec<usize>> {
    let Some(folder) = &arguments.tokenizer else {
        return Ok(vec![0; texts.len()]);
    };
    let options = LoadOptions {
        check_parity: false,
        ..LoadOptions::default()
    };
    let tokenizer = models::load(folder, &options)?.tokenizer;
    texts
        .iter()
        .map(|text| Ok(tokenizer.encode(text, true)?.len()))
        .collect()
}

fn write(report: &Report, json: Option<&std::path::Path>) -> Result<()> {
    let encoded = serde_json::to_string_pretty(report)?;
    match json {
        Some(path) if path == std::path::Path::new("-") => writeln!(stdout(), "{encoded}")?,
        Some(path) => {
            std::fs::write(path, encoded).with_context(|| format!("cannot write {}", path.display()))?;
            writeln!(stdout(), "{}", rounds::table(&report.rows))?;
        }
        None => writeln!(stdout(), "{}", rounds::table(&report.rows))?,
    }
    Ok(())
}
