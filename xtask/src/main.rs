//! `cargo xtask tidy`: the checks on the tree that no compiler makes.

mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent folder")?;
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => {
            let faults = tidy::check(root)?;
            for fault in &faults {
                say(fault);
            }
            say(&format!("tidy: {} faults", faults.len()));
            Ok(if faults.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        other => {
            say(&format!("unknown task {other:?}; there is one: tidy"));
            Ok(ExitCode::from(2))
        }
    }
}

#[allow(
    clippy::print_stdout,
    reason = "a command line tool: its output is its purpose"
)]
fn say(line: &str) {
    println!("{line}");
}
