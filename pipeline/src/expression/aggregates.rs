//! Aggregates over the records of a session or a key. Each skips null, and two halves can be merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Env, EvalError, Node, Value};

/// Order of records of one time: source, partition, offset.
pub type Position = (usize, i32, i64);

/// An aggregate as a file writes it.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub(super) function: Function,
    pub(super) argument: Option<Node>,
    pub(super) weight: Option<Node>,
    /// Name of its expression.
    pub(super) name: Arc<str>,
}

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Last(usize),
    LastOf(usize),
    Distinct(usize),
    Buckets { span: i64, kept: usize },
    DecayedSum { half: i64 },
    DecayedMean { half: i64 },
}

impl Function {
    pub(super) const NAMES: [&str; 10] = [
        "count",
        "sum",
        "min",
        "max",
        "mean",
        "last",
        "distinct",
        "buckets",
        "decayed_sum",
        "decayed_mean",
    ];

    pub(super) fn named(name: &str) -> Option<&'static str> {
        Self::NAMES.into_iter().find(|known| *known == name)
    }

    /// The way in which it is written.
    pub(super) fn usage(name: &str) -> &'static str {
        match name {
            "sum" => "sum(number)",
            "mean" => "mean(number)",
            "min" => "min(value)",
            "max" => "max(value)",
            "last" => "last(value) or last(value, number of values)",
            "distinct" => "distinct(value) or distinct(value, most values)",
            "buckets" => "buckets(number, '1h', number of buckets)",
            "decayed_sum" => "decayed_sum(number, '7d')",
            "decayed_mean" => "decayed_mean(number, '24h') or decayed_mean(number, '24h', weight)",
            _ => "count() or count(condition)",
        }
    }
}

/// Value that a record adds to an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Addend {
    value: Value,
    weight: f64,
}

/// State of one aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Accumulator {
    /// Number of records.
    Count(i64),
    /// Sum of whole numbers.
    Whole(i64),
    /// Sum and number of floating-point numbers.
    Sum(f64, u64),
    /// Smallest or largest value.
    Extreme(Value),
    /// The newest values by time and position.
    Last(Vec<(i64, Position, Value)>),
    /// Different values, as text.
    Distinct(BTreeMap<String, ()>),
    /// Sums by the number of their span.
    Buckets(BTreeMap<i64, f64>),
    /// Decayed sums of values and weights, as of a time.
    Decayed(f64, f64, i64),
}

impl Aggregate {
    /// State before the first record.
    pub fn start(&self) -> Accumulator {
        match self.function {
            Function::Count => Accumulator::Count(0),
            Function::Sum => Accumulator::Whole(0),
            Function::Mean => Accumulator::Sum(0.0, 0),
            Function::Min | Function::Max => Accumulator::Extreme(Value::Null),
            Function::Last(_) | Function::LastOf(_) => Accumulator::Last(Vec::new()),
            Function::Distinct(_) => Accumulator::Distinct(BTreeMap::new()),
            Function::Buckets { .. } => Accumulator::Buckets(BTreeMap::new()),
            Function::DecayedSum { .. } | Function::DecayedMean { .. } => {
                Accumulator::Decayed(0.0, 0.0, i64::MIN)
            }
        }
    }

    /// Value that a record adds, or `None` if it adds nothing. No state changes before every value is there.
    pub fn addend(&self, env: Env<'_>) -> Result<Option<Addend>, EvalError> {
        let value = self
            .part(self.argument.as_ref(), env)?
            .unwrap_or(Value::Bool(true));
        let weight = self
            .part(self.weight.as_ref(), env)?
            .unwrap_or(Value::Double(1.0));
        if value.is_null() || weight.is_null() {
            return Ok(None);
        }
        let no_number =
            |value: &Value| EvalError::new(&self.name, format!("a {} is no number", value.kind()));
        let weight = weight.number().ok_or_else(|| no_number(&weight))?;
        if self.needs_number() && value.number().is_none() {
            return Err(no_number(&value));
        }
        Ok(Some(Addend { value, weight }))
    }

    fn part(&self, node: Option<&Node>, env: Env<'_>) -> Result<Option<Value>, EvalError> {
        let value = node.map(|node| node.value(env).map(std::borrow::Cow::into_owned));
        value.transpose().map_err(|trouble| trouble.of(&self.name))
    }

    fn needs_number(&self) -> bool {
        match self.function {
            Function::Sum
            | Function::Mean
            | Function::Buckets { .. }
            | Function::DecayedSum { .. }
            | Function::DecayedMean { .. } => true,
            Function::Count
            | Function::Min
            | Function::Max
            | Function::Last(_)
            | Function::LastOf(_)
            | Function::Distinct(_) => false,
        }
    }

    /// Adds a record's value. A sum of whole numbers stays at the end of their range.
    pub fn add(&self, state: &mut Accumulator, addend: Addend, time: i64, position: Position) {
        let Addend { value, weight } = addend;
        let number = value.number().unwrap_or_default();
        match state {
            Accumulator::Count(n) => *n += i64::from(value == Value::Bool(true)),
            Accumulator::Whole(n) => match value {
                Value::Int(more) => *n = n.saturating_add(more),
                _ => *state = Accumulator::Sum(*n as f64 + number, 1),
            },
            Accumulator::Sum(sum, count) => {
                *sum += number;
                *count += 1;
            }
            Accumulator::Extreme(kept) => {
                if kept.is_null() || self.beats(&value, kept) {
                    *kept = value;
                }
            }
            Accumulator::Last(kept) => {
                kept.push((time, position, value));
                self.trim_last(kept);
            }
            Accumulator::Distinct(kept) => {
                kept.insert(format!("{value:?}"), ());
                self.trim_distinct(kept);
            }
            Accumulator::Buckets(sums) => {
                if let Function::Buckets { span, kept } = self.function {
                    *sums.entry(time.div_euclid(span)).or_default() += number;
                    trim_buckets(sums, kept);
                }
            }
            Accumulator::Decayed(sum, weights, at) => {
                let (left, right) = self.decay(*at, time);
                *sum = *sum * left + number * weight * right;
                *weights = *weights * left + weight * right;
                *at = time.max(*at);
            }
        }
    }

