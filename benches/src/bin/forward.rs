//! Measures the bare forward of a model: a line of JSON in, a line of JSON out, so that a runner can
//! interleave it with its peers. `echo '{"order":"arrival","tokens":4096,"seconds":5}' | forward --model DIR`

use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use penstock_benches::forward::{Forward, Wanted};
use penstock_benches::workload;
use penstock_models::{Device, LoadOptions, Precision, Threads, load};

/// One line on stdin is one burst:
/// `{"order": "arrival"|"sorted"|"equal", "tokens": N, "texts": N, "length": N, "tokenize": false, "seconds": S}`.
#[derive(Parser)]
struct Arguments {
    /// The model folder.
    #[arg(long)]
    model: PathBuf,
    /// JSON Lines with "text"; without it, the generated workload.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// Compute threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// What the linear layers compute in.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Another maximum of tokens than the folder says.
    #[arg(long)]
    max_length: Option<usize>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    Int8,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = LoadOptions {
        device: Device::Cpu {
            threads: Some(Threads::new(arguments.threads)?),
            precision: match arguments.dtype {
                Dtype::F32 => Precision::F32,
                Dtype::Bf16 => Precision::bf16()?,
                Dtype::Int8 => Precision::int8(),
            },
        },
        max_length: arguments.max_length,
        check_parity: false,
        ..LoadOptions::default()
    };
    let loaded = load(&arguments.model, &options)?;
    let texts = workload::texts(arguments.texts.as_deref())?;
    let mut forward = Forward::new(loaded, texts)?;
    let mut out = stdout().lock();
    writeln!(
        out,
        "{}",
        serde_json::json!({
            "ready": format!("penstock {}", env!("CARGO_PKG_VERSION")),
            "tokens": forward.lengths().collect::<Vec<_>>(),
        })
    )?;
    out.flush()?;
    for line in stdin().lock().lines() {
        let line = line.context("cannot read from stdin")?;
        let wanted: Wanted = serde_json::from_str(&line).with_context(|| format!("no burst: {line}"))?;
        writeln!(out, "{}", serde_json::to_string(&forward.burst(&wanted)?)?)?;
        out.flush()?;
    }
    Ok(())
}
