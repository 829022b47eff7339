//! `penstock check`: the resolved configuration, without starting anything.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use penstock_models::{LoadOptions, ModelError};

use super::{Failure, print, summary};
use crate::cli::CheckArgs;
use penstock_config::{self as config, ConfigError, Settings};
use penstock_connectors::kafka;
use penstock_engine::settings::ModelConfig;

pub(super) fn check(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let config = config::load(Some(&args.file), Settings::default())?;
    let mut out = format!(
        "# {}: what it would run, with every default\n",
        args.file.display()
    );
    for (index, model) in config.models.iter().enumerate() {
        let found =
            look(model).map_err(|e| ConfigError::at_model(&args.file, index, "path", e.to_string()))?;
        // Writing to a `String` cannot fail.
        let _ = found
            .iter()
            .try_for_each(|line| writeln!(out, "# {}: {line}", model.name));
    }
    for (index, route) in config.kafka.iter().enumerate() {
        kafka::check(route).map_err(|e| ConfigError::at_kafka(&args.file, index, "client", e))?;
    }
    if config.models.is_empty() {
        out.push_str("# no model: add a [[model]] table, or name one with --model\n");
    }
    out.push('\n');
    out.push_str(&config.to_toml());
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// One line per version, without loading weights and without the network.
fn look(model: &ModelConfig) -> Result<Vec<String>, ModelError> {
    let folder = Path::new(&model.source);
    if !folder.is_dir() {
        // Only a path that cannot be an id is an error here; the hub decides whether an id exists.
        let looks_like_path = model.source.starts_with(['/', '.', '~']);
        if looks_like_path || !model.source.contains('/') {
            return Err(ModelError::NotFound {
                reference: model.source.clone(),
            });
        }
        return Ok(vec![format!(
            "the Hugging Face model {}, fetched when it is served",
            model.source
        )]);
    }
    let options = LoadOptions {
        task: model.task,
        max_length: model.max_length,
        allow_pickle: model.allow_pickle,
        ..LoadOptions::default()
    };
    let versions = penstock_models::versions(folder);
    if versions.is_empty() {
        return Ok(vec![summary(&penstock_models::inspect(folder, &options)?)]);
    }
    let line = |(version, folder): (u64, PathBuf)| {
        Ok(format!(
            "version {version}: {}",
            summary(&penstock_models::inspect(&folder, &options)?)
        ))
    };
    versions.into_iter().map(line).collect()
}
