//! Stage 0: the server's configuration. A raw mirror of the file, the environment and the flags is resolved
//! once, before any port opens, into the checked types below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod kinds;
mod table;

mod raw;
mod sections;

mod control;
mod resolve;
mod secret;
mod values;

mod kafka;

mod diagnose;
mod manual;
mod show;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::thread::available_parallelism;

use penstock_engine::settings::{EngineSettings, Limits, ModelConfig};

pub use control::ModelControl;
pub use diagnose::ConfigError;
pub use kafka::{ClientSource, Delivery, Honour, KafkaInput, KafkaRoute};
pub use manual::manual;
pub use raw::{JobSettings, Settings};
pub use secret::Secret;
pub use sections::Config;
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
