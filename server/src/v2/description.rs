//! Facts about the server and its models that the v2 protocol reports: metadata, configuration, statistics and the
//! repository. Each wire renders them in its own form.

use std::sync::Arc;

use penstock_core::Rejection;
use penstock_engine::repository::{IndexEntry, ModelState, Repository};
use penstock_engine::served_model::ServedModel;
use penstock_models::{Form, ModelSpec, Output};

/// Name of the server in its metadata.
pub const SERVER_NAME: &str = "penstock";

/// Protocol extensions that the server supports on gRPC and HTTP.
pub const EXTENSIONS: [&str; 6] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// The input of every text model.
pub const TEXT: &str = "text";

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// Strings.
    Bytes,
    /// Numbers.
    Fp32,
}

impl Datatype {
    /// The name in metadata and requests.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bytes => "BYTES",
            Datatype::Fp32 => "FP32",
        }
    }
}

/// A tensor of a model.
pub struct TensorInfo {
    /// Its name.
    pub name: &'static str,
    /// Its element type.
    pub datatype: Datatype,
    /// Its shape; -1 is the number of texts.
    pub shape: Vec<i64>,
}

/// The input tensors of a model.
pub fn inputs() -> Vec<TensorInfo> {
    vec![TensorInfo {
        name: TEXT,
        datatype: Datatype::Bytes,
        shape: vec![-1],
    }]
}

/// The output tensors of a model.
pub fn outputs(spec: &ModelSpec) -> Vec<TensorInfo> {
    let tensor = |output: &Output| TensorInfo {
        name: output.name,
        datatype: match output.form {
            Form::Text => Datatype::Bytes,
            Form::Number | Form::PerLabel | Form::Vector => Datatype::Fp32,
        },
        shape: match output.form {
            Form::Text | Form::Number => vec![-1],
            Form::PerLabel => vec![-1, spec.labels.len() as i64],
            Form::Vector => vec![-1, spec.hidden as i64],
        },
    };
    spec.task.outputs().iter().map(tensor).collect()
}

/// A model's configuration. `max_batch_size` is 0 on both wires: tensors carry the number of texts, because batches
/// are formed of tokens across requests.
pub struct Configuration {
    /// Longest wait for further texts, in microseconds.
    pub queue_delay_us: u64,
    /// Facts without a field of their own. Empty ones are absent.
    pub parameters: Vec<(&'static str, String)>,
}

/// Priority levels of the parameter `priority`: interactive and bulk.
pub const PRIORITY_LEVELS: u64 = 2;
/// The level of a request that names none: interactive.
pub const PRIORITY_DEFAULT: u64 = 1;

/// The configuration of a model.
pub fn configuration(served: &ServedModel) -> Configuration {
    let ModelSpec {
        family,
        task,
        labels,
        hidden,
        max_length,
        ..
    } = served.spec.as_ref();
    let parameters = vec![
        ("family", family.name().to_owned()),
        ("task", task.name().to_owned()),
        ("hidden", hidden.to_string()),
        ("max_length", max_length.to_string()),
        ("batch_tokens_max", served.policy.tokens_max().to_string()),
        ("labels", labels.join(",")),
    ];
    Configuration {
        queue_delay_us: u64::try_from(served.policy.queue_delay_max().as_micros()).unwrap_or(u64::MAX),
        parameters: parameters
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    }
}

/// The versions whose statistics are asked for: one, a model's serving ones, or all serving ones.
pub fn versions(
    repository: &Repository,
    name: &str,
    version: &str,
) -> Result<Vec<Arc<ServedModel>>, Rejection> {
    // A version that leaves in between is omitted.
    let find = |name: &str, version: &str| repository.find(name, version).ok();
    match (name, version) {
        ("", _) => {
            let ready = index(repository, true);
            Ok(ready
                .filter_map(|entry| find(&entry.name, &entry.version))
                .collect())
        }
        (_, "") => {
            let versions = repository.versions(name)?;
            Ok(versions
                .iter()
                .filter_map(|version| find(name, version))
                .collect())
        }
        _ => Ok(vec![repository.find(name, version)?]),
    }
}

/// Every version of every model, or the serving ones alone.
pub fn index(repository: &Repository, ready: bool) -> impl Iterator<Item = IndexEntry> {
    let entries = repository.index().into_iter();
    entries.filter(move |entry| !ready || entry.state == ModelState::Ready)
}

/// Checks the parameters of a load. A client must not make the server read files that the operator did not configure.
pub fn check_load<'a>(parameters: impl IntoIterator<Item = &'a String>) -> Result<(), Rejection> {
    match parameters.into_iter().next() {
        None => Ok(()),
        Some(name) => Err(Rejection::Invalid(format!(
            "load parameter {name:?} is not supported: a model is loaded as the server's configuration says"
        ))),
    }
}

/// Checks the parameters of an unload. No model depends on another one, so the known flag needs no action.
pub fn check_unload<'a>(parameters: impl IntoIterator<Item = &'a String>) -> Result<(), Rejection> {
    match parameters.into_iter().find(|name| *name != "unload_dependents") {
        None => Ok(()),
        Some(name) => Err(Rejection::Invalid(format!(
            "unknown unload parameter {name:?}; known is unload_dependents"
        ))),
    }
}
