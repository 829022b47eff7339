//! Evaluation over a row. It cannot panic, and its steps are bounded when the file is read.

use std::borrow::Cow;
use std::sync::Arc;

use super::cost::LIST_MAX;
use super::{Comparison, Expression, Node, Operator, TextTest, Value};

/// Values that an expression reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Env<'a> {
    /// Slots of the row.
    pub row: &'a [Value],
    /// Values of the aggregates.
    pub aggregates: &'a [Value],
    local: Option<&'a Local<'a>>,
}

/// Variable of `exists` or `all`.
#[derive(Debug)]
struct Local<'a> {
    value: &'a Value,
    outer: Option<&'a Local<'a>>,
}

/// Reason why an expression has no value for a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}`: {message}")]
pub struct EvalError {
    /// Name of the expression.
    pub expression: Arc<str>,
    /// The reason.
    pub message: String,
}

impl EvalError {
    pub(super) fn new(expression: &Arc<str>, message: impl Into<String>) -> EvalError {
        EvalError {
            expression: Arc::clone(expression),
            message: message.into(),
        }
    }
}

/// Error of a part, which does not know the name of its expression.
#[derive(Debug)]
pub(super) struct Trouble(String);

impl Trouble {
    pub(super) fn of(self, expression: &Arc<str>) -> EvalError {
        EvalError::new(expression, self.0)
    }
}

type Evaluated<'a> = Result<Cow<'a, Value>, Trouble>;

impl<'a> Env<'a> {
    /// An environment of a row.
    pub fn row(row: &'a [Value]) -> Env<'a> {
        Env {
            row,
            aggregates: &[],
            local: None,
        }
    }

    /// An environment of aggregates alone.
    pub fn aggregates(aggregates: &'a [Value]) -> Env<'a> {
        Env {
            aggregates,
            ..Env::default()
        }
    }

    fn local(&self, distance: usize) -> Option<&'a Value> {
        let mut local = self.local?;
        for _ in 0..distance {
            local = local.outer?;
        }
        Some(local.value)
    }
}

impl Expression {
    /// The value for a row.
    pub fn value<'a>(&'a self, env: Env<'a>) -> Result<Cow<'a, Value>, EvalError> {
        self.node.value(env).map_err(|trouble| trouble.of(&self.name))
    }

    /// Whether a row meets the condition.
    pub fn holds(&self, env: Env<'_>) -> Result<bool, EvalError> {
        self.node.holds(env).map_err(|trouble| trouble.of(&self.name))
    }
}

fn bool_value<'a>(value: bool) -> Cow<'a, Value> {
    Cow::Owned(Value::Bool(value))
}

impl Node {
    pub(super) fn value<'a>(&'a self, env: Env<'a>) -> Evaluated<'a> {
        const NULL: &Value = &Value::Null;
        Ok(match self {
            Node::Literal(value) => Cow::Borrowed(value),
            Node::Slot(slot) => Cow::Borrowed(env.row.get(*slot).unwrap_or(NULL)),
            Node::Aggregate(index) => Cow::Borrowed(env.aggregates.get(*index).unwrap_or(NULL)),
            Node::Local(distance) => Cow::Borrowed(env.local(*distance).unwrap_or(NULL)),
            Node::Field(of, place) => field(of.value(env)?, *place),
            Node::Member(of, name) => Cow::Owned(member(&*of.value(env)?, name)),
            Node::Negate(of) => Cow::Owned(negate(&*of.value(env)?)?),
            Node::Conditional(parts) => {
                let [test, yes, no] = parts.as_ref();
                return if test.holds(env)? {
                    yes.value(env)
                } else {
                    no.value(env)
                };
            }
            Node::Arithmetic(operator, a, b) => {
                Cow::Owned(arithmetic(*operator, &*a.value(env)?, &*b.value(env)?)?)
            }
            Node::List(parts) => {
                let values: Result<Vec<Value>, Trouble> = parts
                    .iter()
                    .map(|part| part.value(env).map(Cow::into_owned))
                    .collect();
                Cow::Owned(Value::List(values?.into()))
            }
            Node::Size(of) => Cow::Owned(size(&*of.value(env)?)?),
            Node::Lower(of) => Cow::Owned(match &*of.value(env)? {
                Value::String(text) => Value::String(text.to_lowercase().into()),
                other => absent_or("string", other)?,
            }),
            Node::Not(_)
            | Node::And(..)
            | Node::Or(..)
            | Node::Compare(..)
            | Node::In(..)
            | Node::Has(_)
            | Node::Text(..)
            | Node::Matches(..)
            | Node::Each(..) => bool_value(self.holds(env)?),
        })
    }

