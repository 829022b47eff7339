//! The server with models that answer at once, to measure the cost of everything else. Takes the server's
//! command line: `instant serve --config FILE`.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use penstock::app;
use penstock::cli::{Cli, Command};
use penstock_config as config;
use penstock_core::{PackedTokens, Reply};
use penstock_engine::placement;
use penstock_models::{Model, ModelError};
use penstock_telemetry::logging;

/// Runs its model on the first batch only, and then repeats that batch's first reply for every text.
struct Instantly {
    model: Box<dyn Model>,
    reply: Option<Reply>,
}

impl Model for Instantly {
    fn forward(&mut self, batch: &PackedTokens) -> Result<Vec<Reply>, ModelError> {
        if let Some(reply) = &self.reply {
            return Ok(vec![reply.clone(); batch.sequences()]);
        }
        let replies = self.model.forward(batch)?;
        self.reply = replies.first().cloned();
        Ok(replies)
    }

    fn window(&self) -> usize {
        self.model.window()
    }
}

fn main() -> Result<()> {
    let Command::Serve(args) = Cli::parse().command else {
        bail!("it only serves: instant serve --config FILE");
    };
    let config = config::load(args.config.as_deref(), args.settings)?;
    logging::init(&config.log, config.log_format)?;
    let placement = placement::place(&config.device, config.dtype, penstock_models::probe)?;
    let wrap = Arc::new(|model| Box::new(Instantly { model, reply: None }) as Box<dyn Model>);
    app::serve_with(config, &placement, Some(wrap))?;
    Ok(())
}
