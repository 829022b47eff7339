//! Checked settings of the engine: bounds, models, batching, threads.

use std::time::Duration;

use penstock_models::Task;

/// Settings of one [`Engine`](crate::engine::Engine).
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Threads that compute.
    pub threads: usize,
    /// Whether each of them stays on a CPU of its own.
    pub pin_threads: bool,
    /// Threads that tokenize.
    pub tokenizer_threads: usize,
    /// Whether a GPU starts the launches of a small batch by one call.
    pub cuda_graphs: bool,
    /// The bounds.
    pub limits: Limits,
    /// The models; names are unique.
    pub models: Vec<ModelConfig>,
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
            streams_max: 100,
        }
    }
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
