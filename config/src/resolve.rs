//! From raw settings to the checked configuration: defaults, relations, and the abilities of this build.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Duration;

use super::kafka::raw::Kafka;
use super::kafka::{self, KafkaRoute};
use super::raw::{self, Settings};
use super::values::{Size, Time};
use super::{Config, Limits, ModelConfig};
use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::placement::{self, DeviceError};
use penstock_engine::settings::Batching;
use penstock_telemetry::logging;
use penstock_telemetry::logging::LogFormat;

/// Largest prefetch; more batches in flight gain nothing, and each holds its tokens.
const PREFETCH_MAX: usize = 8;
/// Most executors on one GPU; more gain nothing, and each has activations and 32 MiB of workspace of its own.
const EXECUTORS_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 128;
/// Most threads of one kind.
const THREADS_MAX: usize = 4096;
/// Most texts of a queue, whose places are allocated at the start.
const QUEUE_TEXTS_MAX: usize = 1 << 22;

/// An invalid setting, by its path in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) path: Vec<Step>,
    pub(super) message: String,
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(&'static str),
    Index(usize),
    /// A key that the file defines.
    Name(String),
}

fn problem<const N: usize>(path: [Step; N], message: impl Into<String>) -> Problem {
    Problem {
        path: path.into(),
        message: message.into(),
    }
}

fn setting(section: &'static str, key: &'static str, message: impl Into<String>) -> Problem {
    problem([Step::Key(section), Step::Key(key)], message)
}

/// `cpus` is the base of the defaults.
pub(super) fn resolve(settings: Settings, cpus: usize) -> Result<Config, Problem> {
    let Settings {
        server,
        limits,
        batching,
        model,
        kafka,
        // These two have been applied to the tables.
        named: _,
        allow_pickle: _,
    } = settings;
    let (device, dtype) = compute(&server)?;
    let [grpc_addr, http_addr, metrics_addr] = addresses(&server)?;
    let log = server.log.clone().unwrap_or_else(|| "info".to_owned());
    logging::check(&log).map_err(|message| setting("server", "log", message))?;
    let limits = bounds(&limits)?;
    let models = models(model, &batching, &limits)?;
    let kafka = kafka_routes(kafka, &models, &limits, server.instance.as_deref())?;
    let quarter = |max: usize| (cpus / 4).clamp(1, max);
    let threads = |key, given: Option<NonZeroUsize>, default| {
        let count = given.map_or(default, NonZeroUsize::get);
        at_most(count, THREADS_MAX, "server", key)
    };
    Ok(Config {
        grpc_addr,
        http_addr,
        metrics_addr,
        device,
        dtype,
        cuda_graphs: server.cuda_graphs.unwrap_or(true),
        threads: threads("threads", server.threads, cpus.min(THREADS_MAX))?,
        pin_threads: server.pin_threads.unwrap_or(false),
        tokenizer_threads: threads("tokenizer_threads", server.tokenizer_threads, quarter(16))?,
        io_threads: threads("io_threads", server.io_threads, quarter(8))?,
        drain_timeout: server.drain_timeout.map_or(Duration::from_secs(30), |t| t.0),
        model_control: server.model_control.unwrap_or_default(),
        instance: server.instance,
        models,
        kafka,
        limits,
        log,
        log_format: server.log_format.unwrap_or(LogFormat::Auto),
    })
}

/// Device and number format of the models. This machine is probed later. A format that the named device never
/// supports is refused here.
fn compute(server: &raw::Server) -> Result<(DeviceChoice, DtypeChoice), Problem> {
    let device = server.device.clone().unwrap_or(DeviceChoice::Auto);
    let dtype = server.dtype.unwrap_or(DtypeChoice::Auto);
    let computes = match device {
        DeviceChoice::Auto => Ok(()),
        DeviceChoice::Cpu => placement::on_cpu(dtype).map(drop),
        DeviceChoice::Cuda(_) => placement::on_cuda(dtype).map(drop),
    };
    match computes {
        Ok(()) | Err(DeviceError::Instructions(_)) => Ok((device, dtype)),
        Err(refused) => Err(setting("server", "dtype", refused.to_string())),
    }
}

