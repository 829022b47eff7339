//! `session`: records of one key whose times are close, and aggregates over them.

use super::super::order::Draft;
use super::extended;
use crate::expression::{Aggregate, Expression};
use crate::fault::Fault;
use crate::section::{Section, text};
use crate::types::{Field, Kind, Scope};

/// One day in milliseconds.
const DAY: i64 = 86_400_000;
/// Bound of a step's state where the file says nothing.
const STATE_BYTES_DEFAULT: i64 = 256 << 20;

/// Sessions of a key.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Longest time between two neighbours of one session.
    pub gap: i64,
    /// Longest time from the first to the last record.
    pub length_max: i64,
    /// Time by which a record may be behind its partition's watermark.
    pub lateness: i64,
    /// Fate of a record that is behind by more.
    pub late: WhenLate,
    /// Whether a closed session is a record of its own.
    pub emits: bool,
    /// Most bytes of state.
    pub state_bytes_max: usize,
    /// Aggregates that the fields are made of.
    pub aggregates: Vec<Aggregate>,
    /// Fields of the session's record after [`SessionSpec::OWN`].
    pub collect: Vec<Expression>,
}

/// Fate of a late record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLate {
    /// It is a dead letter.
    DeadLetter,
    /// It is counted and dropped.
    Drop,
}

impl SessionSpec {
    /// Fields that every session has.
    pub const OWN: [&'static str; 5] = ["start", "end", "key", "cut", "pattern_overflow"];
}

pub(super) fn read(
    draft: &Draft<'_>,
    inner: &Section<'_>,
    scope: &Scope,
) -> Result<(SessionSpec, Scope), Fault> {
    let gap = inner
        .time("gap", 1..=30 * DAY)?
        .ok_or_else(|| inner.missing("gap"))?;
    let length_max = inner.time("length_max", 1..=365 * DAY)?.unwrap_or(DAY);
    if length_max < gap {
        return Err(inner.fault(format!("`{}` is shorter than `gap`", inner.at("length_max"))));
    }
    let lateness = inner.time("lateness", 0..=30 * DAY)?.unwrap_or(0);
    let words = [("dead_letter", WhenLate::DeadLetter), ("drop", WhenLate::Drop)];
    let late = inner.word("late", &words, WhenLate::DeadLetter)?;
    let state_bytes_max = inner.number("state_bytes_max", 1 << 16..=1 << 40, STATE_BYTES_DEFAULT)?;
    inner.finish(&[])?;
    let outer = &draft.section;
    let emits = outer.word("emit", &[("close", true), ("never", false)], true)?;

    let mut aggregates = Vec::new();
    let mut collect = Vec::new();
    let mut fields: Vec<Field> = SessionSpec::OWN
        .into_iter()
        .zip([
            Kind::Timestamp,
            Kind::Timestamp,
            Kind::String,
            Kind::Bool,
            Kind::Bool,
        ])
        .map(|(name, kind)| Field::needed(name, kind))
        .collect();
    if let Some(section) = outer.section("collect")? {
        for (name, value) in section.entries() {
            if SessionSpec::OWN.contains(&name.value) {
                let message = format!("every session has a field `{}` of its own", name.value);
                return Err(Fault::new(name.span, message));
            }
            let path = section.at(name.value);
            let source = text(&path, value)?;
            let checked = Expression::check_aggregated(&path, &source, scope, &mut aggregates)?;
            fields.push(Field {
                name: name.value.to_owned(),
                of: checked.of.clone(),
            });
            collect.push(checked);
        }
    }
    let of = Kind::Record(fields.into()).needed();
    // A closed session has no single event, so its record is the session alone.
    let events = if emits { &Scope::default() } else { scope };
    let scope = extended(events, &draft.name, of, draft.span.clone())?;
    let spec = SessionSpec {
        gap,
        length_max,
        lateness,
        late,
        emits,
        state_bytes_max: usize::try_from(state_bytes_max).unwrap_or(usize::MAX),
        aggregates,
        collect,
    };
    Ok((spec, scope))
}
