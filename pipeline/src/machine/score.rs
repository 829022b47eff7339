//! Models: questions that wait for their answers, in the order in which they were asked.

use std::collections::VecDeque;

use super::event::{Effect, Event, Lost, Reason};
use super::{Run, StateKind};
use crate::expression::Env;
use crate::graph::{ModelInput, ScoreSpec};
use crate::value::Value;

/// Ticket of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    node: usize,
    number: u64,
}

/// Input of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// A text.
    Text(String),
    /// Numbers by name; `None` where one is absent.
    Row(Vec<(String, Option<f64>)>),
}

/// Answer of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The label.
    pub label: String,
    /// Its score.
    pub score: f64,
    /// Probability of each label.
    pub probabilities: serde_json::Map<String, serde_json::Value>,
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: String,
}

/// Events and watermarks that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: VecDeque<Waiting>,
    /// Number of the first one.
    first: u64,
}

#[derive(Debug)]
enum Waiting {
    Event(Event, Option<Result<Answer, String>>),
    Watermark(i64),
}

impl Run<'_> {
    pub(super) fn ask(&mut self, node: usize, score: &ScoreSpec, event: Event) -> Result<(), Lost> {
        let question = question(score, &event)?;
        let StateKind::Score(pending) = &mut self.states[node].kind else {
            return Ok(());
        };
        let ticket = Ticket {
            node,
            number: pending.first + pending.waiting.len() as u64,
        };
        pending.waiting.push_back(Waiting::Event(event, None));
        self.effects.push(Effect::Score {
            ticket,
            model: score.model.clone(),
            question,
        });
        Ok(())
    }

    pub(super) fn answered(&mut self, ticket: Ticket, answer: Result<Answer, String>) {
        let Some(StateKind::Score(pending)) = self.states.get_mut(ticket.node).map(|state| &mut state.kind)
        else {
            return;
        };
        let place = ticket.number.checked_sub(pending.first);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(Waiting::Event(_, slot)) = place.and_then(|place| pending.waiting.get_mut(place)) {
            slot.get_or_insert(answer);
        }
        self.drain(ticket.node);
    }

    /// A watermark passes behind the events that came before it.
    pub(super) fn watermark_behind_answers(&mut self, node: usize, watermark: i64) {
        let StateKind::Score(pending) = &mut self.states[node].kind else {
            return;
        };
        if pending.waiting.is_empty() {
            return self.watermark_of(node, watermark);
        }
        if let Some(Waiting::Watermark(last)) = pending.waiting.back_mut() {
            *last = watermark;
        } else {
            pending.waiting.push_back(Waiting::Watermark(watermark));
        }
    }

    /// Hands on what is answered and has nothing before it.
    fn drain(&mut self, node: usize) {
        loop {
            let StateKind::Score(pending) = &mut self.states[node].kind else {
                return;
            };
            if matches!(pending.waiting.front(), None | Some(Waiting::Event(_, None))) {
                return;
            }
            let Some(first) = pending.waiting.pop_front() else {
                return;
            };
            pending.first += 1;
            match first {
                Waiting::Watermark(watermark) => self.watermark_of(node, watermark),
                Waiting::Event(mut event, Some(Ok(answer))) => {
                    event.row.push(answer.into_value());
                    self.forward(node, event);
                }
                Waiting::Event(event, Some(Err(detail))) => {
                    self.lose(node, event.origin, event.key, Lost::new(Reason::Model, detail));
                }
                Waiting::Event(_, None) => {}
            }
        }
    }
}

impl Answer {
    /// Its record, with the fields of `into`.
    fn into_value(self) -> Value {
        let fields = [
            Value::String(self.label.into()),
            Value::Double(self.score),
            Value::Object(self.probabilities.into()),
            Value::String(self.model.into()),
            Value::String(self.version.into()),
        ];
        Value::Record(fields.into())
    }
}

fn question(score: &ScoreSpec, event: &Event) -> Result<Question, Lost> {
    let env = Env::row(&event.row);
    match &score.input {
        ModelInput::Text(expression) => match expression.value(env)?.as_ref() {
            Value::String(text) => Ok(Question::Text(text.as_ref().to_owned())),
            other => {
                let detail = format!("`{}`: the text is {}", expression.name, other.kind());
                Err(Lost::new(Reason::Expression, detail))
            }
        },
        ModelInput::Row(row) => {
            let mut numbers = Vec::with_capacity(row.len());
            for (name, expression) in row {
                let number = match expression.value(env)?.as_ref() {
                    Value::Null => None,
                    Value::Bool(b) => Some(f64::from(u8::from(*b))),
                    Value::Timestamp(ms) | Value::Duration(ms) => Some(*ms as f64),
                    other => Some(other.number().ok_or_else(|| {
                        let detail = format!("`{}`: a {} is no number", expression.name, other.kind());
                        Lost::new(Reason::Expression, detail)
                    })?),
                };
                numbers.push((name.clone(), number));
            }
            Ok(Question::Row(numbers))
        }
    }
}
