//! Checked settings of the engine: bounds, models, batching, threads.

use std::time::Duration;

use penstock_models::Task;

/// Settings of one [`Engine`](crate::engine::Engine).
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Compute threads.
    pub threads: usize,
    /// Whether each compute thread is pinned to a CPU.
    pub pin_threads: bool,
    /// Tokenizer threads.
    pub tokenizer_threads: usize,
    /// Whether a GPU replays the launches of a small batch as one graph.
    pub cuda_graphs: bool,
    /// The bounds.
    pub limits: Limits,
    /// The models; names are unique.
    pub models: Vec<ModelConfig>,
}

/// Bounds of all queues, requests and connections.
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
    /// Open connections of one client address on a port; `None` is no limit.
    pub connections_per_address_max: Option<usize>,
    /// gRPC calls at once on one connection.
    pub streams_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_request_texts: 8192,
            max_request_bytes: 64 << 20,
            stream_in_flight_max: 256,
            queue_texts_max: 16_384,
            queue_tokens_max: 1 << 20,
            queue_bytes_max: 256 << 20,
            connections_max: 1024,
            connections_per_address_max: None,
            streams_max: 100,
        }
    }
}

impl Limits {
    /// Bytes of memory that a decoded request may take beyond its wire length. It covers the largest number
    /// of short texts with their ids, and is at least a mebibyte.
    pub fn decoded_allowance(&self) -> usize {
        const TEXT: usize = 160;
        self.max_request_texts.saturating_mul(TEXT).max(1 << 20)
    }
}

/// One model to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Name in requests.
    pub name: String,
    /// A folder or a Hugging Face id, with an optional `@REVISION`.
    pub source: String,
    /// The task; `None` reads it from the folder.
    pub task: Option<Task>,
    /// Tokens of a truncated text; `None` is the model's own maximum.
    pub max_length: Option<usize>,
    /// Batching of its texts.
    pub batching: Batching,
    /// Whether the vectors in `parity.json` are checked before the model serves.
    pub check_parity: bool,
    /// Whether weights in a `pytorch_model.bin` are read.
    pub allow_pickle: bool,
}

/// Limits of batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Tokens of one batch; `None` is the device's default, or the model's longest text if that is longer.
    pub tokens_max: Option<usize>,
    /// Texts of one batch.
    pub texts_max: usize,
    /// Age at which bulk work goes ahead of interactive work.
    pub bulk_age_max: Duration,
    /// Longest wait of an idle device for more texts.
    pub queue_delay_max: Duration,
    /// Target latency of interactive work, which bulk work leaves room for.
    pub interactive_target: Duration,
    /// Batches prepared while one runs; `None` is none on the CPU and one on a GPU.
    pub prefetch: Option<usize>,
    /// Executors on each GPU.
    pub executors: usize,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching {
            tokens_max: None,
            texts_max: 1024,
            bulk_age_max: Duration::from_secs(2),
            queue_delay_max: Duration::ZERO,
            interactive_target: Duration::from_millis(50),
            prefetch: None,
            executors: 1,
        }
    }
}
