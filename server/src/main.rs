//! The program: reads the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

use clap::Parser;
use penstock::cli::Cli;
use penstock::commands::{self, Failure};
use penstock_telemetry::logging;

fn main() -> ExitCode {
    let ended = commands::run(Cli::parse().command);
    let message = match &ended {
        Ok(_) | Err(Failure::NobodyReads) => None,
        Err(failure) => Some(format!("penstock: {failure}")),
    };
    logging::finish(message.as_deref());
    ended.unwrap_or_else(|failure| failure.code())
}
