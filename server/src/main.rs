//! The program: reads the command line, runs the command, ends with its exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use penstock::cli::Cli;
use penstock::commands::{self, Failure};

fn main() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            if !matches!(failure, Failure::NobodyReads) {
                // With a closed stderr the exit code alone reports the failure.
                let _ = writeln!(std::io::stderr(), "penstock: {failure}");
            }
            failure.code()
        }
    }
}
