//! `penstock serve`: settings, log, then the app until it has drained.

use std::process::ExitCode;

use tracing::info;

use super::{Failure, start_logging};
use crate::cli::ServeArgs;
use penstock_config::{self as config, ConfigError};
use penstock_engine::placement;

use crate::app;

pub(super) fn serve(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = config::load(args.config.as_deref(), args.settings)?;
    if config.models.is_empty() {
        return Err(ConfigError::no_model().into());
    }
    start_logging(&config)?;
    let placement = placement::place(&config.device, config.dtype, penstock_models::probe)?;
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        device = %placement.compute,
        dtype = placement.compute.dtype(),
        instructions = placement.compute.instructions(),
        reason = placement.reason,
        threads = config.threads,
        ?models,
        "starting"
    );
    app::serve(config, &placement).map_err(Failure::Serve)?;
    Ok(ExitCode::SUCCESS)
}
