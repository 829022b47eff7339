//! From the `[[kafka]]` tables to routes: defaults and relations. The relations keep a route from losing
//! records, reading its own output, or standing still.

use std::num::NonZeroUsize;
use std::time::Duration;

use penstock_core::Class;

use super::client::{Client, client};
use super::raw::{Honoured, Kafka};
use super::relations::{bounds, known_model, times};
use super::topics::{apart, circle, input, valid_topic};
use super::{Delivery, Honour, KafkaRoute};
use crate::resolve::{Problem, Step, valid_name};
use crate::values::{Size, Time};
use crate::{Limits, ModelConfig};

/// An error of a route: the key, and the reason.
pub(super) type RouteError = (&'static str, String);

/// The name of this process.
#[derive(Clone, Copy)]
pub(crate) struct Instance<'a> {
    pub(crate) name: &'a str,
    /// Whether the name was configured, so that another process may have it as well.
    pub(crate) given: bool,
}

/// The routes, each checked by itself and against the others. `env` reads an environment variable.
pub(crate) fn routes(
    tables: Vec<Kafka>,
    models: &[ModelConfig],
    limits: &Limits,
    instance: Instance<'_>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Vec<KafkaRoute>, Problem> {
    let mut routes: Vec<KafkaRoute> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        let at = |path: Vec<Step>, message| {
            let route = [Step::Key("kafka"), Step::Index(index)];
            let path = route.into_iter().chain(path).collect();
            Problem { path, message }
        };
        let mut table = table;
        let tables = [&mut table.client, &mut table.client_files, &mut table.client_env].map(std::mem::take);
        let [inline, files, environment] = tables;
        let client = client(inline, files, environment, &env).map_err(|(path, message)| at(path, message))?;
        let route = route(table, client, instance)
            .and_then(|route| known_model(&route, models).map(|()| route))
            .and_then(|route| bounds(&route, limits).map(|()| route))
            .and_then(|route| times(&route).map(|()| route))
            .and_then(|route| apart(&route, &routes).map(|()| route))
            .map_err(|(key, message)| at(vec![Step::Key(key)], message))?;
        routes.push(route);
    }
    for index in 0..routes.len() {
        if let Some(way) = circle(index, &routes) {
            let path = vec![Step::Key("kafka"), Step::Index(index), Step::Key("output")];
            let message = format!("the routes {way} pass records round in a circle");
            return Err(Problem { path, message });
        }
    }
    Ok(routes)
}

/// Default bound: with the rest of a record it stays below the megabyte that a topic accepts by default.
const RECORD_BYTES_MAX: usize = 896 << 10;

/// Default commit interval during a backlog.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(500);

fn route(table: Kafka, client: Client, instance: Instance<'_>) -> Result<KafkaRoute, RouteError> {
    valid_name("a route", &table.name).map_err(|message| ("name", message))?;
    let count = |given: Option<NonZeroUsize>, default| given.map_or(default, NonZeroUsize::get);
    let size = |given: Option<Size>, default| given.map_or(default, |size| size.0);
    let time = |given: Option<Time>, default| given.map_or(default, |time| time.0);
    let in_flight_records_max = count(table.in_flight_records_max, 8192);
    let record_bytes_max = size(table.record_bytes_max, RECORD_BYTES_MAX);
    let in_flight_bytes_max = size(table.in_flight_bytes_max, (64 << 20).max(record_bytes_max));
    let commit_interval = time(table.commit_interval, Duration::from_millis(100));
    let honours = |header| table.honour.contains(&header);
    let route = KafkaRoute {
        input: input(table.input, table.input_pattern)?,
        version: version(table.version)?,
        field: table.field,
        delivery: table.delivery.unwrap_or(Delivery::ExactlyOnce),
        class: table.class.map_or(Class::Bulk, |class| class.0),
        consumers: count(table.consumers, 1),
        commit_interval,
        commit_interval_max: time(
            table.commit_interval_max,
            COMMIT_INTERVAL_MAX.max(commit_interval),
        ),
        commit_records_max: count(table.commit_records_max, 10_000),
        in_flight_records_max,
        in_flight_bytes_max,
        partition_in_flight_records_max: count(
            table.partition_in_flight_records_max,
            in_flight_records_max.div_ceil(4),
        ),
        partition_in_flight_bytes_max: size(
            table.partition_in_flight_bytes_max,
            in_flight_bytes_max.div_ceil(4).max(record_bytes_max),
        ),
        record_bytes_max,
        revoke_timeout: time(table.revoke_timeout, Duration::from_millis(1500)),
        transaction_timeout: time(table.transaction_timeout, Duration::from_secs(10)),
        honour: Honour {
            model: honours(Honoured::Model),
            priority: honours(Honoured::Priority),
            deadline: honours(Honoured::Deadline),
        },
        truncate: table.truncate.unwrap_or(true),
        topics_max: count(table.topics_max, 100),
        client: client.values,
        client_sources: client.sources,
        instance: instance.name.to_owned(),
        instance_given: instance.given,
        name: table.name,
        brokers: table.brokers,
        group: table.group,
        output: table.output,
        dead_letter: table.dead_letter,
        model: table.model,
    };
    let needed = [("brokers", &route.brokers), ("group", &route.group)];
    if let Some((key, _)) = needed.into_iter().find(|(_, value)| value.trim().is_empty()) {
        return Err((key, format!("`{key}` of route `{}` is empty", route.name)));
    }
    if route.field.as_deref() == Some("") {
        let message = "an empty field names nothing; leave `field` out where the value itself is the text";
        return Err(("field", message.to_owned()));
    }
    for (key, topic) in [("output", &route.output), ("dead_letter", &route.dead_letter)] {
        valid_topic(topic).map_err(|message| (key, message))?;
    }
    Ok(route)
}

/// `latest` is the newest, as everywhere.
fn version(given: Option<String>) -> Result<String, RouteError> {
    let version = given.unwrap_or_default();
    if version.is_empty() || version == "latest" {
        return Ok(String::new());
    }
    match version.parse::<u64>() {
        Ok(1..) => Ok(version),
        _ => Err((
            "version",
            format!("version `{version}` is no number from 1 on; leave it out for the newest"),
        )),
    }
}
