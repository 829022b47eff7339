//! Where a sink's rows go.

use super::columns;
use crate::expression::Expression;
use crate::fault::{Fault, unknown};
use crate::section::{Placed, Section};
use crate::types::{Kind, Scope};

/// Where rows go.
#[derive(Clone, Debug)]
pub enum Target {
    /// A Kafka topic.
    Topic {
        /// The topic.
        topic: String,
        /// Key of a record; the one that records have already where there is none.
        key: Option<Expression>,
    },
    /// A table of PostgreSQL.
    Postgres {
        /// The table.
        table: String,
        /// Columns that tell its rows apart; topic, partition, offset and index where there are none.
        key: Vec<String>,
        /// Rows and milliseconds of a transaction.
        batch: (i64, i64),
    },
    /// A hash of Redis.
    Redis {
        /// Name of the hash.
        hash: Template,
        /// Milliseconds after which it is gone.
        ttl: Option<i64>,
    },
    /// An HTTP endpoint.
    Webhook {
        /// Its URL.
        url: String,
        /// File of the secret that signs.
        secret_file: Option<String>,
        /// Milliseconds of one try.
        timeout: i64,
        /// Tries at a time.
        in_flight: i64,
        /// Milliseconds after which a record is undelivered.
        give_up: i64,
        /// Whether the records of a key keep their order.
        by_key: bool,
    },
}

/// A text with expressions in braces.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its parts.
    pub parts: Vec<TemplatePart>,
}

/// Part of a template.
#[derive(Clone, Debug)]
pub enum TemplatePart {
    /// Text as it is.
    Text(String),
    /// Value of an expression.
    Value(Expression),
}

type Columns = Vec<(String, Expression)>;

impl Target {
    /// Kind of the connection that it needs.
    pub fn connection_kind(&self) -> Option<&'static str> {
        match self {
            Target::Topic { .. } => Some("kafka"),
            Target::Postgres { .. } => Some("postgres"),
            Target::Redis { .. } => Some("redis_cluster"),
            Target::Webhook { .. } => None,
        }
    }
}

pub(super) fn read(section: &Section<'_>, scope: &Scope) -> Result<(Target, Columns), Fault> {
    let topic = section.text("topic")?;
    let postgres = section.section("postgres")?;
    let redis = section.section("redis")?;
    let webhook = section.section("webhook")?;
    let targets = usize::from(topic.is_some())
        + usize::from(postgres.is_some())
        + usize::from(redis.is_some())
        + usize::from(webhook.is_some());
    if targets != 1 {
        return Err(section.fault(format!(
            "`{}` needs one of `topic`, `postgres`, `redis` and `webhook`, and only one",
            section.path()
        )));
    }
    if let Some(postgres) = postgres {
        return table(section, &postgres, scope);
    }
    if let Some(redis) = redis {
        return hash(&redis, scope);
    }
    let value = section
        .section("value")?
        .ok_or_else(|| section.missing("value"))?;
    let row = columns(&value, scope)?;
    if let Some(webhook) = webhook {
        return Ok((endpoint(&webhook)?, row));
    }
    let key = section
        .text("key")?
        .map(|source| {
            let checked = Expression::check(&section.at("key"), &source, scope)?;
            checked.of_kind(&source.span, &[Kind::String, Kind::Int])
        })
        .transpose()?;
    let topic = topic.map(|topic| topic.value).unwrap_or_default();
    Ok((Target::Topic { topic, key }, row))
}

fn table(section: &Section<'_>, postgres: &Section<'_>, scope: &Scope) -> Result<(Target, Columns), Fault> {
    let table = postgres.needed_text("table")?.value;
    let keys = postgres.texts("key")?.unwrap_or_default();
    let inner = postgres
        .section("columns")?
        .ok_or_else(|| postgres.missing("columns"))?;
    let row = columns(&inner, scope)?;
    postgres.finish(&["schema", "merge"])?;
    for key in &keys {
        if !row.iter().any(|(name, _)| *name == key.value) {
            let known = row.iter().map(|(name, _)| name.as_str());
            return Err(Fault::new(key.span.clone(), unknown("column", &key.value, known)));
        }
    }
    let batch = match section.section("batch")? {
        Some(inner) => {
            let records = inner.number("records", 1..=100_000, 2_000)?;
            let time = inner.time("time", 1..=60_000)?.unwrap_or(200);
            inner.finish(&[])?;
            (records, time)
        }
        None => (2_000, 200),
    };
    let key = keys.into_iter().map(|key| key.value).collect();
    Ok((Target::Postgres { table, key, batch }, row))
}

fn hash(redis: &Section<'_>, scope: &Scope) -> Result<(Target, Columns), Fault> {
    let source = redis.needed_text("hash")?;
    let hash = template(&redis.at("hash"), &source, scope)?;
    let ttl = redis.time("ttl", 1_000..=365 * 86_400_000)?;
    let fields = redis.section("fields")?.ok_or_else(|| redis.missing("fields"))?;
    let row = columns(&fields, scope)?;
    redis.finish(&["stream", "set"])?;
    Ok((Target::Redis { hash, ttl }, row))
}

fn template(name: &str, source: &Placed<String>, scope: &Scope) -> Result<Template, Fault> {
    let mut parts = Vec::new();
    let mut rest = source.value.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inside, after)) = after.split_once('}') else {
            return Err(Fault::new(
                source.span.clone(),
                format!("`{name}` has a `{{` without its `}}`"),
            ));
        };
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        let part = Placed {
            span: source.span.clone(),
            value: inside.to_owned(),
        };
        let checked = Expression::check(name, &part, scope)?;
        parts.push(TemplatePart::Value(
            checked.of_kind(&source.span, &[Kind::String, Kind::Int])?,
        ));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(Template { parts })
}

fn endpoint(webhook: &Section<'_>) -> Result<Target, Fault> {
    let url = webhook.needed_text("url")?;
    if !url.value.starts_with("http://") && !url.value.starts_with("https://") {
        let message = format!("`{}` begins with http:// or https://", webhook.at("url"));
        return Err(Fault::new(url.span, message));
    }
    let target = Target::Webhook {
        url: url.value,
        secret_file: webhook.text("secret_file")?.map(|file| file.value),
        timeout: webhook.time("timeout", 10..=600_000)?.unwrap_or(5_000),
        in_flight: webhook.number("in_flight", 1..=1_024, 16)?,
        give_up: webhook
            .time("give_up", 1_000..=30 * 86_400_000)?
            .unwrap_or(86_400_000),
        by_key: webhook.word("order", &[("by_key", true), ("none", false)], true)?,
    };
    webhook.finish(&["headers", "batch"])?;
    Ok(target)
}
