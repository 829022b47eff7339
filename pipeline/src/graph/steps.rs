//! Steps: filter, score, key, session, pattern.

mod pattern;
mod score;
mod session;

pub use pattern::{PatternSpec, PatternStage};
pub use score::{ModelInput, ScoreSpec};
pub use session::{SessionSpec, WhenLate};

use super::order::Draft;
use super::read::Context;
use super::{Node, Role};
use crate::expression::Expression;
use crate::fault::Fault;
use crate::section::{Placed, Section};
use crate::types::{Kind, Scope};

/// Most parts of a key.
const KEY_PARTS_MAX: usize = 8;

/// A step.
#[derive(Clone, Debug)]
pub struct StepSpec {
    /// Key that its records get before its work.
    pub key: Option<Vec<Expression>>,
    /// Its work.
    pub operation: Operation,
}

/// Work of a step.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Hands records on: the step has a key alone.
    Pass,
    /// Keeps the records that meet a condition.
    Filter(Expression),
    /// Asks a model.
    Score(ScoreSpec),
    /// Joins the records of a key into sessions.
    Session(SessionSpec),
    /// Looks for a row of events inside of a session.
    Pattern(PatternSpec),
}

impl Operation {
    /// Whether it remembers records.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Operation::Session(_) | Operation::Pattern(_))
    }

    /// Name of its key in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Pass => "key",
            Operation::Filter(_) => "filter",
            Operation::Score(_) => "score",
            Operation::Session(_) => "session",
            Operation::Pattern(_) => "pattern",
        }
    }
}

/// Keys of steps that later versions read.
const LATER: [&str; 7] = ["each", "gather", "pairs", "fold", "expire", "join", "window"];

pub(super) fn read(context: &Context<'_>, draft: &Draft<'_>, inputs: Vec<usize>) -> Result<Node, Fault> {
    let section = &draft.section;
    let scope = input_scope(context, draft, &inputs)?;
    let key = key(section, &scope)?;
    let keyed = key.is_some() || inputs.iter().all(|input| context.nodes[*input].keyed);
    let mut found: Vec<(Operation, Scope)> = Vec::new();
    if let Some(source) = section.text("filter")? {
        let checked = Expression::check(&section.at("filter"), &source, &scope)?;
        found.push((Operation::Filter(checked.condition(&source.span)?), scope.clone()));
    }
    if let Some(inner) = section.section("score")? {
        let (score, scope) = score::read(context, &inner, &scope)?;
        found.push((Operation::Score(score), scope));
    }
    if let Some(inner) = section.section("session")? {
        let (session, scope) = session::read(draft, &inner, &scope)?;
        found.push((Operation::Session(session), scope));
    }
    if let Some(inner) = section.section("pattern")? {
        let (pattern, scope) = pattern::read(context, &inner, &scope, &inputs)?;
        found.push((Operation::Pattern(pattern), scope));
    }
    section.finish(&LATER)?;
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|(operation, _)| operation.name()).collect();
        let message = format!(
            "`{}` has {}: a step does one thing",
            section.path(),
            names.join(" and ")
        );
        return Err(section.fault(message));
    }
    let (operation, scope) = match found.pop() {
        Some(found) => found,
        None if key.is_some() => (Operation::Pass, scope),
        None => {
            let message = format!(
                "`{}` needs one of filter, score, key, session, pattern",
                section.path()
            );
            return Err(section.fault(message));
        }
    };
    check_place(context, draft, &operation, &inputs, keyed)?;
    Ok(Node {
        name: draft.name.as_str().into(),
        span: draft.span.clone(),
        inputs,
        scope,
        keyed,
        role: Role::Step(Box::new(StepSpec { key, operation })),
    })
}

/// Refuses a step where it cannot stand.
fn check_place(
    context: &Context<'_>,
    draft: &Draft<'_>,
    operation: &Operation,
    inputs: &[usize],
    keyed: bool,
) -> Result<(), Fault> {
    let section = &draft.section;
    if operation.is_stateful() && !keyed {
        let message = format!(
            "`{}` needs a key: put a step with `key` before it",
            section.path()
        );
        return Err(section.fault(message));
    }
    let is_pattern = matches!(operation, Operation::Pattern(_));
    for input in inputs {
        check_session_output(&context.nodes[*input], draft, is_pattern)?;
    }
    Ok(())
}

/// Refuses a reader of sessions that are never emitted.
pub(super) fn check_session_output(input: &Node, draft: &Draft<'_>, is_pattern: bool) -> Result<(), Fault> {
    let Some(session) = session_of(input) else {
        return Ok(());
    };
    if session.emits || is_pattern {
        return Ok(());
    }
    let span = draft
        .from
        .first()
        .map_or(draft.span.clone(), |from| from.span.clone());
    let message = format!(
        "`{}` emits no records; set `emit = \"close\"` there, or read it by a step with `pattern`",
        input.name
    );
    Err(Fault::new(span, message))
}

pub(super) fn session_of(node: &Node) -> Option<&SessionSpec> {
    match &node.role {
        Role::Step(step) => match &step.operation {
            Operation::Session(session) => Some(session),
            _ => None,
        },
        _ => None,
    }
}

/// Names that the inputs have in common: all of them have to agree.
pub(super) fn input_scope(
    context: &Context<'_>,
    draft: &Draft<'_>,
    inputs: &[usize],
) -> Result<Scope, Fault> {
    let mut scopes = inputs.iter().map(|input| &context.nodes[*input].scope);
    let first = scopes.next().cloned().unwrap_or_default();
    if scopes.any(|scope| *scope != first) {
        let message = format!(
            "the inputs of `{}` do not see the same names; `gather`, which joins them, is not in this version",
            draft.section.path()
        );
        let span = draft
            .from
            .first()
            .map_or(draft.span.clone(), |from| from.span.clone());
        return Err(Fault::new(span, message));
    }
    Ok(first)
}

fn key(section: &Section<'_>, scope: &Scope) -> Result<Option<Vec<Expression>>, Fault> {
    let Some(parts) = section.texts("key")? else {
        return Ok(None);
    };
    if parts.is_empty() || parts.len() > KEY_PARTS_MAX {
        return Err(section.fault(format!("`{}` has 1 to {KEY_PARTS_MAX} parts", section.at("key"))));
    }
    let check = |part: &Placed<String>| {
        let checked = Expression::check(&section.at("key"), part, scope)?;
        checked.of_kind(&part.span, &[Kind::String, Kind::Int])
    };
    parts.iter().map(check).collect::<Result<Vec<_>, _>>().map(Some)
}

/// The scope with a name more, or the fault that the name is taken.
fn extended(
    scope: &Scope,
    name: &str,
    of: crate::types::Type,
    at: std::ops::Range<usize>,
) -> Result<Scope, Fault> {
    scope.with(name, of).ok_or_else(|| {
        Fault::new(
            at,
            format!("`{name}` is already the name of something in these records"),
        )
    })
}
