//! `score`: a model, its input, and the name of its result.

use super::super::read::Context;
use super::extended;
use crate::expression::Expression;
use crate::fault::{Fault, unknown};
use crate::section::{Section, text};
use crate::types::{Field, Kind, Scope};

/// A question to a model.
#[derive(Clone, Debug)]
pub struct ScoreSpec {
    /// Name of the model.
    pub model: String,
    /// Its input.
    pub input: ModelInput,
    /// Name of the result in expressions.
    pub into: String,
}

/// Input of a model.
#[derive(Clone, Debug)]
pub enum ModelInput {
    /// A text.
    Text(Expression),
    /// Numbers by name.
    Row(Vec<(String, Expression)>),
}

pub(super) fn read(
    context: &Context<'_>,
    section: &Section<'_>,
    scope: &Scope,
) -> Result<(ScoreSpec, Scope), Fault> {
    let model = section.needed_text("model")?;
    if let Some(models) = context.models
        && !models.contains(&model.value)
    {
        let known = models.iter().map(String::as_str);
        return Err(Fault::new(model.span, unknown("model", &model.value, known)));
    }
    let text = section.text("text")?;
    let inputs = section.section("inputs")?;
    let into = section.needed_text("into")?;
    section.finish(&["pair", "version", "truncate", "timeout"])?;
    let input = match (text, inputs) {
        (Some(source), None) => {
            let checked = Expression::check(&section.at("text"), &source, scope)?;
            ModelInput::Text(checked.of_kind(&source.span, &[Kind::String])?)
        }
        (None, Some(inputs)) => ModelInput::Row(row(&inputs, scope)?),
        _ => {
            let message = format!(
                "`{}` needs `text` or `inputs`, and only one of them",
                section.path()
            );
            return Err(section.fault(message));
        }
    };
    let fields = [
        Field::needed("label", Kind::String),
        Field::needed("score", Kind::Double),
        Field::needed("probabilities", Kind::Json),
        Field::needed("model", Kind::String),
        Field::needed("version", Kind::String),
    ];
    let scope = extended(
        scope,
        &into.value,
        Kind::Record(fields.into()).needed(),
        into.span,
    )?;
    let spec = ScoreSpec {
        model: model.value,
        input,
        into: into.value,
    };
    Ok((spec, scope))
}

fn row(section: &Section<'_>, scope: &Scope) -> Result<Vec<(String, Expression)>, Fault> {
    let mut row = Vec::new();
    for (name, value) in section.entries() {
        let path = section.at(name.value);
        let source = text(&path, value)?;
        let checked = Expression::check(&path, &source, scope)?;
        let numbers = [
            Kind::Double,
            Kind::Int,
            Kind::Bool,
            Kind::Duration,
            Kind::Timestamp,
        ];
        row.push((name.value.to_owned(), checked.of_kind(&source.span, &numbers)?));
    }
    if row.is_empty() {
        return Err(section.fault(format!("`{}` has no input", section.path())));
    }
    Ok(row)
}
