//! Types of an expression's parts, and their resolution to slots and fields.

mod calls;

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators};

use super::aggregates::Aggregate;
use super::parse::{Parsed, Problem};
use super::{Node, Value};
use crate::fault::unknown;
use crate::types::{Kind, Scope, Type};

/// Deepest tree. Chains of operators are trees as well.
const LEVELS_MAX: usize = 128;

type Checked = Result<(Node, Type), Problem>;

/// Checks one expression.
pub(super) struct Checker<'a> {
    name: &'a str,
    scope: &'a Scope,
    parsed: &'a Parsed,
    /// Aggregates found so far; `None` where they are refused.
    aggregates: Option<&'a mut Vec<Aggregate>>,
    inside_aggregate: bool,
    /// Variables of `exists` and `all`, the innermost last.
    locals: Vec<(&'a str, Type)>,
    level: usize,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        name: &'a str,
        scope: &'a Scope,
        parsed: &'a Parsed,
        aggregates: Option<&'a mut Vec<Aggregate>>,
    ) -> Checker<'a> {
        Checker {
            name,
            scope,
            parsed,
            aggregates,
            inside_aggregate: false,
            locals: Vec::new(),
            level: 0,
        }
    }

    pub(super) fn check(&mut self, part: &'a IdedExpr) -> Checked {
        if self.level >= LEVELS_MAX {
            return Err(self.problem(part, format!("expression has more than {LEVELS_MAX} levels")));
        }
        self.level += 1;
        let checked = self.check_part(part);
        self.level -= 1;
        checked
    }

    fn check_part(&mut self, part: &'a IdedExpr) -> Checked {
        match &part.expr {
            Expr::Literal(literal) => literal_of(literal)
                .ok_or_else(|| self.problem(part, "bytes and unsigned numbers are not supported")),
            Expr::Ident(name) => self.name(part, name),
            Expr::Select(select) => self.select(part, select),
            Expr::Call(call) => self.call(part, call),
            Expr::List(list) => {
                let mut nodes = Vec::with_capacity(list.elements.len());
                let mut of = Kind::Null.optional();
                for element in &list.elements {
                    let (node, kind) = self.check(element)?;
                    of = unify(&of, &kind)
                        .ok_or_else(|| self.problem(element, format!("list of {of} also has a {kind}")))?;
                    nodes.push(node);
                }
                Ok((constant_list(nodes), Kind::List(Box::new(of)).needed()))
            }
            Expr::Comprehension(each) => self.each(part, each),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.problem(part, "maps and messages are not supported"))
            }
        }
    }

    fn problem(&self, part: &IdedExpr, message: impl Into<String>) -> Problem {
        Problem {
            at: self.parsed.place(part),
            message: format!("`{}`: {}", self.name, message.into()),
        }
    }

    fn name(&self, part: &IdedExpr, name: &str) -> Checked {
        let local = self.locals.iter().rev().position(|(local, _)| *local == name);
        if let Some(distance) = local {
            let of = self.locals[self.locals.len() - 1 - distance].1.clone();
            return Ok((Node::Local(distance), of));
        }
        if let Some((slot, of)) = self.scope.slot(name) {
            if self.aggregates.is_some() && !self.inside_aggregate {
                return Err(self.problem(
                    part,
                    format!("`{name}` stands outside of an aggregate; write for example last({name}…)"),
                ));
            }
            return Ok((Node::Slot(slot), of.clone()));
        }
        let locals = self.locals.iter().map(|(local, _)| *local);
        let known = self.scope.slots().iter().map(|field| field.name.as_str());
        Err(self.problem(part, unknown("name", name, known.chain(locals))))
    }

    fn select(&mut self, part: &'a IdedExpr, select: &'a SelectExpr) -> Checked {
        let (operand, of) = self.check(&select.operand)?;
        let field = select.field.as_str();
        let (node, found) = match &of.kind {
            Kind::Record(fields) => {
                let Some(place) = fields.iter().position(|f| f.name == field) else {
                    let known = fields.iter().map(|f| f.name.as_str());
                    return Err(self.problem(part, unknown("field", field, known)));
                };
                let mut found = fields[place].of.clone();
                found.optional |= of.optional;
                (Node::Field(Box::new(operand), place), found)
            }
            Kind::Json => (
                Node::Member(Box::new(operand), field.into()),
                Kind::Json.optional(),
            ),
            _ => return Err(self.problem(part, format!("a {of} has no field `{field}`"))),
        };
        if select.test {
            return Ok((Node::Has(Box::new(node)), Kind::Bool.needed()));
        }
        Ok((node, found))
    }

    /// `exists` and `all`, which the parser has written out as loops.
    fn each(&mut self, part: &'a IdedExpr, each: &'a ComprehensionExpr) -> Checked {
        let step = |name| match &each.loop_step.expr {
            Expr::Call(call) if call.func_name == name => call.args.get(1),
            _ => None,
        };
        let (some, body) = match &each.accu_init.expr {
            Expr::Literal(LiteralValue::Boolean(start)) if *start.inner() => {
                (false, step(operators::LOGICAL_AND))
            }
            Expr::Literal(LiteralValue::Boolean(_)) => (true, step(operators::LOGICAL_OR)),
            _ => (true, None),
        };
        let body = body.filter(|_| each.iter_var2.is_none());
        let Some(body) = body else {
            return Err(self.problem(
                part,
                "of the loops only `exists` and `all` with one variable are supported",
            ));
        };
        let (list, of) = self.check(&each.iter_range)?;
        let element = match of.kind {
            Kind::List(inner) => *inner,
            Kind::Json => Kind::Json.optional(),
            _ => return Err(self.problem(&each.iter_range, format!("a {of} is no list"))),
        };
        self.locals.push((each.iter_var.as_str(), element));
        let checked = self.check(body);
        self.locals.pop();
        let body = self.needs_bool(body, checked?)?;
        Ok((
            Node::Each(some, Box::new(list), Box::new(body)),
            Kind::Bool.needed(),
        ))
    }

    /// The node, if it is a condition.
    fn needs_bool(&self, part: &IdedExpr, (node, of): (Node, Type)) -> Result<Node, Problem> {
        if of == Kind::Bool.needed() {
            return Ok(node);
        }
        let hint = match of.kind {
            Kind::Bool | Kind::Json => "; write `… == true`",
            _ => "",
        };
        Err(self.problem(part, format!("a bool is needed here, not a {of}{hint}")))
    }
}

