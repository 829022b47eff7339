//! The module that makes one vector of a text's tokens.

use std::path::Path;

use penstock_kernels::Pooling;
use serde_json::Value;

use crate::ModelError;
use crate::files::read_object;

pub(super) struct PoolingModule {
    pub mode: Pooling,
    /// False where the tokens of a prompt take no part.
    pub with_prompt: bool,
}

impl PoolingModule {
    /// Reads `file`, where it exists. Newer releases name the mode, older ones have a switch for each.
    pub fn read(file: &Path) -> Result<Option<PoolingModule>, ModelError> {
        let Some(config) = read_object(file)? else {
            return Ok(None);
        };
        let modes: Vec<String> = match config.get("pooling_mode") {
            Some(Value::String(mode)) => vec![mode.clone()],
            Some(Value::Array(modes)) => modes
                .iter()
                .map(|mode| mode.as_str().map_or_else(|| mode.to_string(), str::to_owned))
                .collect(),
            _ => config
                .iter()
                .filter(|(_, on)| **on == Value::Bool(true))
                .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
                .map(|mode| {
                    mode.trim_end_matches("_tokens")
                        .trim_end_matches("_token")
                        .to_owned()
                })
                .collect(),
        };
        let mode = match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["cls"] => Pooling::Cls,
            ["mean"] | [] => Pooling::Mean,
            _ => {
                return Err(ModelError::unsupported(
                    file,
                    "pooling mode",
                    modes.join(" + "),
                    "cls, mean",
                ));
            }
        };
        let with_prompt = match config.get("include_prompt") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(with)) => *with,
            Some(other) => {
                return Err(ModelError::unsupported(
                    file,
                    "include_prompt",
                    other,
                    "true, false",
                ));
            }
        };
        Ok(Some(PoolingModule { mode, with_prompt }))
    }
}
