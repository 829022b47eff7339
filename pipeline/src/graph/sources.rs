//! Sources: topics, the types of their fields, and event time.

use super::order::Draft;
use super::read::Context;
use super::{Node, Role};
use crate::expression::Expression;
use crate::fault::{Fault, unknown};
use crate::section::{Section, text};
use crate::types::{Field, Kind, Scope, Type};

/// One day in milliseconds.
const DAY: i64 = 86_400_000;
/// Most declared fields of a source.
const FIELDS_MAX: usize = 1_000;

/// A source.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Name of its Kafka connection.
    pub connection: String,
    /// Topics that it reads.
    pub topics: Vec<String>,
    /// Form of its records.
    pub format: Format,
    /// Its fields; `None` where any is allowed.
    pub fields: Option<Vec<Field>>,
    /// Field that holds the event time; the record's timestamp where there is none.
    pub event_time: Option<usize>,
    /// Longest time by which a record may be behind the newest of its partition.
    pub out_of_order_max: i64,
    /// Longest time by which an event time may be ahead of the record's timestamp.
    pub future_max: i64,
    /// Rule of a partition without records, and the time after which it is in force.
    pub idle: (i64, IdleRule),
    /// Topic of its dead letters.
    pub dead_letter: Option<String>,
    /// Expression whose value is already the key of the topic's records.
    pub keyed_by: Option<Expression>,
}

/// Form of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON object.
    Json,
    /// Text, in the field `value`.
    Raw,
}

/// Watermark of a partition without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleRule {
    /// It follows the clock.
    Clock,
    /// It is left out of the minimum.
    Ignore,
    /// It stays, and everything waits for it.
    Wait,
}

pub(super) fn read(context: &Context<'_>, draft: &Draft<'_>) -> Result<Node, Fault> {
    let section = &draft.section;
    let connection = context.connection(section, "kafka")?;
    let topics = section.texts("topics")?.filter(|topics| !topics.is_empty());
    let topics = topics.ok_or_else(|| section.missing("topics"))?;
    let format = section.word(
        "format",
        &[("json", Format::Json), ("raw", Format::Raw)],
        Format::Json,
    )?;
    let fields = fields(section, format)?;
    let of = match &fields {
        Some(fields) => Kind::Record(fields.as_slice().into()),
        None => Kind::Json,
    };
    let scope = Scope::default()
        .with(&draft.name, of.needed())
        .unwrap_or_default();
    let event_time = event_time(section, fields.as_deref())?;
    let keyed_by = section
        .text("keyed_by")?
        .map(|source| {
            let checked = Expression::check(&section.at("keyed_by"), &source, &scope)?;
            checked.of_kind(&source.span, &[Kind::String, Kind::Int])
        })
        .transpose()?;
    let spec = SourceSpec {
        connection,
        topics: topics.into_iter().map(|topic| topic.value).collect(),
        format,
        fields,
        event_time,
        out_of_order_max: section.time("out_of_order_max", 0..=30 * DAY)?.unwrap_or(0),
        future_max: section.time("future_max", 0..=365 * DAY)?.unwrap_or(600_000),
        idle: idle(section)?,
        dead_letter: section.text("dead_letter")?.map(|topic| topic.value),
        keyed_by,
    };
    section.finish(&["align_max", "start", "schema", "stop_if_lost"])?;
    Ok(Node {
        name: draft.name.as_str().into(),
        span: draft.span.clone(),
        inputs: Vec::new(),
        scope,
        keyed: false,
        role: Role::Source(Box::new(spec)),
    })
}

fn fields(section: &Section<'_>, format: Format) -> Result<Option<Vec<Field>>, Fault> {
    let declared = section.get("fields");
    if format == Format::Raw {
        return match declared {
            None => Ok(Some(vec![Field::needed("value", Kind::String)])),
            Some(value) => Err(Fault::new(
                value.span(),
                "`fields` is for JSON: a raw record has the one field `value`",
            )),
        };
    }
    let Some(declared) = declared else {
        return Err(section.missing("fields"));
    };
    if declared.get_ref().as_str() == Some("any") {
        return Ok(None);
    }
    let inner = Section::of(section.at("fields"), declared)?;
    let mut fields = Vec::new();
    for (name, value) in inner.entries() {
        let written = text(&inner.at(name.value), value)?;
        let Some(of) = Type::parse(&written.value) else {
            let kinds = ["string", "int", "double", "bool", "timestamp", "json"];
            let message = unknown("type", &written.value, kinds);
            return Err(Fault::new(
                written.span,
                format!("{message}; `[T]` is a list, `T?` may be absent"),
            ));
        };
        fields.push(Field {
            name: name.value.to_owned(),
            of,
        });
    }
    if fields.is_empty() || fields.len() > FIELDS_MAX {
        return Err(inner.fault(format!("`{}` has 1 to {FIELDS_MAX} fields", inner.path())));
    }
    Ok(Some(fields))
}

fn event_time(section: &Section<'_>, fields: Option<&[Field]>) -> Result<Option<usize>, Fault> {
    let Some(name) = section.text("event_time")? else {
        return Ok(None);
    };
    let Some(fields) = fields else {
        let message =
            "`event_time` needs a declared field; with `fields = \"any\"` it is the record's timestamp";
        return Err(Fault::new(name.span, message));
    };
    let Some(place) = fields.iter().position(|field| field.name == name.value) else {
        let known = fields.iter().map(|field| field.name.as_str());
        return Err(Fault::new(name.span, unknown("field", &name.value, known)));
    };
    if fields[place].of != Kind::Timestamp.needed() {
        let message = format!(
            "`{}` is a {}, but an event time is a timestamp that is always there",
            name.value, fields[place].of
        );
        return Err(Fault::new(name.span, message));
    }
    Ok(Some(place))
}

fn idle(section: &Section<'_>) -> Result<(i64, IdleRule), Fault> {
    let Some(inner) = section.section("idle")? else {
        return Ok((60_000, IdleRule::Clock));
    };
    let after = inner.time("after", 1_000..=DAY)?.unwrap_or(60_000);
    let words = [
        ("clock", IdleRule::Clock),
        ("ignore", IdleRule::Ignore),
        ("wait", IdleRule::Wait),
    ];
    let then = inner.word("then", &words, IdleRule::Clock)?;
    inner.finish(&[])?;
    Ok((after, then))
}
