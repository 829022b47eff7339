//! Tests of Kafka metrics: counters add up over consumers, and gauges leave with their consumer.

use super::super::tests::{MS, read};
use std::sync::Arc;

use super::super::{Drain, Metrics, ResetReason, TopicMetrics};
use super::*;
use crate::clock::Clock;

/// Metrics of a route whose consumer has been dropped.
pub(in crate::metrics) fn some_stream(metrics: &Metrics) {
    let route = metrics.kafka("reviews");
    route.assigned();
    route.committed(20 * MS);
    route.acknowledged(&[now_ms() - 500, now_ms() - 500, now_ms() + 60_000]);
    // Each consumer's part of a gauge lasts until the consumer is dropped.
    route.inside(9, 900, 2);
    drop((
        route,
        metrics.unready("reviews"),
        metrics.topic("reviews", None).lag(0),
    ));
    drop(Drain::new(metrics.topic("reviews", None)));
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap().as_millis() as i64
}

#[test]
fn a_stream_is_told_by_route_topic_and_partition() {
    let metrics = Metrics::new(Clock::start());
    let topic = metrics.topic("reviews", None);
    let mut left = Left {
        scored: 7,
        tombstones: 2,
        bytes_read: 90,
        bytes_written: 70,
        ..Left::default()
    };
    left.dead[DeadReason::NotJson as usize] = 3;
    assert_eq!(left.records(), 12);
    topic.committed(&left);
    topic.reset(ResetReason::Remade);
    let read = read(&metrics);
    let near = |series: &str, value: f64| read.near(series, value);
    near(
        r#"penstock_kafka_records_total{topic="reviews",outcome="scored"}"#,
        7.0,
    );
    near(
        r#"penstock_kafka_records_total{topic="reviews",outcome="tombstone"}"#,
        2.0,
    );
    near(
        r#"penstock_kafka_records_total{topic="reviews",outcome="dead_letter"}"#,
        3.0,
    );
    near(
        r#"penstock_dead_letters_total{topic="reviews",reason="not_json"}"#,
        3.0,
    );
    near(
        r#"penstock_dead_letters_total{topic="reviews",reason="model"}"#,
        0.0,
    );
    near(
        r#"penstock_kafka_position_resets_total{topic="reviews",reason="topic_remade"}"#,
        1.0,
    );
    near(
        r#"penstock_kafka_position_resets_total{topic="reviews",reason="log_went_back"}"#,
        0.0,
    );
    near(
        r#"penstock_kafka_bytes_total{topic="reviews",direction="read"}"#,
        90.0,
    );
    near(
        r#"penstock_kafka_bytes_total{topic="reviews",direction="written"}"#,
        70.0,
    );
}

#[test]
fn the_lag_of_a_partition_is_that_of_its_consumer() {
    let metrics = Metrics::new(Clock::start());
    let topic = metrics.topic("reviews", None);
    // Two routes read the topic, and one of them has left it.
    let (one, other, gone) = (topic.lag(0), topic.lag(0), topic.lag(1));
    one.set(30);
    other.set(12);
    gone.set(5);
    drop(gone);
    let read = read(&metrics);
    read.near(
        r#"penstock_kafka_consumer_lag{topic="reviews",partition="0"}"#,
        42.0,
    );
    read.near(
        r#"penstock_kafka_consumer_lag{topic="reviews",partition="1"}"#,
        0.0,
    );
}

