//! Patterns: which stages the events of a session have reached. State is bounded, and the order of arrival does
//! not matter.

use crate::expression::Position;
use crate::graph::PatternSpec;
use crate::value::Value;

/// Order of an event in its session: its time, then its place in the topic.
pub(super) type Moment = (i64, Position);

/// A pattern in one session.
#[derive(Clone, Debug, Default)]
pub(super) struct PatternState {
    /// Whether the session has matched.
    pub(super) matched: bool,
    /// Whether events were forgotten that a later event may have needed.
    pub(super) overflow: bool,
    /// Whether two halves were joined: any event may then complete what they have together.
    merged: bool,
    stages: Vec<StageState>,
}

#[derive(Clone, Debug, Default)]
struct StageState {
    /// Events of the stage that are remembered, in order.
    events: Vec<Moment>,
    /// Number of older ones that are not.
    forgotten: i64,
    /// Event with which the stage was first complete. More events can only make that earlier.
    reached: Option<Moment>,
}

impl PatternState {
    pub(super) fn new(spec: &PatternSpec) -> PatternState {
        PatternState {
            matched: false,
            overflow: false,
            merged: false,
            stages: vec![StageState::default(); spec.stages.len()],
        }
    }

    /// Adds an event that meets the conditions of `hits`. If the session matches by it, the result is the value of
    /// `match`; a session matches once.
    pub(super) fn add(&mut self, spec: &PatternSpec, hits: &[bool], at: Moment) -> Option<Value> {
        if self.matched || !(self.merged || hits.contains(&true)) {
            return None;
        }
        self.merged = false;
        for (stage, _) in self.stages.iter_mut().zip(hits).filter(|(_, hit)| **hit) {
            let place = stage.events.partition_point(|other| *other < at);
            stage.events.insert(place, at);
        }
        self.advance(spec)
    }

    /// Takes over what another session of the same key has seen.
    pub(super) fn merge(&mut self, spec: &PatternSpec, other: PatternState) {
        self.matched |= other.matched;
        self.overflow |= other.overflow;
        self.merged = true;
        if self.matched {
            self.stages
                .iter_mut()
                .for_each(|stage| *stage = StageState::default());
            return;
        }
        for (stage, more) in self.stages.iter_mut().zip(other.stages) {
            stage.events.extend(more.events);
            stage.events.sort_unstable();
            stage.forgotten += more.forgotten;
            stage.reached = match (stage.reached, more.reached) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        // The event that joins both sessions is added after this, and matches if they do together.
        self.forget(spec);
    }

    /// Looks for the earliest completion of each stage in turn.
    fn advance(&mut self, spec: &PatternSpec) -> Option<Value> {
        let mut after: Option<Moment> = None;
        let mut complete = true;
        for (stage, rule) in self.stages.iter_mut().zip(&spec.stages) {
            let found = stage.completed(after, rule.at_least, rule.span);
            let kept = stage
                .reached
                .filter(|reached| after.is_none_or(|after| *reached > after));
            stage.reached = match (kept, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            complete &= stage.reached.is_some();
            if stage.reached.is_none() {
                break;
            }
            after = stage.reached;
        }
        if !complete {
            self.forget(spec);
            return None;
        }
        let value = self.value();
        self.matched = true;
        self.stages
            .iter_mut()
            .for_each(|stage| *stage = StageState::default());
        Some(value)
    }

    /// Forgets the oldest events beyond the bound.
    fn forget(&mut self, spec: &PatternSpec) {
        for stage in &mut self.stages {
            let over = stage.events.len().saturating_sub(spec.kept);
            if over > 0 {
                stage.events.drain(..over);
                stage.forgotten += over as i64;
                self.overflow = true;
            }
        }
    }

    /// Count and time of each stage. A stage counts its events up to the one that completes the next stage.
    fn value(&self) -> Value {
        let row = |(index, stage): (usize, &StageState)| {
            let next = self.stages.get(index + 1).and_then(|next| next.reached);
            let counted = match (next, stage.reached) {
                (Some(next), _) => stage.events.partition_point(|event| *event < next),
                (None, Some(last)) => stage.events.partition_point(|event| *event <= last),
                (None, None) => 0,
            };
            let time = stage
                .reached
                .map_or(Value::Null, |(time, _)| Value::Timestamp(time));
            Value::Record([Value::Int(stage.forgotten + counted as i64), time].into())
        };
        Value::Record(self.stages.iter().enumerate().map(row).collect())
    }

    /// Bytes beside its own place.
    pub(super) fn heap_bytes(&self) -> usize {
        let stage = |stage: &StageState| size_of::<StageState>() + stage.events.len() * size_of::<Moment>();
        self.stages.iter().map(stage).sum()
    }
}

impl StageState {
    /// The first event after `after` with which enough events lie within `span`.
    fn completed(&self, after: Option<Moment>, at_least: usize, span: Option<i64>) -> Option<Moment> {
        let start = after.map_or(0, |after| self.events.partition_point(|event| *event <= after));
        let events = &self.events[start..];
        let near = |window: &&[Moment]| {
            let first = window.first().map_or(0, |(time, _)| *time);
            let last = window.last().map_or(0, |(time, _)| *time);
            span.is_none_or(|span| last.saturating_sub(first) <= span)
        };
        events.windows(at_least).find(near)?.last().copied()
    }
}