    /// Adds what another state has seen.
    pub fn merge(&self, state: &mut Accumulator, other: Accumulator) {
        match (state, other) {
            (Accumulator::Count(a), Accumulator::Count(b)) => *a += b,
            (Accumulator::Whole(a), Accumulator::Whole(b)) => *a = a.saturating_add(b),
            (Accumulator::Sum(a, n), Accumulator::Sum(b, m)) => {
                *a += b;
                *n += m;
            }
            (state @ Accumulator::Whole(_), Accumulator::Sum(b, m)) => {
                if let Accumulator::Whole(a) = state {
                    *state = Accumulator::Sum(*a as f64 + b, m);
                }
            }
            (Accumulator::Sum(a, _), Accumulator::Whole(b)) => *a += b as f64,
            (Accumulator::Extreme(a), Accumulator::Extreme(b)) => {
                if !b.is_null() && (a.is_null() || self.beats(&b, a)) {
                    *a = b;
                }
            }
            (Accumulator::Last(a), Accumulator::Last(b)) => {
                a.extend(b);
                self.trim_last(a);
            }
            (Accumulator::Distinct(a), Accumulator::Distinct(b)) => {
                a.extend(b);
                self.trim_distinct(a);
            }
            (Accumulator::Buckets(a), Accumulator::Buckets(b)) => {
                for (bucket, sum) in b {
                    *a.entry(bucket).or_default() += sum;
                }
                if let Function::Buckets { kept, .. } = self.function {
                    trim_buckets(a, kept);
                }
            }
            (Accumulator::Decayed(sum, weights, at), Accumulator::Decayed(s, w, t)) => {
                let (left, right) = self.decay(*at, t);
                *sum = *sum * left + s * right;
                *weights = *weights * left + w * right;
                *at = t.max(*at);
            }
            // Both are states of this aggregate, so their kinds agree.
            _ => {}
        }
    }

    /// The value so far.
    pub fn value(&self, state: &Accumulator) -> Value {
        match state {
            Accumulator::Count(n) | Accumulator::Whole(n) => Value::Int(*n),
            Accumulator::Sum(sum, count) => match (self.function, count) {
                (Function::Mean, 0) => Value::Null,
                (Function::Mean, count) => Value::Double(sum / *count as f64),
                _ => Value::Double(*sum),
            },
            Accumulator::Extreme(value) => value.clone(),
            Accumulator::Last(kept) => match self.function {
                Function::LastOf(_) => Value::List(kept.iter().rev().map(|(_, _, v)| v.clone()).collect()),
                _ => kept.last().map_or(Value::Null, |(_, _, v)| v.clone()),
            },
            Accumulator::Distinct(kept) => Value::Int(kept.len() as i64),
            Accumulator::Buckets(sums) => {
                let Function::Buckets { span, .. } = self.function else {
                    return Value::Null;
                };
                let row = |(n, sum): (&i64, &f64)| {
                    Value::Record([Value::Timestamp(n.saturating_mul(span)), Value::Double(*sum)].into())
                };
                Value::List(sums.iter().map(row).collect())
            }
            Accumulator::Decayed(sum, weights, _) => match self.function {
                Function::DecayedMean { .. } if *weights == 0.0 => Value::Null,
                Function::DecayedMean { .. } => Value::Double(sum / weights),
                _ => Value::Double(*sum),
            },
        }
    }

    fn beats(&self, value: &Value, kept: &Value) -> bool {
        let wanted = match self.function {
            Function::Min => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        value.order(kept) == Some(wanted)
    }

    fn trim_last(&self, kept: &mut Vec<(i64, Position, Value)>) {
        let (Function::Last(most) | Function::LastOf(most)) = self.function else {
            return;
        };
        kept.sort_by_key(|(time, position, _)| (*time, *position));
        kept.drain(..kept.len().saturating_sub(most));
    }

    fn trim_distinct(&self, kept: &mut BTreeMap<String, ()>) {
        if let Function::Distinct(most) = self.function {
            while kept.len() > most {
                kept.pop_last();
            }
        }
    }

    /// Factors for the older state and for what is added, which bring both to the later time.
    fn decay(&self, at: i64, time: i64) -> (f64, f64) {
        let (Function::DecayedSum { half } | Function::DecayedMean { half }) = self.function else {
            return (1.0, 1.0);
        };
        let factor = |from: i64, to: i64| (-(to.saturating_sub(from) as f64) / half as f64).exp2();
        if time >= at {
            (factor(at, time), 1.0)
        } else {
            (1.0, factor(time, at))
        }
    }
}

/// Forgets the oldest spans.
fn trim_buckets(sums: &mut BTreeMap<i64, f64>, kept: usize) {
    while sums.len() > kept {
        sums.pop_first();
    }
}

impl Accumulator {
    /// Bytes that it takes beside its own place.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Accumulator::Count(_)
            | Accumulator::Whole(_)
            | Accumulator::Sum(..)
            | Accumulator::Decayed(..) => 0,
            Accumulator::Extreme(value) => value.heap_bytes(),
            Accumulator::Last(kept) => kept.iter().map(|(_, _, v)| 48 + v.heap_bytes()).sum(),
            Accumulator::Distinct(kept) => kept.keys().map(|text| 48 + text.len()).sum(),
            Accumulator::Buckets(sums) => sums.len() * 32,
        }
    }
}
