//! Log lines on stderr: text on a terminal, one JSON object a line otherwise. No caller waits for stderr.

mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use tracing::error;
use tracing_subscriber::EnvFilter;

use writer::{LineWriter, RawStderr};

/// Longest wait for the last lines at the end of the process.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// The writer of this process; empty until logging starts.
static WRITER: OnceLock<LineWriter> = OnceLock::new();

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<LogFormat, String> {
        match s {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("unknown log format `{s}`; known are auto, text and json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(s: String) -> Result<LogFormat, String> {
        s.parse()
    }
}

/// Reason why a filter cannot be used.
pub fn check(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|e| format!("log filter `{filter}`: {e}"))
}

/// Starts logging. A second call in one process, as in tests, changes nothing. Fails if the thread that writes
/// the lines cannot be started.
pub fn init(filter: &str, format: LogFormat) -> io::Result<()> {
    if WRITER.get().is_some() {
        return Ok(());
    }
    let started = LineWriter::start(RawStderr)?;
    let writer = WRITER.get_or_init(|| started).clone();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(stderr().is_terminal())
        // An error of the formatter would be printed with `eprintln!`, which panics without a stderr.
        .log_internal_errors(false)
        .with_writer(writer);
    let begun = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    if begun.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    // Otherwise an earlier subscriber stays.
    Ok(())
}

/// Log lines of this process that were not written: the queue was full, or stderr took nothing.
pub fn lines_lost() -> u64 {
    WRITER.get().map_or(0, LineWriter::lost)
}

/// Writes the last lines before the process ends, `message` after all others. It waits a second for a stderr
/// that takes nothing.
pub fn finish(message: Option<&str>) {
    let message = message.map(|message| format!("{message}\n"));
    match (WRITER.get(), message) {
        (Some(writer), message) => {
            if let Some(message) = message {
                writer.line(message.as_bytes());
            }
            writer.flush(FLUSH_PATIENCE);
        }
        // The exit code alone reports the failure if stderr takes nothing.
        (None, Some(message)) => drop(stderr().write_all(message.as_bytes())),
        (None, None) => {}
    }
}

/// Logs a panic. The usual hook writes to stderr, and a thread would wait there for a pipe that nobody reads.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let reason = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        error!(thread, location, reason, %backtrace, "a thread panicked");
    } else {
        error!(thread, location, reason, "a thread panicked");
    }
}
