//! A run of one test.

use std::sync::Arc;

use super::compare::{Mismatch, compare_letters, compare_rows};
use super::{ANY, TestCase};
use crate::graph::Pipeline;
use crate::machine::{Answer, Effect, Machine, Question, Record};

/// Runs a test. The result is every way in which it differs from what is expected.
pub fn run(pipeline: &Arc<Pipeline>, case: &TestCase) -> Vec<Mismatch> {
    let mut machine = Machine::new(Arc::clone(pipeline), case.partitions);
    let mut offsets = vec![vec![0; case.partitions]; pipeline.nodes.len()];
    let mut outputs = Vec::new();
    let mut letters = Vec::new();
    let mut effects = Vec::new();
    for record in &case.records {
        let partition = usize::try_from(record.partition).unwrap_or_default();
        let offset = &mut offsets[record.source][partition];
        let record = Record {
            source: record.source,
            partition: record.partition,
            offset: *offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: &record.value,
        };
        *offset += 1;
        machine.push(&record, &mut effects);
        settle(case, &mut machine, &mut effects, &mut outputs, &mut letters);
    }
    machine.finish(&mut effects);
    settle(case, &mut machine, &mut effects, &mut outputs, &mut letters);

    let mut mismatches = Vec::new();
    for (sink, _, spec) in pipeline.sinks() {
        let Some(expected) = case.expected.get(&sink) else {
            continue;
        };
        let rows: Vec<_> = outputs.iter().filter(|output| output.sink == sink).collect();
        compare_rows(pipeline, case, sink, spec, expected, &rows, &mut mismatches);
    }
    compare_letters(pipeline, case, &letters, &mut mismatches);
    mismatches
}

/// Answers the models from the test's table until nothing is asked any more.
fn settle(
    case: &TestCase,
    machine: &mut Machine,
    effects: &mut Vec<Effect>,
    outputs: &mut Vec<crate::machine::Output>,
    letters: &mut Vec<crate::machine::DeadLetter>,
) {
    while !effects.is_empty() {
        for effect in std::mem::take(effects) {
            match effect {
                Effect::Score {
                    ticket,
                    model,
                    question,
                } => {
                    let answer = answer(case, &model, &question);
                    machine.answer(ticket, answer, effects);
                }
                Effect::Output(output) => outputs.push(output),
                Effect::DeadLetter(letter) => letters.push(letter),
            }
        }
    }
}

fn answer(case: &TestCase, model: &str, question: &Question) -> Result<Answer, String> {
    let Some(table) = case.models.get(model) else {
        return Err(format!("the test has no answers of the model `{model}`"));
    };
    let text = match question {
        Question::Text(text) => text.as_str(),
        Question::Row(_) => ANY,
    };
    let found = table.get(text).or_else(|| table.get(ANY));
    found
        .cloned()
        .ok_or_else(|| format!("the test has no answer of `{model}` for `{text}`, and none for `{ANY}`"))
}
