//! Stage 0: what the server runs with. A raw mirror of the file, the environment and the flags is
//! resolved once, before any port opens, into the checked types below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod raw;

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

pub use diagnose::ConfigError;
pub use kafka::{ClientSource, Delivery, Honour, KafkaInput, KafkaRoute};
pub use raw::{JobSettings, Settings};
pub use secret::Secret;
pub use values::{Size, Time};

/// What the server runs with, from the file under the environment under the flags. clap has already laid
/// the flags over the environment.
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

/// The CPUs this process may use: its affinity and its cgroup's quota count.
fn cpus() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Everything that the server runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Where HTTP listens.
    pub http_addr: SocketAddr,
    /// Where `/metrics` listens.
    pub metrics_addr: SocketAddr,
    /// Where the models are to run; [`penstock_engine::placement`] holds it against what this machine has.
    pub device: DeviceChoice,
    /// What they are to compute in.
    pub dtype: DtypeChoice,
    /// Whether a GPU starts the launches of a small batch by one call.
    pub cuda_graphs: bool,
    /// Threads that compute.
    pub threads: usize,
    /// Whether each of them stays on a CPU of its own.
    pub pin_threads: bool,
    /// Threads that tokenize.
    pub tokenizer_threads: usize,
    /// Threads that read and write sockets.
    pub io_threads: usize,
    /// How long a shutdown waits for the work that was accepted.
    pub drain_timeout: Duration,
    /// Which of several processes this one is, where it was said; otherwise the routes have a name at random.
    pub instance: Option<String>,
    /// The bounds.
    pub limits: Limits,
    /// The models; names are unique.
    pub models: Vec<ModelConfig>,
    /// The Kafka routes; names are unique.
    pub kafka: Vec<KafkaRoute>,
    /// Which log lines are written, as `tracing` filters are.
    pub log: String,
    /// How they look.
    pub log_format: LogFormat,
}

impl Config {
    /// The part that the engine starts with.
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
