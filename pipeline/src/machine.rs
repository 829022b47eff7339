//! A run of a pipeline in one process: records in, effects out. It has no clock and waits for nothing.
//!
//! Records pass the graph one inside of the other. A model is asked by an effect, and its answers are taken in
//! any order; behind a model records and watermarks keep the order in which they came to it.

mod event;
mod pattern;
mod record;
mod score;
mod session;
mod watermark;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::expression::{Env, EvalError, Expression};
use crate::graph::{Operation, Pipeline, Role, SinkSpec, StepSpec, Target, TemplatePart};
use crate::value::Value;
pub use event::{DeadLetter, Effect, Origin, Output, Reason, Record};
use event::{Event, Lost};
use record::Decoder;
use score::Pending;
pub use score::{Answer, Question, Ticket};
use session::Sessions;
use watermark::{InputWatermarks, PartitionWatermarks};

/// Watermark at the end of time: everything that waits for time is closed.
const END_OF_TIME: i64 = i64::MAX;

/// A run of a pipeline.
#[derive(Debug)]
pub struct Machine {
    pipeline: Arc<Pipeline>,
    states: Vec<State>,
    /// Readers of each node.
    outputs: Vec<Vec<usize>>,
    counts: Counts,
}

/// Things that are counted because no effect tells of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that came.
    pub records: u64,
    /// Late records that the file says to drop.
    pub late_dropped: u64,
    /// Sessions that were closed early because the state was full.
    pub sessions_cut: u64,
    /// Sessions in which a pattern has forgotten events.
    pub pattern_overflows: u64,
}

/// State of a node.
#[derive(Debug)]
struct State {
    watermarks: InputWatermarks,
    kind: StateKind,
}

#[derive(Debug)]
enum StateKind {
    Source(Decoder, PartitionWatermarks),
    Sessions(Box<Sessions>),
    Score(Pending),
    None,
}

impl Machine {
    /// A run at its start. Each source has so many partitions.
    pub fn new(pipeline: Arc<Pipeline>, partitions: usize) -> Machine {
        let outputs: Vec<Vec<usize>> = (0..pipeline.nodes.len())
            .map(|n| pipeline.outputs(n).collect())
            .collect();
        let states = pipeline.nodes.iter().zip(&outputs).map(|(node, readers)| State {
            watermarks: InputWatermarks::new(&node.inputs),
            kind: match &node.role {
                Role::Source(spec) => {
                    let watermarks = PartitionWatermarks::new(partitions, spec.out_of_order_max);
                    StateKind::Source(Decoder::new(spec), watermarks)
                }
                Role::Step(step) => match &step.operation {
                    Operation::Session(_) => StateKind::Sessions(Box::new(Sessions::new(&pipeline, readers))),
                    Operation::Score(_) => StateKind::Score(Pending::default()),
                    _ => StateKind::None,
                },
                Role::Sink(_) => StateKind::None,
            },
        });
        let states = states.collect();
        Machine {
            pipeline,
            states,
            outputs,
            counts: Counts::default(),
        }
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a record of a source.
    pub fn push(&mut self, record: &Record<'_>, effects: &mut Vec<Effect>) {
        self.counts.records += 1;
        self.step(effects, |run| run.source(record));
    }

    /// Takes the answer of a model. An unknown ticket is ignored.
    pub fn answer(&mut self, ticket: Ticket, answer: Result<Answer, String>, effects: &mut Vec<Effect>) {
        self.step(effects, |run| run.answered(ticket, answer));
    }

    /// Ends the input, and with it time. Answers that are still awaited may come after it.
    pub fn finish(&mut self, effects: &mut Vec<Effect>) {
        self.step(effects, |run| {
            for (source, _, _) in run.pipeline.sources() {
                run.watermark_of(source, END_OF_TIME);
            }
        });
    }

    fn step(&mut self, effects: &mut Vec<Effect>, act: impl FnOnce(&mut Run<'_>)) {
        let pipeline = Arc::clone(&self.pipeline);
        act(&mut Run {
            pipeline: &pipeline,
            states: &mut self.states,
            outputs: &self.outputs,
            counts: &mut self.counts,
            effects,
        });
    }
}

/// One input on its way through the graph.
struct Run<'a> {
    pipeline: &'a Pipeline,
    states: &'a mut [State],
    outputs: &'a [Vec<usize>],
    counts: &'a mut Counts,
    effects: &'a mut Vec<Effect>,
}

impl Run<'_> {
    fn source(&mut self, record: &Record<'_>) {
        let node = record.source;
        let Some(Role::Source(spec)) = self.pipeline.nodes.get(node).map(|node| &node.role) else {
            return;
        };
        let origin = record.origin();
        let StateKind::Source(decoder, watermarks) = &mut self.states[node].kind else {
            return;
        };
        let decoded = decoder.decode(spec, record);
        let (value, time) = match decoded {
            Ok(decoded) => decoded,
            Err(lost) => return self.lose(node, origin, None, lost),
        };
        let late_by = watermarks.behind(record.partition, time);
        let advanced = watermarks.advance(record.partition, time);
        let event = Event {
            row: vec![value],
            origin,
            time,
            late_by,
            key: record.key.map(Into::into),
        };
        self.forward(node, event);
        if let Some(watermark) = advanced {
            self.watermark_of(node, watermark);
        }
    }

