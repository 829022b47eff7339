//! Decisions of a run: order behind models, sessions that close, bounds of state.

use std::path::Path;
use std::sync::Arc;

use super::{Answer, Effect, Machine, Reason, Record, Ticket};
use crate::Pipeline;
use crate::value::Value;

/// A pipeline of one source, with more steps and sinks.
fn machine(rest: &str, partitions: usize) -> Machine {
    let text = format!(
        "name = \"t\"\n[connection.main]\nkafka = \"a:1\"\n[source.e]\nconnection = \"main\"\ntopics = [\"t\"]\nevent_time = \"at\"\n\
         fields = {{ k = \"string?\", at = \"timestamp\", n = \"int?\" }}\n[step.by]\nfrom = \"e\"\nkey = [\"e.k\"]\n{rest}"
    );
    let pipeline = Pipeline::parse(Path::new("t.toml"), &text, None).unwrap_or_else(|e| panic!("{e}"));
    Machine::new(Arc::new(pipeline), partitions)
}

const SESSIONS: &str = "[step.visit]\nfrom = \"by\"\nsession = { gap = \"10ms\", length_max = \"100ms\", lateness = \"5ms\" }\n\
    collect.n = \"sum(e.n)\"\ncollect.last = \"last(e.n)\"\n\
    [sink.out]\nfrom = \"visit\"\nconnection = \"main\"\ntopic = \"o\"\n\
    value = { key = \"visit.key\", start = \"visit.start\", end = \"visit.end\", n = \"visit.n\", last = \"visit.last\" }\n";

/// Rows of sinks as texts, and dead letters as their reasons.
fn push(machine: &mut Machine, partition: i32, offset: i64, json: &str) -> Vec<String> {
    let record = Record {
        source: 0,
        partition,
        offset,
        timestamp: None,
        key: None,
        value: json.as_bytes(),
    };
    let mut effects = Vec::new();
    machine.push(&record, &mut effects);
    shown(&effects)
}

fn finish(machine: &mut Machine) -> Vec<String> {
    let mut effects = Vec::new();
    machine.finish(&mut effects);
    shown(&effects)
}

fn shown(effects: &[Effect]) -> Vec<String> {
    let show = |value: &Value| match value {
        Value::Int(n) | Value::Timestamp(n) => n.to_string(),
        Value::String(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Output(output) => Some(output.row.iter().map(show).collect::<Vec<_>>().join(" ")),
            Effect::DeadLetter(letter) => Some(letter.reason.to_string()),
            Effect::Score { .. } => None,
        })
        .collect()
}

fn event(k: &str, at: i64, n: i64) -> String {
    format!("{{\"k\":\"{k}\",\"at\":{at},\"n\":{n},\"other\":[1]}}")
}

#[test]
fn a_session_closes_strictly_after_its_gap_and_lateness() {
    let mut machine = machine(SESSIONS, 1);
    assert!(push(&mut machine, 0, 0, &event("a", 100, 1)).is_empty());
    assert!(push(&mut machine, 0, 1, &event("a", 110, 2)).is_empty());
    assert!(
        push(&mut machine, 0, 2, &event("b", 125, 0)).is_empty(),
        "110 + 10 + 5 is not past"
    );
    assert_eq!(push(&mut machine, 0, 3, &event("b", 126, 0)), ["a 100 110 3 2"]);
    assert_eq!(finish(&mut machine), ["b 125 126 0 0"]);
}

#[test]
fn an_event_in_between_merges_sessions_and_its_order_does_not_matter() {
    let mut machine = machine(SESSIONS, 1);
    for (offset, (at, n)) in [(100, 1), (111, 4), (106, 2)].into_iter().enumerate() {
        assert!(push(&mut machine, 0, offset as i64, &event("a", at, n)).is_empty());
    }
    assert_eq!(finish(&mut machine), ["a 100 111 7 4"], "the last by time is 4");
}

#[test]
fn a_session_is_no_longer_than_its_bound() {
    let mut machine = machine(SESSIONS, 1);
    for (offset, at) in (0..=110).step_by(10).enumerate() {
        assert!(push(&mut machine, 0, offset as i64, &event("a", at, 1)).is_empty());
    }
    assert_eq!(finish(&mut machine), ["a 0 100 11 1", "a 110 110 1 1"]);
}