fn addresses(server: &raw::Server) -> Result<[SocketAddr; 3], Problem> {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let named = [
        ("grpc_addr", server.grpc_addr.unwrap_or(local(8001))),
        ("http_addr", server.http_addr.unwrap_or(local(8000))),
        ("metrics_addr", server.metrics_addr.unwrap_or(local(8002))),
    ];
    for (i, (key, addr)) in named.iter().enumerate() {
        // Port 0 asks for any free port.
        if let Some((other, _)) = named[..i].iter().find(|(_, a)| a == addr && a.port() != 0) {
            return Err(setting(
                "server",
                key,
                format!("{key} and {other} are both {addr}; each needs its own port"),
            ));
        }
    }
    Ok(named.map(|(_, addr)| addr))
}

/// Checks a count against the limit of this program.
fn at_most(count: usize, most: usize, section: &'static str, key: &'static str) -> Result<usize, Problem> {
    if count > most {
        let message = format!("{key} is {count}; {most} is the most");
        return Err(setting(section, key, message));
    }
    Ok(count)
}

fn bounds(limits: &raw::Limits) -> Result<Limits, Problem> {
    let count = |given: Option<NonZeroUsize>, default| given.map_or(default, NonZeroUsize::get);
    let size = |given: Option<Size>, default| given.map_or(default, |size| size.0);
    let default = Limits::default();
    let queue_texts_max = count(limits.queue_texts_max, default.queue_texts_max);
    Ok(Limits {
        max_request_texts: count(limits.max_request_texts, default.max_request_texts),
        max_request_bytes: size(limits.max_request_bytes, default.max_request_bytes),
        stream_in_flight_max: count(limits.stream_in_flight_max, default.stream_in_flight_max),
        queue_texts_max: at_most(queue_texts_max, QUEUE_TEXTS_MAX, "limits", "queue_texts_max")?,
        queue_tokens_max: count(limits.queue_tokens_max, default.queue_tokens_max),
        queue_bytes_max: size(limits.queue_bytes_max, default.queue_bytes_max),
        connections_max: count(limits.connections_max, default.connections_max),
        connections_per_address_max: limits.connections_per_address_max.map(NonZeroUsize::get),
        streams_max: count(limits.streams_max, default.streams_max),
    })
}

/// The routes of this process, under the configured name or a random one.
fn kafka_routes(
    tables: Vec<Kafka>,
    models: &[ModelConfig],
    limits: &Limits,
    instance: Option<&str>,
) -> Result<Vec<KafkaRoute>, Problem> {
    if let Some(instance) = instance {
        valid_name("an instance", instance).map_err(|message| setting("server", "instance", message))?;
    }
    let instance = kafka::resolve::Instance {
        name: instance.unwrap_or_else(|| at_random()),
        given: instance.is_some(),
    };
    let env = |name: &str| std::env::var(name).ok();
    kafka::resolve::routes(tables, models, limits, instance, env)
}

/// A random name, unique among processes. It is drawn once, so that resolving the same settings again, as a
/// test does, gives the same name.
fn at_random() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{:016x}", RandomState::new().build_hasher().finish()))
}

