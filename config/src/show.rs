//! A configuration as TOML: every default is included, and the file gives the same configuration.

use std::fmt::{Display, Write};

use super::sections::{RawBatching, RawLimits, RawServer};
use penstock_engine::settings::ModelConfig;

use super::Config;

impl Config {
    /// The config as TOML. Writing to a `String` cannot fail, so results are dropped.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for (section, settings) in [
            ("server", RawServer::shown(self)),
            ("limits", RawLimits::shown(&self.limits)),
        ] {
            let _ = writeln!(out, "[{section}]\n{}", lines(&settings));
        }
        for model in &self.models {
            let _ = writeln!(out, "[[model]]\n{}", model.settings());
        }
        for route in &self.kafka {
            let _ = writeln!(out, "[[kafka]]\n{}", route.settings());
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// Settings as lines of a table of the file.
trait Shown {
    fn settings(&self) -> String;
}

impl Shown for ModelConfig {
    fn settings(&self) -> String {
        let mut settings = vec![("name", quoted(&self.name)), ("path", quoted(&self.source))];
        settings.extend(self.task.map(|task| ("task", quoted(task.name()))));
        settings.extend(self.max_length.map(|tokens| ("max_length", tokens.to_string())));
        settings.push(("check_parity", self.check_parity.to_string()));
        settings.push(("allow_pickle", self.allow_pickle.to_string()));
        format!(
            "{}\n[model.batching]\n{}",
            lines(&settings),
            lines(&RawBatching::shown(&self.batching))
        )
    }
}

pub(super) fn lines(settings: &[(&str, String)]) -> String {
    settings.iter().fold(String::new(), |mut out, (key, value)| {
        let _ = writeln!(out, "{key} = {value}");
        out
    })
}

pub(super) fn quoted(value: impl Display) -> String {
    toml::Value::String(format!("{value}")).to_string()
}
