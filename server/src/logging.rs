//! Log lines on stderr: for people on a terminal, one JSON object each otherwise.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Says why a filter cannot be used.
pub fn check(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|e| format!("log filter `{filter}`: {e}"))
}

/// Begins to log. A second call in one process, as in tests, changes nothing.
pub fn init(filter: &str, format: LogFormat) {
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    let begun = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    // Somebody logs already: their subscriber stays.
    drop(begun);
}