    /// The value of a condition. As in CEL, one side of `&&` and `||` may settle it although the other has an
    /// error.
    fn holds(&self, env: Env<'_>) -> Result<bool, Trouble> {
        match self {
            Node::Not(of) => of.holds(env).map(|b| !b),
            Node::And(a, b) => either(a.holds(env), false, || b.holds(env)),
            Node::Or(a, b) => either(a.holds(env), true, || b.holds(env)),
            Node::Compare(comparison, a, b) => Ok(compare(*comparison, &*a.value(env)?, &*b.value(env)?)),
            Node::In(a, b) => {
                let element = a.value(env)?;
                match &*b.value(env)? {
                    Value::List(list) => Ok(list.iter().any(|value| value.equals(&element))),
                    Value::Object(map) => Ok(match &*element {
                        Value::String(name) => map.contains_key(name.as_ref()),
                        _ => false,
                    }),
                    other => absent_or("list", other).map(|_| false),
                }
            }
            Node::Has(of) => Ok(!of.value(env)?.is_null()),
            Node::Text(test, a, b) => match (&*a.value(env)?, &*b.value(env)?) {
                (Value::String(text), Value::String(part)) => Ok(match test {
                    TextTest::StartsWith => text.starts_with(part.as_ref()),
                    TextTest::EndsWith => text.ends_with(part.as_ref()),
                    TextTest::Contains => text.contains(part.as_ref()),
                }),
                (Value::String(_), other) | (other, _) => absent_or("string", other).map(|_| false),
            },
            Node::Matches(of, pattern) => match &*of.value(env)? {
                Value::String(text) => Ok(pattern.is_match(text)),
                other => absent_or("string", other).map(|_| false),
            },
            Node::Each(some, list, body) => each(*some, &*list.value(env)?, body, env),
            _ => match &*self.value(env)? {
                Value::Bool(b) => Ok(*b),
                other => absent_or("bool", other).map(|_| false),
            },
        }
    }
}

/// Null stays null; any other value has the wrong kind.
fn absent_or(wanted: &str, value: &Value) -> Result<Value, Trouble> {
    match value {
        Value::Null => Ok(Value::Null),
        other => Err(Trouble(format!(
            "a {} stands where a {wanted} is needed",
            other.kind()
        ))),
    }
}

/// The logic of `&&` and `||`: `settles` on either side decides, an error on the other side included.
fn either(
    left: Result<bool, Trouble>,
    settles: bool,
    right: impl FnOnce() -> Result<bool, Trouble>,
) -> Result<bool, Trouble> {
    match left {
        Ok(value) if value == settles => Ok(settles),
        Ok(_) => right(),
        Err(trouble) => match right() {
            Ok(value) if value == settles => Ok(settles),
            _ => Err(trouble),
        },
    }
}

fn each(some: bool, list: &Value, body: &Node, env: Env<'_>) -> Result<bool, Trouble> {
    let Value::List(list) = list else {
        return absent_or("list", list).map(|_| !some);
    };
    if list.len() > LIST_MAX {
        return Err(Trouble(format!(
            "a list has {} elements, more than {LIST_MAX}",
            list.len()
        )));
    }
    let mut trouble = None;
    for value in list.iter() {
        let local = Local {
            value,
            outer: env.local,
        };
        let inner = Env {
            local: Some(&local),
            ..env
        };
        match body.holds(inner) {
            Ok(holds) if holds == some => return Ok(some),
            Ok(_) => {}
            Err(found) => trouble = Some(found),
        }
    }
    trouble.map_or(Ok(!some), Err)
}

fn field(of: Cow<'_, Value>, place: usize) -> Cow<'_, Value> {
    match of {
        Cow::Borrowed(Value::Record(values)) => {
            values.get(place).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
        }
        Cow::Owned(Value::Record(values)) => Cow::Owned(values.get(place).cloned().unwrap_or(Value::Null)),
        _ => Cow::Owned(Value::Null),
    }
}

fn member(of: &Value, name: &str) -> Value {
    match of {
        Value::Object(map) => map.get(name).map_or(Value::Null, Value::from_json),
        _ => Value::Null,
    }
}

fn size(of: &Value) -> Result<Value, Trouble> {
    Ok(match of {
        Value::String(text) => Value::Int(text.chars().count() as i64),
        Value::List(list) => Value::Int(list.len() as i64),
        Value::Object(map) => Value::Int(map.len() as i64),
        other => absent_or("string or list", other)?,
    })
}

fn compare(comparison: Comparison, a: &Value, b: &Value) -> bool {
    match comparison {
        Comparison::Equal => a.equals(b),
        Comparison::NotEqual => !a.equals(b),
        Comparison::Less => a.order(b).is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => a.order(b).is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => a.order(b).is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => a.order(b).is_some_and(std::cmp::Ordering::is_ge),
    }
}

fn negate(of: &Value) -> Result<Value, Trouble> {
    let overflow = || Trouble("the result leaves the range of whole numbers".to_owned());
    Ok(match of {
        Value::Int(n) => Value::Int(n.checked_neg().ok_or_else(overflow)?),
        Value::Duration(n) => Value::Duration(n.checked_neg().ok_or_else(overflow)?),
        Value::Double(n) => Value::Double(-n),
        other => absent_or("number", other)?,
    })
}

fn arithmetic(operator: Operator, a: &Value, b: &Value) -> Result<Value, Trouble> {
    use Value::{Duration, Int, Null, String, Timestamp};
    Ok(match (a, b) {
        (Null, _) | (_, Null) => Null,
        (Int(x), Int(y)) => Int(whole(operator, *x, *y)?),
        (String(x), String(y)) if operator == Operator::Add => String(format!("{x}{y}").into()),
        (Timestamp(x), Timestamp(y)) if operator == Operator::Subtract => Duration(whole(operator, *x, *y)?),
        (Timestamp(x), Duration(y)) | (Duration(x), Timestamp(y)) => Timestamp(whole(operator, *x, *y)?),
        (Duration(x), Duration(y)) => Duration(whole(operator, *x, *y)?),
        _ => match (a.number(), b.number()) {
            (Some(x), Some(y)) => Value::Double(floating(operator, x, y)),
            _ => {
                let message = format!("a {} and a {} cannot be computed with", a.kind(), b.kind());
                return Err(Trouble(message));
            }
        },
    })
}

fn whole(operator: Operator, x: i64, y: i64) -> Result<i64, Trouble> {
    if y == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
        return Err(Trouble(format!("{x} is divided by zero")));
    }
    let result = match operator {
        Operator::Add => x.checked_add(y),
        Operator::Subtract => x.checked_sub(y),
        Operator::Multiply => x.checked_mul(y),
        Operator::Divide => x.checked_div(y),
        Operator::Remainder => x.checked_rem(y),
    };
    result.ok_or_else(|| Trouble("the result leaves the range of whole numbers".to_owned()))
}

fn floating(operator: Operator, x: f64, y: f64) -> f64 {
    match operator {
        Operator::Add => x + y,
        Operator::Subtract => x - y,
        Operator::Multiply => x * y,
        Operator::Divide => x / y,
        Operator::Remainder => x % y,
    }
}
