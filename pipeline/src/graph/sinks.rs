//! Sinks: topics, tables, hashes and webhooks, with the expressions of their rows.

mod target;

pub use target::{Target, Template, TemplatePart};

use super::order::Draft;
use super::read::Context;
use super::steps::{check_session_output, input_scope};
use super::{Node, Role};
use crate::expression::Expression;
use crate::fault::Fault;
use crate::section::{Section, text};
use crate::types::Scope;

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Name of its connection; a webhook has none.
    pub connection: Option<String>,
    /// Where its rows go.
    pub target: Target,
    /// Fields of a row.
    pub columns: Vec<(String, Expression)>,
    /// Topic of what cannot be delivered.
    pub dead_letter: Option<String>,
}

pub(super) fn read(context: &Context<'_>, draft: &Draft<'_>, inputs: Vec<usize>) -> Result<Node, Fault> {
    let section = &draft.section;
    for input in &inputs {
        check_session_output(&context.nodes[*input], draft, false)?;
    }
    let scope = input_scope(context, draft, &inputs)?;
    let (target, columns) = target::read(section, &scope)?;
    let connection = match target.connection_kind() {
        Some(kind) => Some(context.connection(section, kind)?),
        None => None,
    };
    let dead_letter = section.text("dead_letter")?.map(|topic| topic.value);
    section.finish(&["dead_letter_postgres", "mode", "headers"])?;
    let keyed = inputs.iter().all(|input| context.nodes[*input].keyed);
    Ok(Node {
        name: draft.name.as_str().into(),
        span: draft.span.clone(),
        inputs,
        scope,
        keyed,
        role: Role::Sink(Box::new(SinkSpec {
            connection,
            target,
            columns,
            dead_letter,
        })),
    })
}

/// Named expressions of a table.
fn columns(section: &Section<'_>, scope: &Scope) -> Result<Vec<(String, Expression)>, Fault> {
    let mut columns = Vec::new();
    for (name, value) in section.entries() {
        let path = section.at(name.value);
        let source = text(&path, value)?;
        columns.push((name.value.to_owned(), Expression::check(&path, &source, scope)?));
    }
    if columns.is_empty() {
        return Err(section.fault(format!("`{}` is empty", section.path())));
    }
    Ok(columns)
}
