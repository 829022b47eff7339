//! A route as TOML, without its secrets.

use std::fmt::Write;

use super::client::is_secret;
use super::raw::Honoured;
use super::{ClientSource, Honour, KafkaInput, KafkaRoute};
use crate::show::{lines, quoted};
use crate::values::{Size, Time};

/// Placeholder for a hidden value.
const HIDDEN: &str = "***";

impl KafkaRoute {
    /// The settings of its `[[kafka]]` table and the tables under it. A secret that stands in the file shows
    /// as `***`; all other settings give the same route again.
    pub(crate) fn settings(&self) -> String {
        let mut out = lines(&self.route());
        out.push_str(&lines(&self.bounds()));
        self.tables(&mut out);
        out
    }

    fn route(&self) -> Vec<(&'static str, String)> {
        let input = match &self.input {
            KafkaInput::Topics(topics) => ("input", list(topics.iter().map(String::as_str))),
            KafkaInput::Pattern(pattern) => ("input_pattern", quoted(pattern)),
        };
        let mut settings = vec![
            ("name", quoted(&self.name)),
            ("brokers", quoted(&self.brokers)),
            ("group", quoted(&self.group)),
            input,
            ("output", quoted(&self.output)),
            ("dead_letter", quoted(&self.dead_letter)),
            ("model", quoted(&self.model)),
            ("version", quoted(&self.version)),
        ];
        settings.extend(self.field.as_ref().map(|field| ("field", quoted(field))));
        settings.extend([
            ("delivery", quoted(self.delivery.name())),
            ("class", quoted(self.class.name())),
            ("honour", self.honour.list()),
            ("truncate", self.truncate.to_string()),
        ]);
        settings
    }

    fn bounds(&self) -> Vec<(&'static str, String)> {
        vec![
            ("consumers", self.consumers.to_string()),
            ("commit_interval", quoted(Time(self.commit_interval))),
            ("commit_interval_max", quoted(Time(self.commit_interval_max))),
            ("commit_records_max", self.commit_records_max.to_string()),
            ("in_flight_records_max", self.in_flight_records_max.to_string()),
            ("in_flight_bytes_max", quoted(Size(self.in_flight_bytes_max))),
            (
                "partition_in_flight_records_max",
                self.partition_in_flight_records_max.to_string(),
            ),
            (
                "partition_in_flight_bytes_max",
                quoted(Size(self.partition_in_flight_bytes_max)),
            ),
            ("record_bytes_max", quoted(Size(self.record_bytes_max))),
            ("revoke_timeout", quoted(Time(self.revoke_timeout))),
            ("transaction_timeout", quoted(Time(self.transaction_timeout))),
            ("topics_max", self.topics_max.to_string()),
        ]
    }

    /// Writing to a `String` cannot fail, so results are dropped.
    fn tables(&self, out: &mut String) {
        let (mut inline, mut files, mut environment) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in &self.client {
            match self.client_sources.get(name) {
                Some(ClientSource::File(path)) => files.push((name, path.as_str())),
                Some(ClientSource::Environment(variable)) => environment.push((name, variable.as_str())),
                None if is_secret(name) => inline.push((name, HIDDEN)),
                None => inline.push((name, value.expose().as_str())),
            }
        }
        let tables = [
            ("client", inline),
            ("client_files", files),
            ("client_env", environment),
        ];
        for (table, properties) in tables
            .into_iter()
            .filter(|(_, properties)| !properties.is_empty())
        {
            let _ = writeln!(out, "\n[kafka.{table}]");
            for (name, value) in properties {
                let _ = writeln!(out, "{} = {}", quoted(name), quoted(value));
            }
        }
    }
}

impl Honour {
    fn list(self) -> String {
        let honoured = Honoured::ALL.into_iter().filter(|header| match header {
            Honoured::Model => self.model,
            Honoured::Priority => self.priority,
            Honoured::Deadline => self.deadline,
        });
        list(honoured.map(Honoured::name))
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
}
