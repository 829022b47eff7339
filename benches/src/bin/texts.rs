//! Prints the generated workload as JSON Lines, for peers that read a file.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::Parser;
use penstock_benches::workload::{COUNT, SEED, generate};

/// The generated workload as JSON Lines.
#[derive(Parser)]
struct Arguments {
    /// Count of texts.
    #[arg(long, default_value_t = COUNT)]
    count: usize,
    /// Another seed gives other texts with the same spread of lengths.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut out = stdout().lock();
    for text in generate(arguments.count, arguments.seed) {
        writeln!(
            out,
            "{}",
            serde_json::to_string(&serde_json::json!({ "text": text }))?
        )?;
    }
    Ok(())
}
