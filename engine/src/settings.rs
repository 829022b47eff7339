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

/// Declares the checked settings of a section from the rows of its table. A row reads
/// `key: type as kind [default] [..=bound] "text" "more text of the manual";`. The crate `config` makes the
/// parser, the flags, the output of `penstock check` and the manual from the same rows.
#[macro_export]
macro_rules! checked_settings {
    (
        $(#[$about:meta])* $checked:ident, $raw:ident $section:literal $heading:literal $prefix:literal;
        { $($key:ident: $type:ty as $kind:ident [$($default:tt)*] $([..= $most:expr])? $text:literal $($more:literal)?;)* }
        { $($(#[$doc:meta])* $beside:ident: $beside_type:ty;)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $checked {
            $(#[doc = $text] pub $key: $type,)*
            $($(#[$doc])* pub $beside: $beside_type,)*
        }
    };
}

/// The defaults of a section, from the rows of its table.
macro_rules! default_settings {
    (
        $(#[$about:meta])* $checked:ident, $raw:ident $section:literal $heading:literal $prefix:literal;
        { $($key:ident: $type:ty as $kind:ident [$($default:tt)*] $([..= $most:expr])? $text:literal $($more:literal)?;)* }
        {}
    ) => {
        impl Default for $checked {
            fn default() -> $checked {
                $checked { $($key: default_settings!(@ $($default)*),)* }
            }
        }
    };
    (@ = $value:expr) => { $value };
    (@ none $text:literal) => { None };
}

/// The table of `[limits]`.
#[macro_export]
macro_rules! limits_table {
    ($with:ident) => { $with! {
        /// Bounds of all queues, requests and connections.
        #[derive(Eq)]
        Limits, RawLimits "limits" "Limits" "";
        {
            max_request_texts: usize as Count [= 8192]
                "Texts of one request"
                "It is split over batches. More is `INVALID_ARGUMENT` / 400";
            max_request_bytes: usize as Size [= 64 << 20]
                "Bytes of one request, on gRPC and HTTP alike";
            stream_in_flight_max: usize as Count [= 256]
                "Texts of one stream that are read and not yet answered"
                "Beyond it the server stops reading";
            queue_texts_max: usize as Count [= 16_384] [..= 1 << 22]
                "Texts that wait for one model"
                "A full queue is `UNAVAILABLE` / 503 (429 on the OpenAI and TEI routes)";
            queue_tokens_max: usize as Count [= 1 << 20]
                "Tokens that wait for one model"
                "They are counted by an upper bound until a text is tokenized";
            queue_bytes_max: usize as Size [= 256 << 20]
                "Bytes of text that wait for one model";
            connections_max: usize as Count [= 1024]
                "Open connections of the gRPC port, and as many of the HTTP port"
                "Further ones wait. The limit of open files is raised to its hard limit at start. Where that is too low for both ports, each gets what there is, and a warning names the numbers. The metrics port has 64 of its own";
            connections_per_address_max: Option<usize> as Count [none "no limit"]
                "Open connections of one client address on the gRPC or HTTP port"
                "Further ones are closed at once. An IPv6 network of 64 bits counts as one address. Clients behind a proxy or load balancer share its address, so set it only where clients come directly";
            streams_max: usize as Count [= 100]
                "gRPC calls at once on one connection, unary and streaming"
                "A client library keeps further calls back until one ends. For more than 100 long streams, open a second channel or raise it";
        }
        {}
    } };
}

limits_table!(checked_settings);
limits_table!(default_settings);

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

/// The table of `[batching]`.
#[macro_export]
macro_rules! batching_table {
    ($with:ident) => { $with! {
        /// Limits of batches.
        #[derive(Eq)]
        Batching, RawBatching "batching" "Batching" "batching_";
        {
            tokens_max: Option<usize> as Count [none "1024 on the CPU, 8192 on a GPU"]
                "Tokens of one batch; at least the longest text of the model"
                "The longest text is the default if it is longer, and `limits.queue_tokens_max` must hold the batch. A larger batch hardly computes more tokens a second on a CPU, and every text in it waits longer: 512 tokens halve the wait for 3 % of the rate ([performance.md](performance.md#how-large-a-batch-is))";
            texts_max: usize as Count [= 1024]
                "Texts of one batch";
            bulk_age_max: Duration as Time [= Duration::from_secs(2)]
                "Age at which bulk work goes ahead of interactive work";
            queue_delay_max: Duration as Time [= Duration::ZERO]
                "Longest wait of an idle device for more texts"
                "At `0s` the device starts with the texts that are there";
            interactive_target: Duration as Time [= Duration::from_millis(50)]
                "Latency of interactive texts that bulk texts leave room for"
                "While interactive texts come, and for 10 s after the last one, bulk texts run alone or in batches that are predicted to take at most half of it (a third with `prefetch = 1`). On the CPU an interactive text waits only for one operation of a bulk batch, so a bulk batch may take longer there by the number of its operations. Interactive texts among themselves are not cut. A time of hours turns it off";
            prefetch: Option<usize> as Number [none "0 on the CPU, 1 on a GPU"] [..= 8]
                "Batches that are prepared while one runs, 0 to 8"
                "At `0` a new text waits for one batch less, and the device waits some 0.1 ms between two batches, which is little on a CPU";
            executors: usize as Count [= 1] [..= 8]
                "Executors of a model on each GPU, 1 to 8"
                "Each has a thread, streams and activations of its own; all share the weights ([cuda.md](cuda.md)). The CPU always has one, and another for urgent batches";
        }
        {}
    } };
}

batching_table!(checked_settings);
batching_table!(default_settings);
