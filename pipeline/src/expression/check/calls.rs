//! Types of operators, functions and aggregates.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, operators};

use super::super::aggregates::{Aggregate, Function};
use super::super::parse::Problem;
use super::super::{Comparison, Node, Operator, TextTest, Value};
use super::{Checked, Checker, unify};
use crate::fault::unknown;
use crate::section::duration;
use crate::types::{Field, Kind, Type};

/// Functions that are no operators.
const FUNCTIONS: [&str; 6] = ["size", "startsWith", "endsWith", "contains", "matches", "lower"];
/// Largest compiled form of a regular expression in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Most values that `last`, `distinct` and `buckets` keep.
const KEPT_MAX: i64 = 10_000;
/// Values that `distinct` keeps where nothing else is said.
const DISTINCT_KEPT: usize = 1_000;

impl<'a> Checker<'a> {
    pub(super) fn call(&mut self, part: &'a IdedExpr, call: &'a CallExpr) -> Checked {
        let name = call.func_name.as_str();
        if call.target.is_none() && Function::named(name).is_some() {
            return self.aggregate(part, call);
        }
        let operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        if let Some(comparison) = comparison(name)
            && let [a, b] = operands[..]
        {
            return self.compare(part, comparison, a, b);
        }
        if let Some(operator) = arithmetic(name)
            && let [a, b] = operands[..]
        {
            return self.arithmetic(part, operator, a, b);
        }
        match (name, &operands[..]) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, b]) => {
                let (left, right) = (Box::new(self.condition(a)?), Box::new(self.condition(b)?));
                let node = if name == operators::LOGICAL_AND {
                    Node::And(left, right)
                } else {
                    Node::Or(left, right)
                };
                Ok((node, Kind::Bool.needed()))
            }
            (operators::LOGICAL_NOT, [a]) => {
                Ok((Node::Not(Box::new(self.condition(a)?)), Kind::Bool.needed()))
            }
            (operators::CONDITIONAL, [test, a, b]) => self.conditional(part, [test, a, b]),
            (operators::IN, [a, b]) => self.contained(part, a, b),
            (operators::NEGATE, [a]) => {
                let (node, of) = self.check(a)?;
                if !of.kind.is_number() && of.kind != Kind::Duration {
                    return Err(self.problem(part, format!("a {of} has no negative")));
                }
                Ok((Node::Negate(Box::new(node)), of))
            }
            _ => self.function(part, name, &operands),
        }
    }

    fn condition(&mut self, part: &'a IdedExpr) -> Result<Node, Problem> {
        let checked = self.check(part)?;
        self.needs_bool(part, checked)
    }

    fn compare(
        &mut self,
        part: &IdedExpr,
        comparison: Comparison,
        a: &'a IdedExpr,
        b: &'a IdedExpr,
    ) -> Checked {
        let ((left, left_of), (right, right_of)) = (self.check(a)?, self.check(b)?);
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let (x, y) = (&left_of.kind, &right_of.kind);
        let either = |kind: &Kind| x == kind || y == kind;
        let fits = either(&Kind::Json)
            || (either(&Kind::Null) && equality)
            || (x.is_number() && y.is_number() && !either(&Kind::Null))
            || (x == y && (equality || !matches!(x, Kind::List(_) | Kind::Record(_))));
        if !fits {
            return Err(self.problem(part, format!("a {left_of} cannot be compared with a {right_of}")));
        }
        let node = Node::Compare(comparison, Box::new(left), Box::new(right));
        Ok((node, Kind::Bool.needed()))
    }

    fn arithmetic(
        &mut self,
        part: &IdedExpr,
        operator: Operator,
        a: &'a IdedExpr,
        b: &'a IdedExpr,
    ) -> Checked {
        let ((left, x), (right, y)) = (self.check(a)?, self.check(b)?);
        let kind = result(operator, &x.kind, &y.kind).ok_or_else(|| {
            let sign = match operator {
                Operator::Add => "+",
                Operator::Subtract => "-",
                Operator::Multiply => "*",
                Operator::Divide => "/",
                Operator::Remainder => "%",
            };
            self.problem(part, format!("`{sign}` does not take a {x} and a {y}"))
        })?;
        let of = Type {
            kind,
            optional: x.optional || y.optional,
        };
        Ok((Node::Arithmetic(operator, Box::new(left), Box::new(right)), of))
    }

    fn conditional(&mut self, part: &IdedExpr, [test, a, b]: [&'a IdedExpr; 3]) -> Checked {
        let test = self.condition(test)?;
        let ((a, a_of), (b, b_of)) = (self.check(a)?, self.check(b)?);
        let mut of = unify(&a_of, &b_of)
            .ok_or_else(|| self.problem(part, format!("one branch is a {a_of}, the other a {b_of}")))?;
        of.optional = a_of.optional || b_of.optional;
        Ok((Node::Conditional(Box::new([test, a, b])), of))
    }

    fn contained(&mut self, part: &IdedExpr, a: &'a IdedExpr, b: &'a IdedExpr) -> Checked {
        let ((element, x), (list, y)) = (self.check(a)?, self.check(b)?);
        let fits = match &y.kind {
            Kind::List(inner) => unify(&x, inner).is_some(),
            Kind::Json => true,
            _ => false,
        };
        if !fits {
            return Err(self.problem(part, format!("a {x} cannot be `in` a {y}")));
        }
        Ok((Node::In(Box::new(element), Box::new(list)), Kind::Bool.needed()))
    }

    fn function(&mut self, part: &IdedExpr, name: &str, operands: &[&'a IdedExpr]) -> Checked {
        if !FUNCTIONS.contains(&name) {
            let aggregates = Function::NAMES.iter().filter(|_| self.aggregates.is_some());
            let known = FUNCTIONS.iter().chain(aggregates).copied();
            return Err(self.problem(part, unknown("function", name, known)));
        }
        let (Some(of), second) = (operands.first(), operands.get(1)) else {
            return Err(self.problem(part, format!("`{name}` needs a value")));
        };
        let wanted = if matches!(name, "size" | "lower") { 1 } else { 2 };
        if operands.len() != wanted {
            return Err(self.problem(
                part,
                format!("`{name}` takes {wanted} values, not {}", operands.len()),
            ));
        }
        let (node, kind) = self.check(of)?;
        let node = Box::new(node);
        let text = matches!(kind.kind, Kind::String | Kind::Json);
        if !text && !(name == "size" && matches!(kind.kind, Kind::List(_))) {
            return Err(self.problem(part, format!("`{name}` does not take a {kind}")));
        }
        let of_kind = |of: Kind| Type {
            kind: of,
            optional: kind.optional,
        };
        let Some(second) = second else {
            return Ok(match name {
                "size" => (Node::Size(node), of_kind(Kind::Int)),
                _ => (Node::Lower(node), of_kind(Kind::String)),
            });
        };
        if name == "matches" {
            let pattern = self.pattern(second)?;
            return Ok((Node::Matches(node, pattern), Kind::Bool.needed()));
        }
        let (second_node, second_of) = self.check(second)?;
        if !matches!(second_of.kind, Kind::String | Kind::Json) {
            return Err(self.problem(second, format!("`{name}` takes a string here, not a {second_of}")));
        }
        let test = match name {
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            _ => TextTest::Contains,
        };
        Ok((Node::Text(test, node, Box::new(second_node)), Kind::Bool.needed()))
    }

    fn pattern(&mut self, part: &'a IdedExpr) -> Result<regex::Regex, Problem> {
        let (Node::Literal(Value::String(pattern)), _) = self.check(part)? else {
            return Err(self.problem(part, "the pattern of `matches` is written in the file"));
        };
        let built = regex::RegexBuilder::new(&pattern)
            .size_limit(REGEX_BYTES_MAX)
            .build();
        built.map_err(|error| {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or_default().to_owned();
            self.problem(part, format!("`{pattern}` is no regular expression: {last}"))
        })
    }

    fn aggregate(&mut self, part: &'a IdedExpr, call: &'a CallExpr) -> Checked {
        let name = call.func_name.as_str();
        if self.aggregates.is_none() || self.inside_aggregate {
            return Err(self.problem(
                part,
                format!("`{name}` is an aggregate: it stands in `collect` and `fold`, and not inside of another one"),
            ));
        }
        self.inside_aggregate = true;
        let checked = self.aggregate_of(part, name, &call.args);
        self.inside_aggregate = false;
        let (aggregate, of) = checked?;
        let Some(aggregates) = self.aggregates.as_deref_mut() else {
            return Err(self.problem(part, "aggregates are refused here"));
        };
        aggregates.push(aggregate);
        Ok((Node::Aggregate(aggregates.len() - 1), of))
    }

    fn aggregate_of(
        &mut self,
        part: &'a IdedExpr,
        name: &str,
        args: &'a [IdedExpr],
    ) -> Result<(Aggregate, Type), Problem> {
        let mut checked = Vec::with_capacity(args.len());
        for arg in args {
            checked.push(self.check(arg)?);
        }
        let misuse = |usage: &str| self.problem(part, format!("`{name}` is written {usage}"));
        let mut values = checked.into_iter();
        let first = values.next();
        let second = values.next();
        let third = values.next();
        let (function, of, argument, weight) = match (name, first, second, third) {
            ("count", None, None, None) => (Function::Count, Kind::Int.needed(), None, None),
            ("count", Some((node, of)), None, None) if of == Kind::Bool.needed() => {
                (Function::Count, Kind::Int.needed(), Some(node), None)
            }
            ("count", ..) => return Err(misuse("count() or count(condition)")),
            ("sum", Some((node, of)), None, None) if of.kind.is_number() => {
                let kind = if of.kind == Kind::Int {
                    Kind::Int
                } else {
                    Kind::Double
                };
                (Function::Sum, kind.needed(), Some(node), None)
            }
            ("mean", Some((node, of)), None, None) if of.kind.is_number() => {
                let kind = Type {
                    kind: Kind::Double,
                    optional: of.optional,
                };
                (Function::Mean, kind, Some(node), None)
            }
            ("min" | "max", Some((node, of)), None, None)
                if !matches!(of.kind, Kind::List(_) | Kind::Record(_)) =>
            {
                let function = if name == "min" {
                    Function::Min
                } else {
                    Function::Max
                };
                (function, of, Some(node), None)
            }
            ("last", Some((node, of)), None, None) => (Function::Last(1), of, Some(node), None),
            ("last", Some((node, of)), Some((n, _)), None) => {
                let kept = kept(&n).ok_or_else(|| misuse("last(value, number of values)"))?;
                (
                    Function::LastOf(kept),
                    Kind::List(Box::new(of)).needed(),
                    Some(node),
                    None,
                )
            }
            ("distinct", Some((node, _)), None, None) => (
                Function::Distinct(DISTINCT_KEPT),
                Kind::Int.needed(),
                Some(node),
                None,
            ),
            ("distinct", Some((node, _)), Some((n, _)), None) => {
                let kept = kept(&n).ok_or_else(|| misuse("distinct(value, most values)"))?;
                (Function::Distinct(kept), Kind::Int.needed(), Some(node), None)
            }
            ("buckets", Some((node, of)), Some((span, _)), Some((n, _))) if of.kind.is_number() => {
                let usage = || misuse("buckets(value, '1h', number of buckets)");
                let span = span_of(&span).ok_or_else(usage)?;
                let kept = kept(&n).ok_or_else(usage)?;
                let fields = [
                    Field::needed("start", Kind::Timestamp),
                    Field::needed("value", Kind::Double),
                ];
                let of = Kind::List(Box::new(Kind::Record(fields.into()).needed())).needed();
                (Function::Buckets { span, kept }, of, Some(node), None)
            }
            ("decayed_sum", Some((node, of)), Some((half, _)), None) if of.kind.is_number() => {
                let half = span_of(&half).ok_or_else(|| misuse("decayed_sum(value, '7d')"))?;
                (
                    Function::DecayedSum { half },
                    Kind::Double.needed(),
                    Some(node),
                    None,
                )
            }
            ("decayed_mean", Some((node, of)), Some((half, _)), weight) if of.kind.is_number() => {
                let usage = || misuse("decayed_mean(value, '24h') or decayed_mean(value, '24h', weight)");
                let half = span_of(&half).ok_or_else(usage)?;
                let weight = match weight {
                    Some((node, of)) if of.kind.is_number() => Some(node),
                    Some(_) => return Err(usage()),
                    None => None,
                };
                (
                    Function::DecayedMean { half },
                    Kind::Double.optional(),
                    Some(node),
                    weight,
                )
            }
            _ => return Err(misuse(Function::usage(name))),
        };
        if args.len() > 3 {
            return Err(misuse(Function::usage(name)));
        }
        Ok((
            Aggregate {
                function,
                argument,
                weight,
                name: self.name.into(),
            },
            of,
        ))
    }
}

fn kept(node: &Node) -> Option<usize> {
    match node {
        Node::Literal(Value::Int(n)) if (1..=KEPT_MAX).contains(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

fn span_of(node: &Node) -> Option<i64> {
    match node {
        Node::Literal(Value::String(text)) => duration(text).filter(|ms| *ms > 0),
        _ => None,
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Remainder,
        _ => return None,
    })
}

/// Kind of the result of an operator.
fn result(operator: Operator, a: &Kind, b: &Kind) -> Option<Kind> {
    use Kind::{Double, Duration, Int, Json, String, Timestamp};
    Some(match (operator, a, b) {
        (Operator::Add, String, String) => String,
        (Operator::Add, Timestamp, Duration)
        | (Operator::Add, Duration, Timestamp)
        | (Operator::Subtract, Timestamp, Duration) => Timestamp,
        (Operator::Subtract, Timestamp, Timestamp)
        | (Operator::Add | Operator::Subtract, Duration, Duration) => Duration,
        (_, Int, Int) => Int,
        (Operator::Remainder, ..) => return None,
        (_, Json, Int | Double | Json) | (_, Int | Double, Json) => Json,
        (_, Double, Int | Double) | (_, Int, Double) => Double,
        _ => return None,
    })
}
