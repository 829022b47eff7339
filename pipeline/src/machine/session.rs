//! Sessions: an event extends, opens or merges them; the watermark closes them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::event::{Event, Lost, Origin, Reason};
use super::pattern::PatternState;
use super::{Run, StateKind};
use crate::expression::{Accumulator, Addend, Env, EvalError};
use crate::graph::{Operation, PatternSpec, Pipeline, Role, SessionSpec, WhenLate};
use crate::value::Value;

/// Bytes of a session's own place, of its timer and of its key's entry.
const SESSION_BYTES: usize = 256;

/// Sessions of a step.
#[derive(Debug)]
pub(super) struct Sessions {
    keys: HashMap<Arc<str>, Vec<Session>>,
    /// A lower bound of each session's deadline: a session that has grown is put back with its new one.
    timers: BinaryHeap<Reverse<(i64, u64, Arc<str>)>>,
    next: u64,
    bytes: usize,
    /// Pattern steps that look into the sessions.
    patterns: Vec<usize>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    start: i64,
    end: i64,
    accumulators: Vec<Accumulator>,
    patterns: Vec<PatternState>,
    /// The event that came last.
    origin: Origin,
    cut: bool,
    bytes: usize,
}

impl Sessions {
    pub(super) fn new(pipeline: &Pipeline, readers: &[usize]) -> Sessions {
        let is_pattern = |node: &&usize| pattern_of(pipeline, **node).is_some();
        Sessions {
            keys: HashMap::new(),
            timers: BinaryHeap::new(),
            next: 0,
            bytes: 0,
            patterns: readers.iter().filter(is_pattern).copied().collect(),
        }
    }
}

fn pattern_of(pipeline: &Pipeline, node: usize) -> Option<&PatternSpec> {
    match &pipeline.nodes.get(node)?.role {
        Role::Step(step) => match &step.operation {
            Operation::Pattern(pattern) => Some(pattern),
            _ => None,
        },
        _ => None,
    }
}

impl Session {
    fn measure(&mut self, key: &str) {
        let accumulators: usize = self
            .accumulators
            .iter()
            .map(|state| size_of::<Accumulator>() + state.heap_bytes())
            .sum();
        let patterns: usize = self
            .patterns
            .iter()
            .map(|p| size_of::<PatternState>() + p.heap_bytes())
            .sum();
        self.bytes = SESSION_BYTES + 2 * key.len() + accumulators + patterns;
    }

    fn deadline(&self, spec: &SessionSpec) -> i64 {
        self.end.saturating_add(spec.gap).saturating_add(spec.lateness)
    }

    /// The record of the session, as it is known now.
    fn value(&self, spec: &SessionSpec, key: &Arc<str>) -> Result<Value, EvalError> {
        let aggregates: Vec<Value> = spec
            .aggregates
            .iter()
            .zip(&self.accumulators)
            .map(|(aggregate, state)| aggregate.value(state))
            .collect();
        let env = Env::aggregates(&aggregates);
        let mut fields = vec![
            Value::Timestamp(self.start),
            Value::Timestamp(self.end),
            Value::String(Arc::clone(key)),
            Value::Bool(self.cut),
            Value::Bool(self.patterns.iter().any(|pattern| pattern.overflow)),
        ];
        for field in &spec.collect {
            fields.push(field.value(env)?.into_owned());
        }
        Ok(Value::Record(fields.into()))
    }
}

