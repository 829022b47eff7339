//! Whether clients may load and unload models.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Loading and unloading of models by requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ModelControl {
    /// Refused: the models are those of the configuration.
    #[default]
    Off,
    /// Every client may load and unload the configured models.
    On,
}

impl FromStr for ModelControl {
    type Err = String;

    fn from_str(s: &str) -> Result<ModelControl, String> {
        match s {
            "off" => Ok(ModelControl::Off),
            "on" => Ok(ModelControl::On),
            _ => Err(format!("unknown model control `{s}`; known are off and on")),
        }
    }
}

impl fmt::Display for ModelControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ModelControl::Off => "off",
            ModelControl::On => "on",
        })
    }
}

impl TryFrom<String> for ModelControl {
    type Error = String;

    fn try_from(s: String) -> Result<ModelControl, String> {
        s.parse()
    }
}
