//! A configuration as TOML: every default is included, and the file gives the same configuration.

use std::fmt::{Display, Write};

use super::values::{Size, Time};
use penstock_engine::settings::{Batching, Limits, ModelConfig};

use super::Config;

impl Config {
    /// The config as TOML. Writing to a `String` cannot fail, so results are dropped.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for (section, settings) in [("server", self.server()), ("limits", self.limits.settings())] {
            let _ = writeln!(out, "[{section}]\n{settings}");
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

    fn server(&self) -> String {
        let mut settings = vec![
            ("grpc_addr", quoted(self.grpc_addr)),
            ("http_addr", quoted(self.http_addr)),
            ("metrics_addr", quoted(self.metrics_addr)),
            ("device", quoted(&self.device)),
            ("dtype", quoted(self.dtype)),
            ("cuda_graphs", self.cuda_graphs.to_string()),
            ("threads", self.threads.to_string()),
            ("pin_threads", self.pin_threads.to_string()),
            ("tokenizer_threads", self.tokenizer_threads.to_string()),
            ("io_threads", self.io_threads.to_string()),
            ("drain_timeout", quoted(Time(self.drain_timeout))),
            ("model_control", quoted(self.model_control)),
            ("log", quoted(&self.log)),
            ("log_format", quoted(self.log_format)),
        ];
        settings.extend(self.instance.as_ref().map(|name| ("instance", quoted(name))));
        lines(&settings)
    }
}

/// Settings as lines of a table of the file.
trait Shown {
    fn settings(&self) -> String;
}

impl Shown for Limits {
    fn settings(&self) -> String {
        let mut settings = vec![
            ("max_request_texts", self.max_request_texts.to_string()),
            ("max_request_bytes", quoted(Size(self.max_request_bytes))),
            ("stream_in_flight_max", self.stream_in_flight_max.to_string()),
            ("queue_texts_max", self.queue_texts_max.to_string()),
            ("queue_tokens_max", self.queue_tokens_max.to_string()),
            ("queue_bytes_max", quoted(Size(self.queue_bytes_max))),
            ("connections_max", self.connections_max.to_string()),
            ("streams_max", self.streams_max.to_string()),
        ];
        let each = self.connections_per_address_max;
        settings.extend(each.map(|each| ("connections_per_address_max", each.to_string())));
        lines(&settings)
    }
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
            self.batching.settings()
        )
    }
}

impl Shown for Batching {
    fn settings(&self) -> String {
        let mut settings: Vec<(&str, String)> = Vec::new();
        settings.extend(self.tokens_max.map(|tokens| ("tokens_max", tokens.to_string())));
        settings.extend([
            ("texts_max", self.texts_max.to_string()),
            ("bulk_age_max", quoted(Time(self.bulk_age_max))),
            ("queue_delay_max", quoted(Time(self.queue_delay_max))),
            ("interactive_target", quoted(Time(self.interactive_target))),
        ]);
        settings.extend(self.prefetch.map(|batches| ("prefetch", batches.to_string())));
        settings.push(("executors", self.executors.to_string()));
        lines(&settings)
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