impl Run<'_> {
    /// Takes an event into its session and asks the patterns.
    pub(super) fn join(&mut self, node: usize, spec: &SessionSpec, event: Event) -> Result<(), Lost> {
        if event.late_by > spec.lateness {
            if spec.late == WhenLate::Drop {
                self.counts.late_dropped += 1;
                return Ok(());
            }
            let detail = format!(
                "{} ms behind the watermark, {} are allowed",
                event.late_by, spec.lateness
            );
            return Err(Lost::new(Reason::Late, detail));
        }
        let Some(key) = event.key.clone() else {
            return Err(Lost::new(Reason::Key, "the record has no key"));
        };
        let pipeline = self.pipeline;
        let StateKind::Sessions(sessions) = &mut self.states[node].kind else {
            return Ok(());
        };
        let env = Env::row(&event.row);
        let addends: Result<Vec<Option<Addend>>, EvalError> = spec
            .aggregates
            .iter()
            .map(|aggregate| aggregate.addend(env))
            .collect();
        let addends = addends?;
        let specs: Vec<&PatternSpec> = sessions
            .patterns
            .iter()
            .filter_map(|p| pattern_of(pipeline, *p))
            .collect();
        let mut early = Vec::with_capacity(specs.len());
        for pattern in &specs {
            early.push(if pattern.reads_session {
                None
            } else {
                Some(hits(pattern, env)?)
            });
        }
        let mut matches = Vec::new();
        let session = sessions.take_in(spec, &specs, &key, &event, addends);
        let overflowed = session.patterns.iter().any(|pattern| pattern.overflow);
        let reads_session = specs.iter().any(|pattern| pattern.reads_session);
        let with_session = if reads_session {
            let mut row = event.row.clone();
            row.push(session.value(spec, &key)?);
            row
        } else {
            Vec::new()
        };
        for (place, (pattern, early)) in specs.iter().zip(early).enumerate() {
            let hit = match early {
                Some(hit) => hit,
                None => hits(pattern, Env::row(&with_session))?,
            };
            let at = (event.time, event.origin.position());
            if let Some(found) = session.patterns[place].add(pattern, &hit, at) {
                let mut row = event.row.clone();
                row.push(session.value(spec, &key)?);
                row.push(found);
                matches.push((place, row));
            }
        }
        if !overflowed && session.patterns.iter().any(|pattern| pattern.overflow) {
            self.counts.pattern_overflows += 1;
        }
        sessions.settle(&key);
        let matches: Vec<(usize, Vec<Value>)> = matches
            .into_iter()
            .map(|(place, row)| (sessions.patterns[place], row))
            .collect();
        for (pattern, row) in matches {
            let matched = Event {
                row,
                key: event.key.clone(),
                ..event
            };
            self.forward(pattern, matched);
        }
        self.keep_within(node, spec);
        Ok(())
    }

    /// Closes the sessions that no event can reach any more, then hands the watermark on.
    pub(super) fn close_until(&mut self, node: usize, spec: &SessionSpec, watermark: i64) {
        loop {
            let StateKind::Sessions(sessions) = &mut self.states[node].kind else {
                return;
            };
            let Some((key, session)) = sessions.first(spec, |deadline| deadline < watermark) else {
                break;
            };
            self.closed(node, spec, key, session);
        }
        self.watermark_of(node, watermark);
    }

    /// Closes the sessions that end first until the state is within its bound.
    fn keep_within(&mut self, node: usize, spec: &SessionSpec) {
        loop {
            let StateKind::Sessions(sessions) = &mut self.states[node].kind else {
                return;
            };
            if sessions.bytes <= spec.state_bytes_max {
                return;
            }
            let Some((key, mut session)) = sessions.first(spec, |_| true) else {
                return;
            };
            session.cut = true;
            self.counts.sessions_cut += 1;
            self.closed(node, spec, key, session);
        }
    }

    fn closed(&mut self, node: usize, spec: &SessionSpec, key: Arc<str>, session: Session) {
        if !spec.emits {
            return;
        }
        let value = match session.value(spec, &key) {
            Ok(value) => value,
            Err(error) => return self.lose(node, session.origin, Some(key), error.into()),
        };
        let event = Event {
            row: vec![value],
            origin: session.origin,
            time: session.end,
            late_by: 0,
            key: Some(key),
        };
        self.forward(node, event);
    }
}

/// Stages whose condition an event meets.
fn hits(pattern: &PatternSpec, env: Env<'_>) -> Result<Vec<bool>, EvalError> {
    pattern
        .stages
        .iter()
        .map(|stage| stage.condition.holds(env))
        .collect()
}

