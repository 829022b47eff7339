//! Stage 0: what the server runs with. A raw mirror of the file, the environment and the flags is
//! resolved once, before any port opens, into the checked types below.

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

use penstock_models::Task;

pub use diagnose::ConfigError;
pub use kafka::{ClientSource, Delivery, Honour, KafkaInput, KafkaRoute};
pub use raw::{JobSettings, Settings};
pub use secret::Secret;
pub use values::{DeviceChoice, DtypeChoice, LogFormat, Size, Time};

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
    /// Where the models are to run; [`crate::device`] holds it against what this machine has.
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

/// The bounds of everything that could grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Texts of one request.
    pub max_request_texts: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Texts of one stream that are read and not yet answered.
    pub stream_in_flight_max: usize,
    /// Texts that wait in one model's queue.
    pub queue_texts_max: usize,
    /// Tokens that wait in one model's queue.
    pub queue_tokens_max: usize,
    /// Bytes of text that wait in one model's queue.
    pub queue_bytes_max: usize,
    /// Open connections of one port.
    pub connections_max: usize,
    /// gRPC calls at once on one connection.
    pub streams_max: usize,
}

impl Limits {
    /// Bytes of memory that a request may take beyond its own length once it is decoded: as many short texts as
    /// a request may hold, with their ids, or a mebibyte.
    pub fn decoded_allowance(&self) -> usize {
        const TEXT: usize = 160;
        self.max_request_texts.saturating_mul(TEXT).max(1 << 20)
    }
}

/// One model to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The name that requests ask for.
    pub name: String,
    /// A folder or a Hugging Face id, with `@REVISION` where one is wanted.
    pub source: String,
    /// The task, where it is not to be read from the folder.
    pub task: Option<Task>,
    /// Tokens that a text is cut at, where it is not to be the model's own maximum.
    pub max_length: Option<usize>,
    /// How its texts are batched.
    pub batching: Batching,
    /// Whether the vectors in `parity.json` are checked before the model serves.
    pub check_parity: bool,
}

/// How texts become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Tokens of one batch; `None` is what the device is given, or the model's longest text where that is longer.
    pub tokens_max: Option<usize>,
    /// Texts of one batch.
    pub texts_max: usize,
    /// How long bulk work waits before it goes ahead of interactive work.
    pub bulk_age_max: Duration,
    /// How long an idle device waits for more texts.
    pub queue_delay_max: Duration,
    /// The latency of interactive work that bulk work leaves room for.
    pub interactive_target: Duration,
    /// Batches that are prepared while one runs; `None` is none on the CPU and one on a GPU.
    pub prefetch: Option<usize>,
    /// Executors on each GPU.
    pub executors: usize,
}
