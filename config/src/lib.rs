//! Stage 0: the server's configuration. A raw mirror of the file, the environment and the flags is resolved
//! once, before any port opens, into the checked types below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod raw;

mod control;
mod resolve;
mod secret;
mod values;

mod kafka;

mod diagnose;
mod show;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::settings::{EngineSettings, Limits, ModelConfig};
use penstock_telemetry::logging::LogFormat;

pub use control::ModelControl;
pub use diagnose::ConfigError;
pub use kafka::{ClientSource, Delivery, Honour, KafkaInput, KafkaRoute};
pub use raw::{JobSettings, Settings};
pub use secret::Secret;
pub use values::{Size, Time};

/// Loads the configuration: flags take precedence over the environment, and the environment over the file.
/// clap has already merged the flags and the environment.
pub fn load(file: Option<&Path>, flags: Settings) -> Result<Config, ConfigError> {
    let base = Settings::of_environment(std::env::var("RUST_LOG").ok());
    let Some(file) = file else {
        return resolve::resolve(flags.over(base), cpus())
            .map_err(|problem| ConfigError::from_problem(None, problem));
    };
    let text = std::fs::read_to_string(file).map_err(|e| ConfigError::unreadable(file, &e))?;
    parse(file, &text, flags, base)
}

fn parse(file: &Path, text: &str, flags: Settings, base: Settings) -> Result<Config, ConfigError> {
    let written: Settings = toml::from_str(text).map_err(|e| ConfigError::from_toml(file, text, &e))?;
    resolve::resolve(flags.over(written.over(base)), cpus())
        .map_err(|problem| ConfigError::from_problem(Some((file, text)), problem))
}

/// Number of CPUs this process may use; its affinity and its cgroup's quota are included.
fn cpus() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The checked configuration of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of gRPC.
    pub grpc_addr: SocketAddr,
    /// Address of HTTP.
    pub http_addr: SocketAddr,
    /// Address of `/metrics`.
    pub metrics_addr: SocketAddr,
    /// Device of the models; [`penstock_engine::placement`] compares it with this machine.
    pub device: DeviceChoice,
    /// Number format of the models.
    pub dtype: DtypeChoice,
    /// Whether a GPU replays the launches of a small batch as one graph.
    pub cuda_graphs: bool,
    /// Compute threads.
    pub threads: usize,
    /// Whether each compute thread is pinned to a CPU.
    pub pin_threads: bool,
    /// Tokenizer threads.
    pub tokenizer_threads: usize,
    /// Threads that read and write sockets.
    pub io_threads: usize,
    /// Longest time that a shutdown waits for accepted work.
    pub drain_timeout: Duration,
    /// Whether requests may load and unload models.
    pub model_control: ModelControl,
    /// Name of this process among several; without one, the routes use a random name.
    pub instance: Option<String>,
    /// The bounds.
    pub limits: Limits,
    /// The models; names are unique.
    pub models: Vec<ModelConfig>,
    /// The Kafka routes; names are unique.
    pub kafka: Vec<KafkaRoute>,
    /// Filter of log lines, in `tracing`'s syntax.
    pub log: String,
    /// Format of log lines.
    pub log_format: LogFormat,
}

impl Config {
    /// The engine's part.
    pub fn engine(&self) -> EngineSettings {
        EngineSettings {
            threads: self.threads,
            pin_threads: self.pin_threads,
            tokenizer_threads: self.tokenizer_threads,
            cuda_graphs: self.cuda_graphs,
            limits: self.limits.clone(),
            models: self.models.clone(),
        }
    }
}