#[test]
fn sessions_wait_for_every_partition() {
    let mut machine = machine(SESSIONS, 2);
    push(&mut machine, 0, 0, &event("a", 100, 1));
    assert!(
        push(&mut machine, 0, 1, &event("b", 500, 1)).is_empty(),
        "the other partition may have 105"
    );
    assert!(push(&mut machine, 1, 0, &event("a", 105, 1)).is_empty());
    assert_eq!(push(&mut machine, 1, 1, &event("c", 300, 1)), ["a 100 105 2 1"]);
}

#[test]
fn records_that_cannot_be_used_are_dead_letters_and_move_no_watermark() {
    let mut machine = machine(SESSIONS, 1);
    for (json, reason) in [
        ("{\"k\":\"a\"", "value"),
        ("[1]", "value"),
        ("{\"k\":7,\"at\":9}", "value"),
        ("{\"k\":\"a\"}", "event_time"),
        ("{\"k\":\"a\",\"at\":\"soon\"}", "event_time"),
        ("{\"k\":null,\"at\":9}", "key"),
        ("{\"at\":9}", "key"),
    ] {
        assert_eq!(push(&mut machine, 0, 0, json), [reason], "{json}");
    }
    push(&mut machine, 0, 1, &event("a", 100, 1));
    assert_eq!(push(&mut machine, 0, 2, &event("a", 94, 1)), ["late"]);
    assert!(push(&mut machine, 0, 3, &event("a", 95, 1)).is_empty());
    assert_eq!(finish(&mut machine), ["a 95 100 2 1"]);
}

#[test]
fn full_state_closes_the_sessions_that_end_first() {
    let text = SESSIONS.replace(
        "lateness = \"5ms\"",
        "lateness = \"5ms\", state_bytes_max = 65536",
    );
    let mut machine = machine(&text, 1);
    let mut early = Vec::new();
    for n in 0..1_000_i64 {
        early.extend(push(&mut machine, 0, n, &event(&format!("k{n}"), 1_000, n)));
    }
    assert!(!early.is_empty());
    let cut = machine.counts().sessions_cut;
    assert_eq!(early.len() as u64, cut);
    let rest = finish(&mut machine);
    assert_eq!(early.len() + rest.len(), 1_000, "each session is emitted once");
}

const SCORED: &str = "[step.risk]\nfrom = \"by\"\nscore = { model = \"m\", inputs = { n = \"e.n\" }, into = \"risk\" }\n\
    [step.visit]\nfrom = \"risk\"\nsession = { gap = \"10ms\", length_max = \"100ms\" }\n\
    collect.worst = \"last(risk.label)\"\n\
    [sink.out]\nfrom = \"visit\"\nconnection = \"main\"\ntopic = \"o\"\nvalue = { worst = \"visit.worst\", end = \"visit.end\" }\n";

#[test]
fn answers_in_any_order_give_what_answers_in_order_give() {
    let mut machine = machine(SCORED, 1);
    let mut tickets: Vec<Ticket> = Vec::new();
    for (offset, at) in [100, 105, 300].into_iter().enumerate() {
        let json = event("a", at, at);
        let record = Record {
            source: 0,
            partition: 0,
            offset: offset as i64,
            timestamp: None,
            key: None,
            value: json.as_bytes(),
        };
        let mut effects = Vec::new();
        machine.push(&record, &mut effects);
        for effect in effects {
            if let Effect::Score { ticket, .. } = effect {
                tickets.push(ticket);
            }
        }
    }
    let answer = |label: &str| Answer {
        label: label.to_owned(),
        score: 0.5,
        probabilities: serde_json::Map::new(),
        model: "m".to_owned(),
        version: "1".to_owned(),
    };
    let mut effects = Vec::new();
    machine.answer(tickets[2], Ok(answer("third")), &mut effects);
    machine.answer(tickets[1], Err("the model is away".to_owned()), &mut effects);
    machine.answer(tickets[1], Ok(answer("again")), &mut effects);
    assert!(effects.is_empty(), "the first answer is awaited: {effects:?}");
    machine.answer(tickets[0], Ok(answer("first")), &mut effects);
    machine.answer(tickets[0], Ok(answer("again")), &mut effects);
    machine.finish(&mut effects);
    assert_eq!(shown(&effects), ["model", "first 100", "third 300"]);
    let Some(Effect::DeadLetter(letter)) = effects.first() else {
        panic!("{effects:?}");
    };
    assert_eq!((letter.reason, letter.origin.offset), (Reason::Model, 1));
}
