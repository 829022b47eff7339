//! Expressions: a subset of CEL, checked when the file is read and of bounded cost.
//!
//! Crate `cel` parses; types, cost and evaluation are decided here. A value that is absent makes the result of
//! arithmetic and functions absent, and every comparison and test of it false.

mod aggregates;
mod check;
mod cost;
mod evaluate;
mod parse;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use aggregates::{Accumulator, Addend, Aggregate, Position};
pub(crate) use cost::LIST_MAX;
pub use evaluate::{Env, EvalError};

use crate::fault::Fault;
use crate::section::Placed;
use crate::types::{Kind, Scope, Type};
use crate::value::Value;

/// Longest text of an expression in bytes.
const TEXT_MAX: usize = 4_096;

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Expression {
    /// Its name in errors: the path of its key in the file.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Type of its value.
    pub of: Type,
    node: Node,
}

/// What an expression is made of, with every name resolved.
#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    /// Slot of the row.
    Slot(usize),
    /// Variable of `exists` or `all`: how many such variables stand between.
    Local(usize),
    /// Value of an aggregate.
    Aggregate(usize),
    /// Field of a record by its place.
    Field(Box<Node>, usize),
    /// Member of a JSON object by its name.
    Member(Box<Node>, Arc<str>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Arithmetic(Operator, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Has(Box<Node>),
    Size(Box<Node>),
    Lower(Box<Node>),
    Text(TextTest, Box<Node>, Box<Node>),
    Matches(Box<Node>, regex::Regex),
    /// `exists` where true, else `all`.
    Each(bool, Box<Node>, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl Expression {
    /// Checks an expression against the names that it sees. Aggregates are refused.
    pub(crate) fn check(name: &str, source: &Placed<String>, scope: &Scope) -> Result<Expression, Fault> {
        Self::build(name, source, scope, None)
    }

    /// Checks an expression over aggregates, and adds those to `aggregates`.
    pub(crate) fn check_aggregated(
        name: &str,
        source: &Placed<String>,
        scope: &Scope,
        aggregates: &mut Vec<Aggregate>,
    ) -> Result<Expression, Fault> {
        Self::build(name, source, scope, Some(aggregates))
    }

    fn build(
        name: &str,
        source: &Placed<String>,
        scope: &Scope,
        aggregates: Option<&mut Vec<Aggregate>>,
    ) -> Result<Expression, Fault> {
        if source.value.len() > TEXT_MAX {
            return Err(Fault::new(
                source.span.clone(),
                format!(
                    "expression of {} bytes is longer than {TEXT_MAX}",
                    source.value.len()
                ),
            ));
        }
        let parsed = parse::parse(&source.value).map_err(|problem| problem.at(source))?;
        let mut checker = check::Checker::new(name, scope, &parsed, aggregates);
        let (node, of) = checker
            .check(&parsed.root)
            .map_err(|problem| problem.at(source))?;
        let whole = || source.span.clone();
        cost::bound(&node).map_err(|message| Fault::new(whole(), message))?;
        Ok(Expression {
            name: name.into(),
            text: source.value.as_str().into(),
            of,
            node,
        })
    }

    /// The same expression if its value is of one of `kinds`, or of any JSON type.
    pub(crate) fn of_kind(self, span: &Range<usize>, kinds: &[Kind]) -> Result<Expression, Fault> {
        let fits = self.of.kind == Kind::Json || kinds.contains(&self.of.kind);
        if fits {
            return Ok(self);
        }
        let wanted: Vec<String> = kinds
            .iter()
            .map(|kind| kind.clone().needed().to_string())
            .collect();
        Err(Fault::new(
            span.clone(),
            format!(
                "`{}` is a {}, but {} is needed",
                self.name,
                self.of,
                wanted.join(" or ")
            ),
        ))
    }

    /// The same expression if it is a condition.
    pub(crate) fn condition(self, span: &Range<usize>) -> Result<Expression, Fault> {
        if self.of == Kind::Bool.needed() {
            return Ok(self);
        }
        let hint = match self.of.kind {
            Kind::Bool | Kind::Json => "; write `… == true`",
            _ => "",
        };
        Err(Fault::new(
            span.clone(),
            format!("`{}` is a {}, but a bool is needed{hint}", self.name, self.of),
        ))
    }

    /// Whether it is false for every row, as far as that can be told from its text: it reads nothing, or it wants
    /// one value to equal two literals.
    pub(crate) fn is_never(&self) -> bool {
        let reads = |node: &Node| matches!(node, Node::Slot(_) | Node::Aggregate(_));
        if !self.node.any(&reads) {
            return self.holds(Env::default()) == Ok(false);
        }
        let mut parts = Vec::new();
        self.node.conjuncts(&mut parts);
        let mut wanted: Vec<(String, &Value)> = Vec::new();
        for part in parts {
            let Node::Compare(Comparison::Equal, path, literal) = part else {
                continue;
            };
            let Node::Literal(value) = literal.as_ref() else {
                continue;
            };
            let path = format!("{path:?}");
            if wanted.iter().any(|(other, v)| *other == path && !v.equals(value)) {
                return true;
            }
            wanted.push((path, value));
        }
        false
    }

    /// Whether a row's slot is read.
    pub(crate) fn reads(&self, slot: usize) -> bool {
        self.node.any(&|node| matches!(node, Node::Slot(s) if *s == slot))
    }
}

impl Node {
    /// The parts of this node.
    fn parts(&self) -> Vec<&Node> {
        match self {
            Node::Literal(_) | Node::Slot(_) | Node::Local(_) | Node::Aggregate(_) => Vec::new(),
            Node::Field(of, _)
            | Node::Member(of, _)
            | Node::Not(of)
            | Node::Negate(of)
            | Node::Has(of)
            | Node::Size(of)
            | Node::Lower(of)
            | Node::Matches(of, _) => vec![of],
            Node::And(a, b)
            | Node::Or(a, b)
            | Node::Compare(_, a, b)
            | Node::Arithmetic(_, a, b)
            | Node::In(a, b)
            | Node::Text(_, a, b)
            | Node::Each(_, a, b) => vec![a, b],
            Node::Conditional(parts) => parts.iter().collect(),
            Node::List(parts) => parts.iter().collect(),
        }
    }

    /// The conditions that all have to hold.
    fn conjuncts<'a>(&'a self, found: &mut Vec<&'a Node>) {
        if let Node::And(a, b) = self {
            a.conjuncts(found);
            b.conjuncts(found);
        } else {
            found.push(self);
        }
    }

    fn any(&self, test: &impl Fn(&Node) -> bool) -> bool {
        test(self) || self.parts().into_iter().any(|part| part.any(test))
    }
}
