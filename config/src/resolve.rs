//! From raw settings to the checked configuration: defaults, relations, and the abilities of this build.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use super::kafka::raw::Kafka;
use super::kafka::{self, KafkaRoute};
use super::raw::{self, Settings};
use super::sections::RawBatching;
use super::values::Time;
use super::{Config, Limits, ModelConfig};
use penstock_engine::placement::choice::DeviceChoice;
use penstock_engine::placement::{self, DeviceError};
use penstock_engine::settings::Batching;
use penstock_telemetry::logging;

const NAME_BYTES_MAX: usize = 128;
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
    let limits = limits
        .resolve(cpus)
        .map_err(|(key, message)| setting("limits", key, message))?;
    let models = models(model, &batching, &limits)?;
    let kafka = kafka_routes(kafka, &models, &limits, server.instance.as_deref())?;
    let config = server
        .resolve(cpus, limits, models, kafka)
        .map_err(|(key, message)| setting("server", key, message))?;
    compute(&config)?;
    addresses(&config)?;
    logging::check(&config.log).map_err(|message| setting("server", "log", message))?;
    Ok(config)
}

/// Compares number format and device. This machine is probed later; a format that the named device never
/// supports is refused here.
fn compute(config: &Config) -> Result<(), Problem> {
    let computes = match config.device {
        DeviceChoice::Auto => Ok(()),
        DeviceChoice::Cpu => placement::on_cpu(config.dtype).map(drop),
        DeviceChoice::Cuda(_) => placement::on_cuda(config.dtype).map(drop),
    };
    match computes {
        Ok(()) | Err(DeviceError::Instructions(_)) => Ok(()),
        Err(refused) => Err(setting("server", "dtype", refused.to_string())),
    }
}

fn addresses(config: &Config) -> Result<(), Problem> {
    let named = [
        ("grpc_addr", config.grpc_addr),
        ("http_addr", config.http_addr),
        ("metrics_addr", config.metrics_addr),
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
    Ok(())
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
    defaults: &RawBatching,
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
fn batching(raw: &RawBatching, limits: &Limits) -> Result<Batching, (&'static str, String)> {
    let batching = raw.clone().resolve(0)?;
    let queue_delay_max = batching.queue_delay_max;
    if let Some(tokens_max) = batching
        .tokens_max
        .filter(|tokens| *tokens > limits.queue_tokens_max)
    {
        let queue = limits.queue_tokens_max;
        let message = format!(
            "a batch of {tokens_max} tokens never fills from a queue of {queue} (limits.queue_tokens_max)"
        );
        return Err(("tokens_max", message));
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
