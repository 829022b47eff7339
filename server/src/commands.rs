//! The commands. Results go to stdout, messages to stderr.

mod check;
mod inspect;
mod pipeline;
mod score;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

use penstock_models::{ModelError, ModelSpec};

use crate::app::AppError;
use crate::cli::{Command, ModelCommand};
use penstock_config::ConfigError;
use penstock_engine::placement::DeviceError;
pub use pipeline::PipelineCommand;
pub use score::StopSignal;

/// Reason why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device is not available.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The server did not start, or did not end cleanly.
    #[error("{0}")]
    Serve(AppError),
    /// The engine of a job did not start.
    #[error("{0}")]
    Engine(AppError),
    /// The file of a pipeline is wrong.
    #[error(transparent)]
    Pipeline(#[from] penstock_pipeline::FileError),
    /// A file cannot be read or written.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A signal stopped a job.
    #[error("stopped by {0}")]
    Stopped(StopSignal),
    /// The reader of the output closed it, as `head` does; no message is needed.
    #[error("nobody reads the output")]
    NobodyReads,
}

impl Failure {
    /// Failure of a file that cannot be read or written.
    fn io(name: impl Into<String>, source: io::Error) -> Failure {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Failure::NobodyReads
        } else {
            Failure::Io {
                name: name.into(),
                source,
            }
        }
    }

    /// Exit codes: 2 if nothing was run, 1 if it failed while running, 128 plus the number of the signal that
    /// stopped it. 75 means that a new process, or the one that replaced this one, can succeed.
    pub fn code(&self) -> ExitCode {
        match self {
            // EX_TEMPFAIL: a new process, or the one that replaced this one, can succeed.
            Failure::Serve(AppError::Kafka(_) | AppError::DeviceLost(_)) => ExitCode::from(75),
            Failure::Serve(_) => ExitCode::FAILURE,
            Failure::Config(_)
            | Failure::Device(_)
            | Failure::Model(_)
            | Failure::Engine(_)
            | Failure::Pipeline(_)
            | Failure::Io { .. } => ExitCode::from(2),
            Failure::Stopped(signal) => ExitCode::from(signal.exit_code()),
            Failure::NobodyReads => ExitCode::SUCCESS,
        }
    }
}

/// Runs a command.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::serve(*args),
        Command::Score(args) => score::score(*args),
        Command::Check(args) => check::check(&args),
        Command::Pipeline(command) => pipeline::run(command),
        Command::Model(ModelCommand::Inspect(args)) => inspect::inspect(&args),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::io("stdout", e))
}

/// A model in one short phrase.
fn summary(spec: &ModelSpec) -> String {
    let what = match spec.labels.len() {
        0 => format!("{} dimensions", spec.hidden),
        labels => format!("{labels} labels"),
    };
    let ModelSpec {
        family,
        task,
        max_length,
        ..
    } = spec;
    let size = millions(spec.parameters);
    format!(
        "{}, {}, {what}, {size} parameters, up to {max_length} tokens",
        family.name(),
        task.name()
    )
}

fn millions(parameters: u64) -> String {
    if parameters < 1_000_000 {
        parameters.to_string()
    } else {
        format!("{:.1} M", parameters as f64 / 1e6)
    }
}
