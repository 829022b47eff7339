//! Measures matrix products and the machine's peaks: a line of JSON in, a line of JSON out, so that a runner
//! can interleave them with libraries of other languages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result};
use clap::Parser;
use penstock_benches::gemm::{Shape, Subject, WantedProduct, subject, subjects};

/// One line on stdin is one burst:
/// `{"subject": "penstock f32", "rows": N, "inputs": N, "outputs": N, "seconds": S}`.
#[derive(Parser)]
struct Arguments {
    /// Compute threads; set `RAYON_NUM_THREADS` alike for the crates that use rayon.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut out = stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "ready": subjects() }))?;
    out.flush()?;
    let mut prepared: HashMap<(String, Shape), Subject> = HashMap::new();
    for line in stdin().lock().lines() {
        let line = line.context("cannot read from stdin")?;
        let wanted: WantedProduct =
            serde_json::from_str(&line).with_context(|| format!("no burst: {line}"))?;
        let subject = match prepared.entry((wanted.subject.clone(), wanted.shape)) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(subject(&wanted.subject, wanted.shape, arguments.threads)?),
        };
        let measured = subject.burst(wanted.seconds)?;
        writeln!(out, "{}", serde_json::to_string(&measured)?)?;
        out.flush()?;
    }
    Ok(())
}
