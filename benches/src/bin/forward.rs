//! Measures the bare forward of a model: a line of JSON in, a line of JSON out, so that a runner can
//! interleave it with its peers. `echo '{"order":"arrival","tokens":4096,"seconds":5}' | forward --model DIR`

use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use penstock_benches::forward::{Forward, Wanted};
use penstock_benches::workload;
use penstock_models::{Device, Dtype as Format, LoadOptions, Precision, Threads, load, probe};

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
    /// `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "cpu", value_parser = gpu)]
    device: On,
    /// Compute threads of the CPU.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Number format of the linear layers; on a GPU, of everything.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// On a GPU: start small batches launch by launch, without a graph.
    #[arg(long)]
    no_graphs: bool,
    /// Maximum of tokens, instead of the folder's.
    #[arg(long)]
    max_length: Option<usize>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
    Int8,
}

/// A GPU by its number, or the CPU.
#[derive(Clone, Copy)]
enum On {
    Cpu,
    Cuda(usize),
}

fn gpu(name: &str) -> Result<On, String> {
    let unknown = || format!("unknown device `{name}`; known are cpu, cuda and cuda:N");
    match name {
        "cpu" => Ok(On::Cpu),
        "cuda" => Ok(On::Cuda(0)),
        _ => {
            let number = name.strip_prefix("cuda:").ok_or_else(unknown)?;
            number.parse().map(On::Cuda).map_err(|_| unknown())
        }
    }
}

impl Arguments {
    fn device(&self) -> Result<Device> {
        let dtype = self.dtype;
        match self.device {
            On::Cpu => Ok(Device::Cpu {
                threads: Some(Threads::new(self.threads)?),
                precision: match dtype {
                    Dtype::F32 => Precision::F32,
                    Dtype::Bf16 => Precision::bf16()?,
                    Dtype::Int8 => Precision::int8(),
                    Dtype::F16 => bail!("{dtype:?} is not computed on the cpu"),
                },
            }),
            On::Cuda(ordinal) => {
                // Nothing else of CUDA may be called before: a library that is missing would end the process.
                probe(&[ordinal])?;
                Ok(Device::Cuda {
                    ordinal,
                    dtype: match dtype {
                        Dtype::F32 => Format::F32,
                        Dtype::F16 => Format::F16,
                        Dtype::Bf16 => Format::Bf16,
                        Dtype::Int8 => bail!("{dtype:?} is not computed on a gpu"),
                    },
                    graphs: !self.no_graphs,
                })
            }
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = LoadOptions {
        device: arguments.device()?,
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
