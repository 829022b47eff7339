//! Relations between a route's settings: bounds that must contain others, and times that must end before
//! others.

use std::time::Duration;

use super::resolve::RouteError;
use super::{Delivery, KafkaRoute};
use crate::values::{Size, Time};
use crate::{Limits, ModelConfig};

/// Largest value of a record. librdkafka sends at most 10⁹ bytes as one message, and the key and the headers
/// need room too.
const RECORD_BYTES_MAX: usize = 900 << 20;
/// Largest number of consumers of one route.
const CONSUMERS_MAX: usize = 64;
/// The broker's default for `transaction.max.timeout.ms`; the broker refuses a longer timeout.
const TRANSACTION_TIMEOUT_MAX: Duration = Duration::from_mins(15);
const TRANSACTION_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// librdkafka's default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
const MAX_POLL_INTERVAL: Duration = Duration::from_mins(5);

/// Checks that the model is configured.
pub(super) fn known_model(route: &KafkaRoute, models: &[ModelConfig]) -> Result<(), RouteError> {
    if models.iter().any(|model| model.name == route.model) {
        return Ok(());
    }
    let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let message = format!(
        "route `{}` asks for the model `{}`; configured: {known}",
        route.name, route.model
    );
    Err(("model", message))
}

/// Refuses the route's settings with `message`, after the route's name.
fn refuse(
    when: bool,
    route: &KafkaRoute,
    key: &'static str,
    message: impl FnOnce() -> String,
) -> Result<(), RouteError> {
    if when {
        return Err((key, format!("route `{}`: {}", route.name, message())));
    }
    Ok(())
}

/// Bounds that must contain others.
pub(super) fn bounds(route: &KafkaRoute, limits: &Limits) -> Result<(), RouteError> {
    let (whole, partition) = (route.in_flight_records_max, route.partition_in_flight_records_max);
    refuse(
        partition > whole,
        route,
        "partition_in_flight_records_max",
        || {
            format!(
                "{partition} records in flight of one partition are more than the {whole} of all (in_flight_records_max)"
            )
        },
    )?;
    let [record, bytes, of_one, queue, most] = [
        route.record_bytes_max,
        route.in_flight_bytes_max,
        route.partition_in_flight_bytes_max,
        limits.queue_bytes_max,
        RECORD_BYTES_MAX,
    ]
    .map(Size);
    refuse(bytes < record, route, "in_flight_bytes_max", || {
        format!("{bytes} in flight cannot hold one record of {record} (record_bytes_max)")
    })?;
    refuse(of_one < record, route, "partition_in_flight_bytes_max", || {
        format!("{of_one} in flight of one partition cannot hold one record of {record} (record_bytes_max)")
    })?;
    refuse(of_one > bytes, route, "partition_in_flight_bytes_max", || {
        format!("{of_one} in flight of one partition are more than the {bytes} of all (in_flight_bytes_max)")
    })?;
    refuse(record > queue, route, "record_bytes_max", || {
        format!("a record of {record} never fits a queue of {queue} (limits.queue_bytes_max)")
    })?;
    refuse(record > most, route, "record_bytes_max", || {
        format!("a record of {record} is more than Kafka carries; {most} is the most")
    })?;
    let consumers = route.consumers;
    refuse(consumers > CONSUMERS_MAX, route, "consumers", || {
        format!("{consumers} consumers; {CONSUMERS_MAX} is the most in one process")
    })
}

/// Times that must end before others.
pub(super) fn times(route: &KafkaRoute) -> Result<(), RouteError> {
    let [least, commit, revoke] = [
        route.commit_interval,
        route.commit_interval_max,
        route.revoke_timeout,
    ]
    .map(Time);
    refuse(least.0.is_zero(), route, "commit_interval", || {
        "a commit_interval of 0s commits every record by itself; 1ms is the least".to_owned()
    })?;
    refuse(commit < least, route, "commit_interval_max", || {
        format!("commit_interval_max = {commit} is less than commit_interval = {least}")
    })?;
    if route.delivery == Delivery::ExactlyOnce {
        transaction_times(route)?;
    }
    let poll = Time(property(route, "max.poll.interval.ms", MAX_POLL_INTERVAL));
    refuse(commit.0 + revoke.0 >= poll.0, route, "revoke_timeout", || {
        format!(
            "revoke_timeout = {revoke} and commit_interval_max = {commit} leave nothing of the max.poll.interval.ms of \
             {poll}"
        )
    })
}

/// Times that must end before the transaction's timeout, and the transaction's own limit.
fn transaction_times(route: &KafkaRoute) -> Result<(), RouteError> {
    let [commit, longest, revoke, transaction, least, most] = [
        route.commit_interval,
        route.commit_interval_max,
        route.revoke_timeout,
        route.transaction_timeout,
        TRANSACTION_TIMEOUT_MIN,
        TRANSACTION_TIMEOUT_MAX,
    ]
    .map(Time);
    let taken = (least..=most).contains(&transaction);
    refuse(!taken, route, "transaction_timeout", || {
        format!("transaction_timeout is {transaction}; {least} to {most} is what brokers take")
    })?;
    let session = Time(property(route, "session.timeout.ms", SESSION_TIMEOUT));
    refuse(transaction > session, route, "transaction_timeout", || {
        format!(
            "transaction_timeout = {transaction} outlasts the session.timeout.ms of {session}: the next owner of a \
             partition would wait for it"
        )
    })?;
    refuse(commit >= transaction, route, "commit_interval", || {
        format!("commit_interval = {commit} leaves nothing of transaction_timeout = {transaction}")
    })?;
    refuse(longest >= transaction, route, "commit_interval_max", || {
        format!("commit_interval_max = {longest} leaves nothing of transaction_timeout = {transaction}")
    })?;
    refuse(revoke >= transaction, route, "revoke_timeout", || {
        format!("revoke_timeout = {revoke} leaves nothing of transaction_timeout = {transaction}")
    })
}

/// A time of the client in milliseconds. librdkafka itself refuses a value that is no number.
fn property(route: &KafkaRoute, name: &str, default: Duration) -> Duration {
    let given = route.client.get(name);
    let given = given.and_then(|value| value.expose().trim().parse().ok());
    given.map_or(default, Duration::from_millis)
}
