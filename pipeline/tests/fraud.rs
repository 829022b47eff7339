//! The fraud example against a naive oracle, on seeded clickstreams with planted fraud, near misses, disorder and
//! late events: over one partition, over twelve by user, and over twelve at random.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "fraud/clicks.rs"]
mod clicks;
#[path = "fraud/oracle.rs"]
mod oracle;

use std::path::Path;
use std::sync::Arc;

use clicks::{Click, Spread};
use oracle::Alert;
use penstock_pipeline::Pipeline;
use penstock_pipeline::machine::{Answer, Effect, Machine, Reason, Record};
use penstock_pipeline::value::Value;

const FRAUD: &str = include_str!("../../examples/fraud/pipeline.toml");
/// Events of a stream.
const EVENTS: usize = 20_000;

fn answer() -> Answer {
    Answer {
        label: "fraud".to_owned(),
        score: 0.9,
        probabilities: serde_json::Map::new(),
        model: "session-risk".to_owned(),
        version: "1".to_owned(),
    }
}

/// The alerts of the pipeline and the offsets of late records, in order.
fn run(clicks: &[Click], partitions: usize) -> (Vec<Alert>, Vec<(i32, i64)>) {
    let pipeline = Arc::new(Pipeline::parse(Path::new("fraud.toml"), FRAUD, None).unwrap());
    let alerts = pipeline.node("alerts").unwrap();
    let source = pipeline.node("click").unwrap();
    let mut machine = Machine::new(pipeline, partitions);
    let (mut found, mut late) = (Vec::new(), Vec::new());
    let mut effects = Vec::new();
    for place in 0..=clicks.len() {
        match clicks.get(place) {
            Some(click) => {
                let record = Record {
                    source,
                    partition: click.partition,
                    offset: click.offset,
                    timestamp: None,
                    key: None,
                    value: click.json.as_bytes(),
                };
                machine.push(&record, &mut effects);
            }
            None => machine.finish(&mut effects),
        }
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Score { ticket, .. } => machine.answer(ticket, Ok(answer()), &mut effects),
                Effect::Output(output) if output.sink == alerts => found.push(alert(&output.row)),
                Effect::Output(_) => {}
                Effect::DeadLetter(letter) => {
                    assert_eq!(letter.reason, Reason::Late, "{}", letter.detail);
                    late.push((letter.origin.partition, letter.origin.offset));
                }
            }
        }
    }
    (found, late)
}

fn alert(row: &[Value]) -> Alert {
    match row {
        [
            Value::String(user),
            Value::Timestamp(start),
            Value::Timestamp(end),
            Value::Int(views),
            Value::Timestamp(coupon),
            ..,
        ] => Alert {
            user: user.to_string(),
            start: *start,
            end: *end,
            views: *views,
            coupon: *coupon,
        },
        other => panic!("{other:?}"),
    }
}

fn check(seed: u64, partitions: usize, spread: Spread) {
    let clicks = clicks::stream(seed, EVENTS, partitions, spread);
    let expected = oracle::decide(&clicks, partitions);
    let found = run(&clicks, partitions);
    assert!(
        expected.0.len() > 20,
        "seed {seed}: too few alerts: {}",
        expected.0.len()
    );
    assert!(
        expected.1.len() > 20,
        "seed {seed}: too few late events: {}",
        expected.1.len()
    );
    assert_eq!(
        found, expected,
        "seed {seed}, {partitions} partitions, {spread:?}"
    );
}

#[test]
fn one_partition_equals_the_oracle() {
    (0..6).for_each(|seed| check(seed, 1, Spread::ByUser));
}

#[test]
fn twelve_partitions_equal_the_oracle() {
    (10..16).for_each(|seed| check(seed, 12, Spread::ByUser));
}

#[test]
fn users_that_are_spread_over_partitions_equal_the_oracle() {
    (20..26).for_each(|seed| check(seed, 12, Spread::AtRandom));
}
