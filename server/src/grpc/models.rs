//! Answers about models, and loading and unloading.

use penstock_core::Rejection;
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

use crate::v2::description::{self, Configuration, Datatype, SERVER_NAME, TensorInfo};
use penstock_engine::repository::Repository;
use penstock_engine::served_model::ServedModel;
use penstock_telemetry::metrics::{Statistics, Tally};

/// The tensors of a model.
pub fn metadata(
    repository: &Repository,
    name: &str,
    version: &str,
) -> Result<ModelMetadataResponse, Rejection> {
    let served = repository.find(name, version)?;
    let tensors = |tensors: Vec<TensorInfo>| {
        let tensor = |tensor: TensorInfo| TensorMetadata {
            name: tensor.name.to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape,
        };
        tensors.into_iter().map(tensor).collect()
    };
    Ok(ModelMetadataResponse {
        name: served.name.clone(),
        versions: repository.versions(name)?,
        platform: SERVER_NAME.to_owned(),
        inputs: tensors(description::inputs()),
        outputs: tensors(description::outputs(&served.spec)),
    })
}

/// A model's configuration.
pub fn config(repository: &Repository, name: &str, version: &str) -> Result<ModelConfigResponse, Rejection> {
    let served = repository.find(name, version)?;
    let Configuration {
        queue_delay_us,
        parameters,
    } = description::configuration(&served);
    let batching = ModelDynamicBatching {
        max_queue_delay_microseconds: queue_delay_us,
        priority_levels: description::PRIORITY_LEVELS,
        default_priority_level: description::PRIORITY_DEFAULT,
        ..ModelDynamicBatching::default()
    };
    let input = |tensor: TensorInfo| ModelInput {
        name: tensor.name.to_owned(),
        data_type: data_type(tensor.datatype),
        dims: tensor.shape,
        optional: false,
    };
    let output = |tensor: TensorInfo| ModelOutput {
        name: tensor.name.to_owned(),
        data_type: data_type(tensor.datatype),
        dims: tensor.shape,
    };
    let parameters = parameters
        .into_iter()
        .map(|(name, string_value)| (name.to_owned(), ModelParameter { string_value }));
    let config = ModelConfig {
        name: served.name.clone(),
        backend: SERVER_NAME.to_owned(),
        max_batch_size: 0,
        input: description::inputs().into_iter().map(input).collect(),
        output: description::outputs(&served.spec)
            .into_iter()
            .map(output)
            .collect(),
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(batching)),
        parameters: parameters.collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        ..ModelConfig::default()
    };
    Ok(ModelConfigResponse { config: Some(config) })
}

fn data_type(datatype: Datatype) -> i32 {
    match datatype {
        Datatype::Bytes => DataType::TypeString.into(),
        Datatype::Fp32 => DataType::TypeFp32.into(),
    }
}

/// Statistics of one version, of a model's serving versions, or of all serving versions.
pub fn statistics(
    repository: &Repository,
    name: &str,
    version: &str,
) -> Result<ModelStatisticsResponse, Rejection> {
    let served = description::versions(repository, name, version)?;
    Ok(ModelStatisticsResponse {
        model_stats: served.iter().map(|served| model_statistics(served)).collect(),
    })
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
    let models = description::index(repository, request.ready).map(|entry| ModelIndex {
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
    description::check_load(request.parameters.keys())?;
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
    description::check_unload(request.parameters.keys())?;
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