fn models(
    tables: Vec<raw::Model>,
    defaults: &raw::Batching,
    limits: &Limits,
) -> Result<Vec<ModelConfig>, Problem> {
    let mut names = BTreeSet::new();
    let mut models = Vec::with_capacity(tables.len());
    for (i, table) in tables.into_iter().enumerate() {
        let at =
            |key, message: String| problem([Step::Key("model"), Step::Index(i), Step::Key(key)], message);
        let raw::Model {
            name,
            path,
            task,
            max_length,
            check_parity,
            allow_pickle,
            batching: own,
        } = table;
        valid_name("a model", &name).map_err(|message| at("name", message))?;
        if !names.insert(name.clone()) {
            return Err(at(
                "name",
                format!("two models are named `{name}`; a request could not say which"),
            ));
        }
        if path.is_empty() {
            return Err(at(
                "path",
                format!("model `{name}` has an empty path; give a folder or a Hugging Face id"),
            ));
        }
        let batching = batching(&own.over(defaults.clone()), limits).map_err(|(key, message)| {
            // The value may come from the model's own table or from the section that it inherits.
            let own = [
                Step::Key("model"),
                Step::Index(i),
                Step::Key("batching"),
                Step::Key(key),
            ];
            problem(own, format!("model `{name}`: {message}"))
        })?;
        let max_length = max_length.map(NonZeroUsize::get);
        if let (Some(length), Some(tokens)) = (max_length, batching.tokens_max)
            && length > tokens
        {
            return Err(at(
                "max_length",
                format!("a batch of {tokens} tokens cannot hold one text of {length}"),
            ));
        }
        let task = task.map(|task| task.0);
        let check_parity = check_parity.unwrap_or(true);
        models.push(ModelConfig {
            name,
            source: path,
            task,
            max_length,
            batching,
            check_parity,
            allow_pickle: allow_pickle.unwrap_or(false),
        });
    }
    Ok(models)
}

/// Checks a name: names appear in URLs, metric labels, logs and Kafka's ids.
pub(super) fn valid_name(whose: &str, name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let kind = whose.rsplit(' ').next().unwrap_or_default();
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name of {whose} has 1 to {NAME_BYTES_MAX} characters, this one has {}",
            name.len()
        ));
    }
    match name.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!(
            "{kind} name `{name}` holds {c:?}; letters, digits, `-`, `_` and `.` are allowed"
        )),
        None if name.starts_with('.') => Err(format!("{kind} name `{name}` begins with a dot")),
        None => Ok(()),
    }
}

/// The batching of one model; an error names its key.
fn batching(raw: &raw::Batching, limits: &Limits) -> Result<Batching, (&'static str, String)> {
    let time = |given: Option<Time>, default| given.map_or(default, |time| time.0);
    let count = |given: Option<NonZeroUsize>, default| given.map_or(default, NonZeroUsize::get);
    let default = Batching::default();
    let batching = Batching {
        tokens_max: raw.tokens_max.map(NonZeroUsize::get),
        texts_max: count(raw.texts_max, default.texts_max),
        bulk_age_max: time(raw.bulk_age_max, default.bulk_age_max),
        queue_delay_max: time(raw.queue_delay_max, default.queue_delay_max),
        interactive_target: time(raw.interactive_target, default.interactive_target),
        prefetch: raw.prefetch,
        executors: count(raw.executors, default.executors),
    };
    let Batching {
        tokens_max,
        queue_delay_max,
        prefetch,
        executors,
        ..
    } = batching;
    if let Some(tokens_max) = tokens_max.filter(|tokens| *tokens > limits.queue_tokens_max) {
        let queue = limits.queue_tokens_max;
        let message = format!(
            "a batch of {tokens_max} tokens never fills from a queue of {queue} (limits.queue_tokens_max)"
        );
        return Err(("tokens_max", message));
    }
    for (key, value, most) in [
        ("prefetch", prefetch.unwrap_or_default(), PREFETCH_MAX),
        ("executors", executors, EXECUTORS_MAX),
    ] {
        if value > most {
            return Err((key, format!("{key} is {value}; {most} is the most")));
        }
    }
    match raw
        .interactive_target
        .filter(|target| target.0 <= queue_delay_max)
    {
        Some(target) => Err((
            "queue_delay_max",
            format!(
                "waiting {} for more texts leaves nothing of interactive_target = {}",
                Time(queue_delay_max),
                target
            ),
        )),
        None => Ok(batching),
    }
}
