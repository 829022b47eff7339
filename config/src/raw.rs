//! The raw mirror of all settings: one struct per section, read from the file by serde and from the
//! environment and the flags by clap. A setting is one field, so it has one name in all three places:
//! `[limits] queue_texts_max`, `PENSTOCK_QUEUE_TEXTS_MAX`, `--queue-texts-max`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::Args;
use penstock_models::Task;
use serde::Deserialize;

use super::control::ModelControl;
use super::kafka::raw::Kafka;
use super::values::{Size, Time};
use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_telemetry::logging::LogFormat;

/// All settings. `None` is a setting that is not set.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[command(flatten)]
    pub(super) server: Server,
    #[command(flatten)]
    pub(super) limits: Limits,
    #[command(flatten)]
    pub(super) batching: Batching,
    /// The `[[model]]` tables of the file.
    #[arg(skip)]
    pub(super) model: Vec<Model>,
    /// The `[[kafka]]` tables of the file.
    #[arg(skip)]
    pub(super) kafka: Vec<Kafka>,
    /// Serve this model; repeat it for more. A folder, or a Hugging Face id with an optional revision
    #[arg(
        long = "model",
        value_name = "NAME=DIR_OR_HF_ID[@REVISION]",
        env = "PENSTOCK_MODEL",
        value_delimiter = ',',
        help_heading = "Models"
    )]
    #[serde(skip)]
    pub(super) named: Vec<NamedModel>,
    /// Read pickled weights, of every model; trust their source [default: false]
    #[arg(
        long,
        env = "PENSTOCK_ALLOW_PICKLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Models"
    )]
    #[serde(skip)]
    pub(super) allow_pickle: Option<bool>,
}

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Server")]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Where gRPC listens [default: 127.0.0.1:8001]
    #[arg(long, env = "PENSTOCK_GRPC_ADDR", value_name = "ADDR:PORT")]
    pub(super) grpc_addr: Option<SocketAddr>,
    /// Where HTTP listens [default: 127.0.0.1:8000]
    #[arg(long, env = "PENSTOCK_HTTP_ADDR", value_name = "ADDR:PORT")]
    pub(super) http_addr: Option<SocketAddr>,
    /// Where /metrics listens [default: 127.0.0.1:8002]
    #[arg(long, env = "PENSTOCK_METRICS_ADDR", value_name = "ADDR:PORT")]
    pub(super) metrics_addr: Option<SocketAddr>,
    /// Where the models run: auto, cpu, cuda, cuda:N or cuda:N,M [default: auto]
    #[arg(long, env = "PENSTOCK_DEVICE", value_name = "DEVICE")]
    pub(super) device: Option<DeviceChoice>,
    /// Number format of the models: auto, f32, f16, bf16 or int8 [default: auto]
    #[arg(long, env = "PENSTOCK_DTYPE", value_name = "DTYPE")]
    pub(super) dtype: Option<DtypeChoice>,
    /// On a GPU: start the launches of a small batch by one call [default: true]
    #[arg(
        long,
        env = "PENSTOCK_CUDA_GRAPHS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) cuda_graphs: Option<bool>,
    /// Threads that compute [default: the CPUs this process may use]
    #[arg(long, env = "PENSTOCK_THREADS", value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,
    /// Keep each of them on a CPU of its own [default: false]
    #[arg(
        long,
        env = "PENSTOCK_PIN_THREADS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(super) pin_threads: Option<bool>,
    /// Threads that tokenize [default: a quarter of the CPUs, 1 to 16]
    #[arg(long, env = "PENSTOCK_TOKENIZER_THREADS", value_name = "N")]
    pub(super) tokenizer_threads: Option<NonZeroUsize>,
    /// Threads that read and write sockets [default: a quarter of the CPUs, 1 to 8]
    #[arg(long, env = "PENSTOCK_IO_THREADS", value_name = "N")]
    pub(super) io_threads: Option<NonZeroUsize>,
    /// How long a shutdown waits for the work that was accepted [default: 30s]
    #[arg(long, env = "PENSTOCK_DRAIN_TIMEOUT", value_name = "TIME")]
    pub(super) drain_timeout: Option<Time>,
    /// Whether requests may load and unload models: off or on [default: off]
    #[arg(long, env = "PENSTOCK_MODEL_CONTROL", value_name = "off|on")]
    pub(super) model_control: Option<ModelControl>,
    /// Which of several processes this one is, such as the name of its pod [default: random]
    #[arg(long, env = "PENSTOCK_INSTANCE", value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// Which log lines are written, such as debug or warn,penstock=debug [default: info]
    #[arg(long, env = "PENSTOCK_LOG", value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// How they look: auto (text on a terminal, JSON otherwise), text or json [default: auto]
    #[arg(long, env = "PENSTOCK_LOG_FORMAT", value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Limits")]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Texts of one request [default: 8192]
    #[arg(long, env = "PENSTOCK_MAX_REQUEST_TEXTS", value_name = "N")]
    pub(super) max_request_texts: Option<NonZeroUsize>,
    /// Bytes of one request, on the wire and of its texts [default: 64MiB]
    #[arg(long, env = "PENSTOCK_MAX_REQUEST_BYTES", value_name = "SIZE")]
    pub(super) max_request_bytes: Option<Size>,
    /// Texts of one stream that are read and not yet answered [default: 256]
    #[arg(long, env = "PENSTOCK_STREAM_IN_FLIGHT_MAX", value_name = "N")]
    pub(super) stream_in_flight_max: Option<NonZeroUsize>,
    /// Texts that wait for one model [default: 16384]
    #[arg(long, env = "PENSTOCK_QUEUE_TEXTS_MAX", value_name = "N")]
    pub(super) queue_texts_max: Option<NonZeroUsize>,
    /// Tokens that wait for one model [default: 1048576]
    #[arg(long, env = "PENSTOCK_QUEUE_TOKENS_MAX", value_name = "N")]
    pub(super) queue_tokens_max: Option<NonZeroUsize>,
    /// Bytes of text that wait for one model [default: 256MiB]
    #[arg(long, env = "PENSTOCK_QUEUE_BYTES_MAX", value_name = "SIZE")]
    pub(super) queue_bytes_max: Option<Size>,
    /// Open connections of one port [default: 1024]
    #[arg(long, env = "PENSTOCK_CONNECTIONS_MAX", value_name = "N")]
    pub(super) connections_max: Option<NonZeroUsize>,
    /// Open connections of one client address on a port; proxies share one [default: no limit]
    #[arg(long, env = "PENSTOCK_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N")]
    pub(super) connections_per_address_max: Option<NonZeroUsize>,
    /// gRPC calls at once on one connection; a client keeps further ones back [default: 100]
    #[arg(long, env = "PENSTOCK_STREAMS_MAX", value_name = "N")]
    pub(super) streams_max: Option<NonZeroUsize>,
}

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[command(next_help_heading = "Batching")]
#[serde(default, deny_unknown_fields)]
pub(super) struct Batching {
    /// Tokens of one batch; at least the longest text of the model [default: 1024 on the CPU, 8192 on a GPU, or that text]
    #[arg(
        long = "batching-tokens-max",
        env = "PENSTOCK_BATCHING_TOKENS_MAX",
        value_name = "N"
    )]
    pub(super) tokens_max: Option<NonZeroUsize>,
    /// Texts of one batch [default: 1024]
    #[arg(
        long = "batching-texts-max",
        env = "PENSTOCK_BATCHING_TEXTS_MAX",
        value_name = "N"
    )]
    pub(super) texts_max: Option<NonZeroUsize>,
    /// After this long, bulk work goes ahead of interactive work [default: 2s]
    #[arg(
        long = "batching-bulk-age-max",
        env = "PENSTOCK_BATCHING_BULK_AGE_MAX",
        value_name = "TIME"
    )]
    pub(super) bulk_age_max: Option<Time>,
    /// How long an idle device waits for more texts [default: 0s]
    #[arg(
        long = "batching-queue-delay-max",
        env = "PENSTOCK_BATCHING_QUEUE_DELAY_MAX",
        value_name = "TIME"
    )]
    pub(super) queue_delay_max: Option<Time>,
    /// The latency of interactive texts that bulk texts leave room for [default: 50ms]
    #[arg(
        long = "batching-interactive-target",
        env = "PENSTOCK_BATCHING_INTERACTIVE_TARGET",
        value_name = "TIME"
    )]
    pub(super) interactive_target: Option<Time>,
    /// Batches that are prepared while one runs, 0 to 8 [default: 0 on the CPU, 1 on a GPU]
    #[arg(
        long = "batching-prefetch",
        env = "PENSTOCK_BATCHING_PREFETCH",
        value_name = "N"
    )]
    pub(super) prefetch: Option<usize>,
    /// Executors of a model on each GPU; the CPU has one [default: 1]
    #[arg(
        long = "batching-executors",
        env = "PENSTOCK_BATCHING_EXECUTORS",
        value_name = "N"
    )]
    pub(super) executors: Option<NonZeroUsize>,
}