    /// Hands an event to the readers of a node.
    fn forward(&mut self, node: usize, event: Event) {
        let outputs = self.outputs;
        let Some((last, others)) = outputs[node].split_last() else {
            return;
        };
        for reader in others {
            self.deliver(*reader, event.clone());
        }
        self.deliver(*last, event);
    }

    fn deliver(&mut self, node: usize, event: Event) {
        let pipeline = self.pipeline;
        let origin = event.origin;
        let key = event.key.clone();
        let done = match &pipeline.nodes[node].role {
            Role::Step(step) => self.work(node, step, event),
            Role::Sink(sink) => self.output(node, sink, event),
            Role::Source(_) => Ok(()),
        };
        if let Err(lost) = done {
            self.lose(node, origin, key, lost);
        }
    }

    fn work(&mut self, node: usize, step: &StepSpec, mut event: Event) -> Result<(), Lost> {
        if let Some(parts) = &step.key {
            event.key = Some(key(parts, &event.row)?);
        }
        match &step.operation {
            Operation::Pass => self.forward(node, event),
            Operation::Filter(condition) => {
                if condition.holds(Env::row(&event.row))? {
                    self.forward(node, event);
                }
            }
            Operation::Score(score) => self.ask(node, score, event)?,
            Operation::Session(session) => self.join(node, session, event)?,
            // A pattern is asked by the session that it looks into.
            Operation::Pattern(_) => {}
        }
        Ok(())
    }

    fn output(&mut self, node: usize, sink: &SinkSpec, event: Event) -> Result<(), Lost> {
        let env = Env::row(&event.row);
        let value =
            |(_, expression): &(String, Expression)| expression.value(env).map(|value| value.into_owned());
        let row: Result<Vec<Value>, EvalError> = sink.columns.iter().map(value).collect();
        let row = row?;
        let key = match &sink.target {
            Target::Topic {
                key: Some(expression),
                ..
            } => Some(key(std::slice::from_ref(expression), &event.row)?),
            Target::Redis { hash, .. } => {
                let mut name = String::new();
                for part in &hash.parts {
                    match part {
                        TemplatePart::Text(text) => name.push_str(text),
                        TemplatePart::Value(expression) => {
                            name.push_str(&key(std::slice::from_ref(expression), &event.row)?);
                        }
                    }
                }
                Some(name.into())
            }
            _ => event.key,
        };
        self.effects.push(Effect::Output(Output {
            sink: node,
            key,
            row,
            origin: event.origin,
            time: event.time,
        }));
        Ok(())
    }

    fn lose(&mut self, node: usize, origin: Origin, key: Option<Arc<str>>, lost: Lost) {
        self.effects.push(Effect::DeadLetter(DeadLetter {
            node,
            reason: lost.reason,
            detail: lost.detail,
            origin,
            key,
        }));
    }

    /// A node has got a new watermark of its own: its readers hear of it.
    fn watermark_of(&mut self, node: usize, watermark: i64) {
        let outputs = self.outputs;
        for reader in &outputs[node] {
            let pipeline = self.pipeline;
            if let Some(advanced) = self.states[*reader].watermarks.advance(node, watermark) {
                match &pipeline.nodes[*reader].role {
                    Role::Step(step) => match &step.operation {
                        Operation::Session(session) => self.close_until(*reader, session, advanced),
                        Operation::Score(_) => self.watermark_behind_answers(*reader, advanced),
                        _ => self.watermark_of(*reader, advanced),
                    },
                    Role::Sink(_) | Role::Source(_) => {}
                }
            }
        }
    }
}

/// Key of a row: one part is its text, several are a JSON list of their texts.
fn key(parts: &[Expression], row: &[Value]) -> Result<Arc<str>, Lost> {
    let mut texts: Vec<Arc<str>> = Vec::with_capacity(parts.len());
    for part in parts {
        let value = part.value(Env::row(row))?;
        texts.push(match value.as_ref() {
            Value::String(text) => Arc::clone(text),
            Value::Int(number) => number.to_string().into(),
            other => {
                let detail = format!(
                    "`{}`: `{}` is {}, which is no key",
                    part.name,
                    part.text,
                    other.kind()
                );
                return Err(Lost::new(Reason::Key, detail));
            }
        });
    }
    match &texts[..] {
        [one] => Ok(Arc::clone(one)),
        several => {
            let list: Vec<&str> = several.iter().map(AsRef::as_ref).collect();
            Ok(serde_json::Value::from(list).to_string().into())
        }
    }
}