fn literal_of(literal: &LiteralValue) -> Option<(Node, Type)> {
    let (value, of) = match literal {
        LiteralValue::Boolean(b) => (Value::Bool(*b.inner()), Kind::Bool.needed()),
        LiteralValue::Int(n) => (Value::Int(*n.inner()), Kind::Int.needed()),
        LiteralValue::Double(n) => (Value::Double(*n.inner()), Kind::Double.needed()),
        LiteralValue::String(s) => (Value::String(s.inner().into()), Kind::String.needed()),
        LiteralValue::Null => (Value::Null, Kind::Null.optional()),
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => return None,
    };
    Some((Node::Literal(value), of))
}

/// A list of literals is one literal.
fn constant_list(nodes: Vec<Node>) -> Node {
    let literals: Option<Vec<Value>> = nodes
        .iter()
        .map(|node| match node {
            Node::Literal(value) => Some(value.clone()),
            _ => None,
        })
        .collect();
    literals.map_or(Node::List(nodes), |values| {
        Node::Literal(Value::List(values.into()))
    })
}

/// The type that holds values of both.
fn unify(a: &Type, b: &Type) -> Option<Type> {
    let kind = match (&a.kind, &b.kind) {
        (a, b) if a == b => a.clone(),
        (Kind::Null, other) | (other, Kind::Null) => other.clone(),
        (Kind::Json, _) | (_, Kind::Json) => Kind::Json,
        (Kind::Int, Kind::Double) | (Kind::Double, Kind::Int) => Kind::Double,
        _ => return None,
    };
    // An empty list begins with `null?`, which a first element replaces.
    let optional = (a.optional && a.kind != Kind::Null) || (b.optional && b.kind != Kind::Null);
    let null = a.kind == Kind::Null && a.optional && b.kind == Kind::Null;
    Some(Type {
        kind,
        optional: optional || null,
    })
}