/// Settings of a job without listeners, under the same names.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub struct JobSettings {
    /// Where the model runs: auto, cpu, cuda, cuda:N or cuda:N,M [default: auto]
    #[arg(long, env = "PENSTOCK_DEVICE", value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Number format of the model: auto, f32, f16, bf16 or int8 [default: auto]
    #[arg(long, env = "PENSTOCK_DTYPE", value_name = "DTYPE")]
    dtype: Option<DtypeChoice>,
    /// Threads that compute [default: the CPUs this process may use]
    #[arg(long, env = "PENSTOCK_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Threads that tokenize [default: a quarter of the CPUs, 1 to 16]
    #[arg(long, env = "PENSTOCK_TOKENIZER_THREADS", value_name = "N")]
    tokenizer_threads: Option<NonZeroUsize>,
    /// Which log lines are written [default: warn]
    #[arg(
        long,
        env = "PENSTOCK_LOG",
        value_name = "FILTER",
        default_value = "warn",
        hide_default_value = true
    )]
    log: Option<String>,
    /// Read pickled weights; trust their source [default: false]
    #[arg(
        long,
        env = "PENSTOCK_ALLOW_PICKLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    allow_pickle: Option<bool>,
    #[command(flatten)]
    batching: Batching,
}

impl JobSettings {
    /// Adds the one model that the job runs.
    pub fn with_model(self, name: &str, path: &str) -> Settings {
        let JobSettings {
            device,
            dtype,
            threads,
            tokenizer_threads,
            log,
            allow_pickle,
            batching,
        } = self;
        Settings {
            server: Server {
                device,
                dtype,
                threads,
                tokenizer_threads,
                log,
                ..Server::default()
            },
            batching,
            allow_pickle,
            model: vec![Model::plain(name.to_owned(), path.to_owned())],
            ..Settings::default()
        }
    }
}

