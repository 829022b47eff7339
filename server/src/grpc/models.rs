//! Answers about models, and loading and unloading.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_core::Rejection;
use penstock_models::ModelSpec;
use penstock_proto::inference::model_config::SchedulingChoice;
use penstock_proto::inference::model_metadata_response::TensorMetadata;
use penstock_proto::inference::repository_index_response::ModelIndex;
use penstock_proto::inference::{
    DataType, InferStatistics, ModelConfig, ModelConfigResponse, ModelDynamicBatching, ModelInput,
    ModelMetadataResponse, ModelOutput, ModelParameter, ModelStatistics, ModelStatisticsResponse,
    ModelTransactionPolicy, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
    StatisticDuration,
};

use crate::v2::response::{Output, SERVER_NAME, TEXT};
use penstock_engine::repository::{ModelState, Repository};
use penstock_engine::served_model::ServedModel;
use penstock_telemetry::metrics::{Statistics, Tally};

/// The tensors of a model.
pub fn metadata(
    repository: &Repository,
    name: &str,
    version: &str,
) -> Result<ModelMetadataResponse, Rejection> {
    let served = repository.find(name, version)?;
    let output = |output: &Output| TensorMetadata {
        name: output.name().to_owned(),
        datatype: output.datatype().to_owned(),
        shape: output.shape(&served.spec),
    };
    Ok(ModelMetadataResponse {
        name: served.name.clone(),
        versions: repository.versions(name)?,
        platform: SERVER_NAME.to_owned(),
        inputs: vec![TensorMetadata {
            name: TEXT.to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![-1],
        }],
        outputs: Output::of(served.spec.task).iter().map(output).collect(),
    })
}

/// A model's configuration. `max_batch_size` is 0: tensors carry the number of texts, because batches are
/// formed of tokens across requests.
pub fn config(repository: &Repository, name: &str, version: &str) -> Result<ModelConfigResponse, Rejection> {
    let served = repository.find(name, version)?;
    let output = |output: &Output| ModelOutput {
        name: output.name().to_owned(),
        data_type: match output.datatype() {
            "BYTES" => DataType::TypeString.into(),
            _ => DataType::TypeFp32.into(),
        },
        dims: output.shape(&served.spec),
    };
    let delay = u64::try_from(served.policy.queue_delay_max().as_micros()).unwrap_or(u64::MAX);
    let batching = ModelDynamicBatching {
        max_queue_delay_microseconds: delay,
        // Interactive and bulk, in the numbers of the parameter `priority`.
        priority_levels: 2,
        default_priority_level: 1,
        ..ModelDynamicBatching::default()
    };
    let config = ModelConfig {
        name: served.name.clone(),
        backend: SERVER_NAME.to_owned(),
        max_batch_size: 0,
        input: vec![ModelInput {
            name: TEXT.to_owned(),
            data_type: DataType::TypeString.into(),
            dims: vec![-1],
            optional: false,
        }],
        output: Output::of(served.spec.task).iter().map(output).collect(),
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(batching)),
        parameters: parameters(&served),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        ..ModelConfig::default()
    };
    Ok(ModelConfigResponse { config: Some(config) })
}

fn parameters(served: &ServedModel) -> HashMap<String, ModelParameter> {
    let ModelSpec {
        family,
        task,
        labels,
        hidden,
        max_length,
        ..
    } = served.spec.as_ref();
    let facts = [
        ("family", family.name().to_owned()),
        ("task", task.name().to_owned()),
        ("labels", labels.join(",")),
        ("hidden", hidden.to_string()),
        ("max_length", max_length.to_string()),
        ("batch_tokens_max", served.policy.tokens_max().to_string()),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    facts
        .map(|(name, string_value)| (name.to_owned(), ModelParameter { string_value }))
        .collect()
}

/// Statistics of one version, of a model's serving versions, or of all serving versions.
pub fn statistics(
    repository: &Repository,
    name: &str,
    version: &str,
) -> Result<ModelStatisticsResponse, Rejection> {
    let served = match (name, version) {
        ("", _) => serving(repository),
        (_, "") => {
            let versions = repository.versions(name)?;
            versions
                .iter()
                .filter_map(|version| repository.find(name, version).ok())
                .collect()
        }
        _ => vec![repository.find(name, version)?],
    };
    Ok(ModelStatisticsResponse {
        model_stats: served.iter().map(|served| model_statistics(served)).collect(),
    })
}

fn serving(repository: &Repository) -> Vec<Arc<ServedModel>> {
    let index = repository
        .index()
        .into_iter()
        .filter(|entry| entry.state == ModelState::Ready);
    // A version that leaves in between is omitted.
    index
        .filter_map(|entry| repository.find(&entry.name, &entry.version).ok())
        .collect()
}

fn model_statistics(served: &ServedModel) -> ModelStatistics {
    let Statistics {
        inference_count,
        execution_count,
        last_inference_ms,
        success,
        fail,
        queue,
        compute_input,
        compute_infer,
        compute_output,
    } = served.metrics.statistics();
    ModelStatistics {
        name: served.name.clone(),
        version: served.version.clone(),
        last_inference: last_inference_ms,
        inference_count,
        execution_count,
        inference_stats: Some(InferStatistics {
            success: Some(duration(success)),
            fail: Some(duration(fail)),
            queue: Some(duration(queue)),
            compute_input: Some(duration(compute_input)),
            compute_infer: Some(duration(compute_infer)),
            compute_output: Some(duration(compute_output)),
            cache_hit: Some(duration(Tally::default())),
            cache_miss: Some(duration(Tally::default())),
        }),
        ..ModelStatistics::default()
    }
}

fn duration(tally: Tally) -> StatisticDuration {
    StatisticDuration {
        count: tally.count,
        ns: tally.ns,
    }
}

/// Every version with its state.
pub fn index(
    repository: &Repository,
    request: &RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, Rejection> {
    only_repository(&request.repository_name)?;
    let entries = repository.index().into_iter();
    let entries = entries.filter(|entry| !request.ready || entry.state == ModelState::Ready);
    let models = entries.map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.name().to_owned(),
        reason: entry.reason,
    });
    Ok(RepositoryIndexResponse {
        models: models.collect(),
    })
}

/// Loads or reloads a configured model.
pub async fn load(
    repository: &Repository,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse, Rejection> {
    only_repository(&request.repository_name)?;
    // A client must not make the server read files that the operator did not configure.
    if let Some(name) = request.parameters.keys().next() {
        return Err(Rejection::Invalid(format!(
            "load parameter \"{name}\" is not supported: a model is loaded as the server's configuration says"
        )));
    }
    repository
        .load(&request.model_name)
        .await
        .map(|()| RepositoryModelLoadResponse {})
}

/// Takes a model out of service.
pub async fn unload(
    repository: &Repository,
    request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse, Rejection> {
    only_repository(&request.repository_name)?;
    // No model depends on another one, so this flag needs no action.
    if let Some(name) = request
        .parameters
        .keys()
        .find(|name| *name != "unload_dependents")
    {
        return Err(Rejection::Invalid(format!(
            "unknown unload parameter \"{name}\"; known is unload_dependents"
        )));
    }
    repository
        .unload(&request.model_name)
        .await
        .map(|()| RepositoryModelUnloadResponse {})
}

fn only_repository(name: &str) -> Result<(), Rejection> {
    if name.is_empty() {
        return Ok(());
    }
    Err(Rejection::Invalid(format!(
        "repository_name is {name:?}, but there is one repository; leave it empty"
    )))
}