impl Sessions {
    /// The session of an event, with the event in its aggregates.
    fn take_in(
        &mut self,
        spec: &SessionSpec,
        patterns: &[&PatternSpec],
        key: &Arc<str>,
        event: &Event,
        addends: Vec<Option<Addend>>,
    ) -> &mut Session {
        let time = event.time;
        let of_key = self.keys.entry(Arc::clone(key)).or_default();
        let mut session = Session {
            number: self.next,
            start: time,
            end: time,
            accumulators: spec
                .aggregates
                .iter()
                .map(crate::expression::Aggregate::start)
                .collect(),
            patterns: patterns
                .iter()
                .map(|pattern| PatternState::new(pattern))
                .collect(),
            origin: event.origin,
            cut: false,
            bytes: 0,
        };
        let mut fresh = true;
        let mut place = 0;
        while place < of_key.len() {
            let other = &of_key[place];
            let (start, end) = (session.start.min(other.start), session.end.max(other.end));
            let touches =
                time >= other.start.saturating_sub(spec.gap) && time <= other.end.saturating_add(spec.gap);
            if !touches || end.saturating_sub(start) > spec.length_max {
                place += 1;
                continue;
            }
            let mut other = of_key.remove(place);
            // Its bytes are counted anew when the event is in.
            self.bytes -= std::mem::take(&mut other.bytes);
            if fresh {
                session = other;
                fresh = false;
            } else {
                absorb(&mut session, spec, patterns, other);
            }
            session.start = start;
            session.end = end;
        }
        for ((aggregate, state), addend) in spec.aggregates.iter().zip(&mut session.accumulators).zip(addends)
        {
            if let Some(addend) = addend {
                aggregate.add(state, addend, time, event.origin.position());
            }
        }
        session.origin = event.origin;
        if fresh {
            self.next += 1;
            self.timers
                .push(Reverse((session.deadline(spec), session.number, Arc::clone(key))));
        }
        let place = of_key.partition_point(|other| other.start <= session.start);
        of_key.insert(place, session);
        &mut of_key[place]
    }

    /// Counts the bytes of the sessions of a key that has changed.
    fn settle(&mut self, key: &Arc<str>) {
        for session in self.keys.get_mut(key).into_iter().flatten() {
            let before = session.bytes;
            session.measure(key);
            self.bytes = self.bytes + session.bytes - before;
        }
    }

    /// Removes the session that ends first, if its deadline fits.
    fn first(&mut self, spec: &SessionSpec, fits: impl Fn(i64) -> bool) -> Option<(Arc<str>, Session)> {
        loop {
            let Reverse((deadline, _, _)) = self.timers.peek()?;
            if !fits(*deadline) {
                return None;
            }
            let Reverse((noted, number, key)) = self.timers.pop()?;
            let Some(of_key) = self.keys.get_mut(&key) else {
                continue;
            };
            // A session that was merged into another one has no number of its own any more.
            let Some(place) = of_key.iter().position(|session| session.number == number) else {
                continue;
            };
            let deadline = of_key[place].deadline(spec);
            if deadline > noted {
                self.timers.push(Reverse((deadline, number, key)));
                continue;
            }
            let session = of_key.remove(place);
            if of_key.is_empty() {
                self.keys.remove(&key);
            }
            self.bytes -= session.bytes;
            return Some((key, session));
        }
    }
}

/// Joins another session of the key.
fn absorb(session: &mut Session, spec: &SessionSpec, patterns: &[&PatternSpec], other: Session) {
    for ((aggregate, state), more) in spec
        .aggregates
        .iter()
        .zip(&mut session.accumulators)
        .zip(other.accumulators)
    {
        aggregate.merge(state, more);
    }
    for ((pattern, state), more) in patterns.iter().zip(&mut session.patterns).zip(other.patterns) {
        state.merge(pattern, more);
    }
    session.cut |= other.cut;
}