/// One `[[model]]` table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) task: Option<TaskName>,
    pub(super) max_length: Option<NonZeroUsize>,
    pub(super) check_parity: Option<bool>,
    pub(super) allow_pickle: Option<bool>,
    #[serde(default)]
    pub(super) batching: Batching,
}

/// A model named by flag: `NAME=DIR_OR_HF_ID[@REVISION]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedModel {
    pub(super) name: String,
    pub(super) path: String,
}

impl FromStr for NamedModel {
    type Err = String;

    fn from_str(s: &str) -> Result<NamedModel, String> {
        match s.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(NamedModel {
                name: name.to_owned(),
                path: path.to_owned(),
            }),
            _ => Err(format!(
                "`{s}` lacks a name; write NAME=DIR_OR_HF_ID, such as sentiment={s}"
            )),
        }
    }
}

/// A task by its name.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TaskName(pub(super) Task);

impl TryFrom<String> for TaskName {
    type Error = String;

    fn try_from(s: String) -> Result<TaskName, String> {
        Task::ALL
            .into_iter()
            .find(|task| task.name() == s)
            .map(TaskName)
            .ok_or_else(|| {
                let known: Vec<&str> = Task::ALL.into_iter().map(Task::name).collect();
                format!("unknown task `{s}`; known are {}", known.join(", "))
            })
    }
}

/// `over`: values of this layer, or of the layer below where this one has none.
macro_rules! layered {
    ($t:ident { $($field:ident),+ }) => {
        impl $t {
            pub(super) fn over(self, below: $t) -> $t {
                $t { $($field: self.$field.or(below.$field)),+ }
            }
        }
    };
}

layered!(Server {
    grpc_addr,
    http_addr,
    metrics_addr,
    device,
    dtype,
    cuda_graphs,
    threads,
    pin_threads,
    tokenizer_threads,
    io_threads,
    drain_timeout,
    model_control,
    instance,
    log,
    log_format
});
layered!(Limits {
    max_request_texts,
    max_request_bytes,
    stream_in_flight_max,
    queue_texts_max,
    queue_tokens_max,
    queue_bytes_max,
    connections_max,
    connections_per_address_max,
    streams_max
});
layered!(Batching {
    tokens_max,
    texts_max,
    bulk_age_max,
    queue_delay_max,
    interactive_target,
    prefetch,
    executors
});

impl Settings {
    /// The lowest layer: settings from other programs' environment variables.
    pub(super) fn of_environment(rust_log: Option<String>) -> Settings {
        let server = Server {
            log: rust_log.filter(|log| !log.is_empty()),
            ..Server::default()
        };
        Settings {
            server,
            ..Settings::default()
        }
    }

    /// This layer over the one below. A model named by a flag replaces the file's model of that name and
    /// keeps its other settings.
    pub(super) fn over(self, below: Settings) -> Settings {
        let mut model = below.model;
        model.extend(self.model);
        let mut kafka = below.kafka;
        kafka.extend(self.kafka);
        for NamedModel { name, path } in self.named {
            match model.iter_mut().find(|m| m.name == name) {
                Some(known) => known.path = path,
                None => model.push(Model::plain(name, path)),
            }
        }
        if let Some(allowed) = self.allow_pickle {
            for model in &mut model {
                model.allow_pickle = Some(allowed);
            }
        }
        Settings {
            server: self.server.over(below.server),
            limits: self.limits.over(below.limits),
            batching: self.batching.over(below.batching),
            model,
            kafka,
            named: below.named,
            allow_pickle: below.allow_pickle,
        }
    }
}

impl Model {
    pub(super) fn plain(name: String, path: String) -> Model {
        Model {
            name,
            path,
            task: None,
            max_length: None,
            check_parity: None,
            allow_pickle: None,
            batching: Batching::default(),
        }
    }
}
