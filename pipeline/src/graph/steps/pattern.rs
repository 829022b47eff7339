//! `pattern`: counted stages of events inside of a session.

use super::super::read::Context;
use super::{extended, session_of};
use crate::expression::Expression;
use crate::fault::Fault;
use crate::section::Section;
use crate::types::{Field, Kind, Scope};

/// Most stages of a pattern.
const STAGES_MAX: usize = 16;
/// Most events that one stage remembers.
const KEPT_MAX: i64 = 65_536;
/// One day in milliseconds.
const DAY: i64 = 86_400_000;

/// A row of stages that follow each other.
#[derive(Clone, Debug)]
pub struct PatternSpec {
    /// Events that a stage remembers in a session.
    pub kept: usize,
    /// The stages in their order.
    pub stages: Vec<PatternStage>,
    /// Whether a condition reads the session, which is then made for every event.
    pub reads_session: bool,
}

/// Some events of one kind.
#[derive(Clone, Debug)]
pub struct PatternStage {
    /// Its name in `match`.
    pub name: String,
    /// Condition of its events.
    pub condition: Expression,
    /// Number of events that it needs.
    pub at_least: usize,
    /// Longest time from the first to the last of them.
    pub span: Option<i64>,
}

pub(super) fn read(
    context: &Context<'_>,
    section: &Section<'_>,
    scope: &Scope,
    inputs: &[usize],
) -> Result<(PatternSpec, Scope), Fault> {
    let [input] = inputs else {
        return Err(section.fault(format!("`{}` reads one session", section.path())));
    };
    let input = &context.nodes[*input];
    let Some(session) = session_of(input) else {
        let message = format!(
            "`{}` reads a step with `session`, but `{}` is none",
            section.path(),
            input.name
        );
        return Err(section.fault(message));
    };
    if session.emits {
        let message = format!(
            "`{}` looks at the events of `{}`, so that one has `emit = \"never\"`",
            section.path(),
            input.name
        );
        return Err(section.fault(message));
    }
    section.word("once", &[("session", ())], ())?;
    let kept = section.number("kept", 1..=KEPT_MAX, 256)?;
    let mut stages: Vec<PatternStage> = Vec::new();
    for value in section
        .list("stage")?
        .ok_or_else(|| section.missing("stage"))?
        .iter()
    {
        let stage = stage(
            &Section::of(section.at("stage"), value)?,
            scope,
            session.length_max,
        )?;
        if stages.iter().any(|other| other.name == stage.name) {
            return Err(Fault::new(
                value.span(),
                format!("two stages have the name `{}`", stage.name),
            ));
        }
        if stage.at_least > kept as usize {
            let message = format!(
                "stage `{}` can never match: it needs {} events, but `kept` is {kept}",
                stage.name, stage.at_least
            );
            return Err(Fault::new(value.span(), message));
        }
        stages.push(stage);
    }
    section.finish(&["within", "not", "between"])?;
    if stages.is_empty() || stages.len() > STAGES_MAX {
        return Err(section.fault(format!("`{}` has 1 to {STAGES_MAX} stages", section.path())));
    }
    let of = |_: &PatternStage| {
        Kind::Record(
            [
                Field::needed("count", Kind::Int),
                Field::needed("time", Kind::Timestamp),
            ]
            .into(),
        )
        .needed()
    };
    let fields: Vec<Field> = stages
        .iter()
        .map(|stage| Field {
            name: stage.name.clone(),
            of: of(stage),
        })
        .collect();
    let slot = scope.slots().len().saturating_sub(1);
    let reads_session = stages.iter().any(|stage| stage.condition.reads(slot));
    let scope = extended(
        scope,
        "match",
        Kind::Record(fields.into()).needed(),
        section.span(),
    )?;
    let spec = PatternSpec {
        kept: usize::try_from(kept).unwrap_or(1),
        stages,
        reads_session,
    };
    Ok((spec, scope))
}

fn stage(section: &Section<'_>, scope: &Scope, length_max: i64) -> Result<PatternStage, Fault> {
    let name = section.needed_text("name")?;
    let source = section.needed_text("where")?;
    let checked = Expression::check(&section.at("where"), &source, scope)?;
    let condition = checked.condition(&source.span)?;
    if condition.is_never() {
        let message = format!(
            "stage `{}` can never match: its condition is always false",
            name.value
        );
        return Err(Fault::new(source.span, message));
    }
    let at_least = section.number("at_least", 1..=KEPT_MAX, 1)?;
    let span = section.time("span", 0..=365 * DAY)?;
    if span.is_some_and(|span| span > length_max) {
        let message = format!("`{}` is longer than a session's `length_max`", section.at("span"));
        return Err(section.fault(message));
    }
    section.finish(&["within", "not"])?;
    Ok(PatternStage {
        name: name.value,
        condition,
        at_least: usize::try_from(at_least).unwrap_or(1),
        span,
    })
}