#[test]
fn a_route_tells_what_its_consumers_do() {
    let metrics = Metrics::new(Clock::start());
    some_stream(&metrics);
    let read = read(&metrics);
    let near = |series: &str, value: f64| read.near(series, value);
    near(
        r#"penstock_kafka_rebalances_total{route="reviews",kind="assigned"}"#,
        1.0,
    );
    near(
        r#"penstock_kafka_transactions_total{route="reviews",outcome="committed"}"#,
        1.0,
    );
    near(
        r#"penstock_kafka_end_to_end_duration_seconds_count{route="reviews"}"#,
        3.0,
    );
    // A record from the future has no latency.
    let sum = read.value(r#"penstock_kafka_end_to_end_duration_seconds_sum{route="reviews"}"#);
    assert!((1.0..3.0).contains(&sum), "{sum}");
    for gauge in [
        "in_flight_records",
        "in_flight_bytes",
        "paused_partitions",
        "unready_consumers",
    ] {
        near(&format!(r#"penstock_kafka_{gauge}{{route="reviews"}}"#), 0.0);
    }
}

#[test]
fn the_time_to_drain_is_that_of_all_consumers_together() {
    let metrics = Metrics::new(Clock::start());
    let drain = r#"penstock_kafka_time_to_drain_seconds{topic="t"}"#;
    let (mut one, mut other) = (
        Drain::new(metrics.topic("t", None)),
        Drain::new(metrics.topic("t", None)),
    );
    one.set(900, 0.0);
    assert!(
        !metrics.render().contains(drain),
        "who has just come has finished nothing"
    );
    one.set(900, 20.0);
    read(&metrics).near(drain, 45.0);
    other.set(100, 30.0);
    read(&metrics).near(drain, 20.0);
    drop(other);
    read(&metrics).near(drain, 45.0);
    one.set(900, 0.0);
    read(&metrics).near(drain, 86_400.0);
    drop(one);
    read(&metrics).near(drain, 0.0);
}

/// Scores one record of each topic, of which `found_max` may have series. The topics are read while the
/// returned handles are held.
fn read_topics(metrics: &Metrics, names: &[&str], found_max: usize) -> Vec<Arc<TopicMetrics>> {
    let read = names.iter().map(|name| {
        let topic = metrics.topic(name, Some(found_max));
        topic.committed(&Left {
            scored: 1,
            ..Left::default()
        });
        topic
    });
    read.collect()
}

fn scored(topic: &str) -> String {
    format!(r#"penstock_kafka_records_total{{topic="{topic}",outcome="scored"}}"#)
}

#[test]
fn topics_beyond_the_bound_share_one_set_of_series() {
    let metrics = Metrics::new(Clock::start());
    metrics.topic("configured", None);
    let topics = read_topics(&metrics, &["a", "b", "c", "d", "b"], 2);
    let lags: Vec<_> = topics.iter().map(|topic| topic.lag(0)).collect();
    for lag in &lags {
        lag.set(1);
    }
    let read = read(&metrics);
    for (topic, count) in [("a", 1.0), ("b", 2.0), ("(other)", 2.0), ("configured", 0.0)] {
        read.near(&scored(topic), count);
    }
    assert!(!read.has(&scored("c")));
    read.near(
        r#"penstock_kafka_consumer_lag{topic="(other)",partition="(other)"}"#,
        2.0,
    );
}

#[test]
fn an_unread_topic_makes_room_for_a_new_one() {
    let metrics = Metrics::new(Clock::start());
    metrics.topic("configured", None);
    let mut topics = read_topics(&metrics, &["a", "b"], 2);
    for number in 0..1000 {
        // The first topic is released before the next one is read; the other stays.
        topics.swap_remove(0);
        topics.append(&mut read_topics(&metrics, &[&format!("t{number}")], 2));
        topics.reverse();
    }
    let read = read(&metrics);
    let series = read
        .samples
        .keys()
        .filter(|series| series.starts_with("penstock_kafka_records_total"));
    assert_eq!(series.count(), 3 * 3, "three outcomes of three topics");
    for topic in ["t999", "b", "configured"] {
        assert!(read.has(&scored(topic)), "{topic}");
    }
}

#[test]
fn a_topic_that_comes_back_while_there_is_room_goes_on_counting() {
    let metrics = Metrics::new(Clock::start());
    drop(read_topics(&metrics, &["a"], 2));
    drop(read_topics(&metrics, &["a", "b"], 2));
    read(&metrics).near(&scored("a"), 2.0);
}
