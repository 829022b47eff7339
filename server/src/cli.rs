//! The command line, as `--help` shows it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::PipelineCommand;
use penstock_config::{JobSettings, Settings};

/// Runs text models: scores, labels and embeddings over gRPC, HTTP and files.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  penstock serve --model sentiment=models/sentiment
  penstock score --model models/sentiment --input reviews.jsonl --output scored.jsonl
  penstock check penstock.toml
  penstock model inspect sentence-transformers/all-MiniLM-L6-v2

`penstock COMMAND --help` says more about each.";

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve models over gRPC and HTTP until SIGTERM or SIGINT
    Serve(Box<ServeArgs>),
    /// Score the lines of a file and exit
    Score(Box<ScoreArgs>),
    /// Check a config file and show what it would run
    Check(CheckArgs),
    /// Check, plan and test a pipeline
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Look at models
    #[command(subcommand)]
    Model(ModelCommand),
}

/// `penstock serve`.
#[derive(Args, Debug)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// Read settings from this file; the environment and the flags beat it
    #[arg(long, env = "PENSTOCK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

const SERVE_HELP: &str = "\
The line `ready grpc=… http=… metrics=…` on stdout says that every model is loaded and warm.
SIGTERM or SIGINT: no new requests, the accepted ones are answered, exit code 0.

Examples:
  penstock serve --model sentiment=models/sentiment --model minilm=org/minilm@main
  penstock serve --config penstock.toml --grpc-addr 0.0.0.0:8001
  PENSTOCK_LOG=debug penstock serve --config penstock.toml

Then:
  curl 127.0.0.1:8000/v2/models/sentiment/infer -d \\
    '{\"inputs\":[{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"a fine film\"]}]}'";

/// `penstock score`.
#[derive(Args, Debug)]
#[command(after_help = SCORE_HELP)]
pub struct ScoreArgs {
    /// A model folder, or a Hugging Face id with an optional revision
    #[arg(long, value_name = "DIR_OR_HF_ID[@REVISION]")]
    pub model: String,
    /// The file to read; - is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// The file to write, in place of an existing one when all is done; - is stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// The JSON field that holds the text; says that the input is JSON Lines
    #[arg(long, value_name = "FIELD")]
    pub field: Option<String>,
    /// The settings of the engine.
    #[command(flatten)]
    pub settings: JobSettings,
}

const SCORE_HELP: &str = "\
Input is one text per line, or one JSON object per line (JSON Lines). Without --field the first line
decides: where it is a JSON object, the text is in its field `text`.

Output is one JSON object per record, in the order of the input: its `index` from 0, its `id` where the
record has one, and `label`, `score` and `probabilities`, or `embedding`. A record that cannot be scored
has `error` instead. Memory is bounded, whatever the size of the input.

A file of output gets its name when it is complete: until then an existing file stays as it was. It must
not be the input. After Ctrl-C, SIGTERM or SIGHUP a last line says how many texts were scored; a second
signal ends the job at once. Pipes and devices are written as the lines come.

Exit code: 0 every record was scored, 1 some were not, 2 the job could not run or finish, 130, 143 or 129
it was stopped by SIGINT, SIGTERM or SIGHUP.

Examples:
  penstock score --model models/sentiment --input reviews.txt --output scored.jsonl
  zcat dump.jsonl.gz | penstock score --model org/minilm --field body > vectors.jsonl
  echo 'a fine film' | penstock score --model models/sentiment";

/// `penstock check`.
#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// The config file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

const CHECK_HELP: &str = "\
Prints the config with every default written out, itself a config, and what each model folder holds.
Starts nothing, downloads nothing. Exit code 2 and FILE:LINE:COLUMN with the reason where it is wrong.";

/// `penstock model …`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what a model is: family, task, labels, size, longest text, parity vectors
    Inspect(InspectArgs),
}

/// `penstock model inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A model folder, or a Hugging Face id with an optional revision
    #[arg(value_name = "DIR_OR_HF_ID[@REVISION]")]
    pub model: String,
}
