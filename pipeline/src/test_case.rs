//! The `[[test]]`s of a file: records in, rows and dead letters out, with models that answer from a table.

mod compare;
mod run;

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value as Json};
use toml::de::{DeArray, DeValue};

pub use run::run;

use crate::fault::{Fault, unknown};
use crate::graph::{Pipeline, Role};
use crate::machine::{Answer, Reason};
use crate::section::{Section, list};
use crate::value::parse_time;

/// Name of the expected dead letters.
const DEAD_LETTER: &str = "dead_letter";
/// Text that stands for every input of a model.
const ANY: &str = "*";
/// Most partitions of a source in a test.
const PARTITIONS_MAX: i64 = 1_024;

/// A test.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Its name.
    pub name: String,
    /// Place of the test in the file.
    pub(crate) span: Range<usize>,
    /// Partitions of each source.
    pub partitions: usize,
    records: Vec<TestRecord>,
    /// Answers by model and text.
    models: BTreeMap<String, BTreeMap<String, Answer>>,
    /// Expected rows by sink.
    expected: BTreeMap<usize, Vec<(Range<usize>, Map<String, Json>)>>,
    dead_letters: Vec<(Range<usize>, Map<String, Json>)>,
}

/// A record of a test.
#[derive(Clone, Debug)]
struct TestRecord {
    source: usize,
    partition: i32,
    timestamp: Option<i64>,
    key: Option<String>,
    value: Vec<u8>,
    /// Records of all sources come in the order of their places in the file.
    at: usize,
}

pub(crate) fn read(pipeline: &Pipeline, tests: &DeArray<'_>) -> Result<Vec<TestCase>, Fault> {
    let mut cases: Vec<TestCase> = Vec::new();
    for value in tests.iter() {
        let case = case(pipeline, &Section::of("test".to_owned(), value)?)?;
        if cases.iter().any(|other| other.name == case.name) {
            return Err(Fault::new(
                value.span(),
                format!("two tests have the name `{}`", case.name),
            ));
        }
        cases.push(case);
    }
    Ok(cases)
}

fn case(pipeline: &Pipeline, section: &Section<'_>) -> Result<TestCase, Fault> {
    let name = section.needed_text("name")?.value;
    let partitions = section.number("partitions", 1..=PARTITIONS_MAX, 1)?;
    let records = records(pipeline, section, partitions)?;
    let models = models(pipeline, section)?;
    let (expected, dead_letters) = expected(pipeline, section)?;
    section.finish(&["now", "restart"])?;
    Ok(TestCase {
        name,
        span: section.span(),
        partitions: usize::try_from(partitions).unwrap_or(1),
        records,
        models,
        expected,
        dead_letters,
    })
}

fn records(pipeline: &Pipeline, section: &Section<'_>, partitions: i64) -> Result<Vec<TestRecord>, Fault> {
    let input = section
        .section("input")?
        .ok_or_else(|| section.missing("input"))?;
    let mut records = Vec::new();
    for (name, value) in input.entries() {
        let source = pipeline
            .sources()
            .find(|(_, node, _)| node.name.as_ref() == name.value);
        let Some((source, _, _)) = source else {
            let known: Vec<&str> = pipeline
                .sources()
                .map(|(_, node, _)| node.name.as_ref())
                .collect();
            return Err(Fault::new(name.span, unknown("source", name.value, known)));
        };
        let path = input.at(name.value);
        for value in list(&path, value)?.iter() {
            records.push(record(source, &Section::of(path.clone(), value)?, partitions)?);
        }
    }
    records.sort_by_key(|record| record.at);
    Ok(records)
}

fn record(source: usize, section: &Section<'_>, partitions: i64) -> Result<TestRecord, Fault> {
    let partition = section.number("partition", 0..=partitions - 1, 0)?;
    let timestamp = match section.text("timestamp")? {
        Some(text) => Some(
            parse_time(&text.value)
                .ok_or_else(|| Fault::new(text.span, format!("`{}` is no RFC 3339 time", text.value)))?,
        ),
        None => None,
    };
    let key = section.text("key")?.map(|key| key.value);
    let raw = section.text("raw")?;
    let value = match (section.get("value"), raw) {
        (Some(value), None) => json(value.get_ref()).to_string().into_bytes(),
        (None, Some(raw)) => raw.value.into_bytes(),
        _ => {
            let message = "a record has `value`, or its bytes as a text in `raw`";
            return Err(section.fault(message));
        }
    };
    let at = section.span().start;
    section.finish(&["headers"])?;
    Ok(TestRecord {
        source,
        partition: i32::try_from(partition).unwrap_or(0),
        timestamp,
        key,
        value,
        at,
    })
}

fn models(
    pipeline: &Pipeline,
    section: &Section<'_>,
) -> Result<BTreeMap<String, BTreeMap<String, Answer>>, Fault> {
    let mut found = BTreeMap::new();
    let Some(models) = section.section("model")? else {
        return Ok(found);
    };
    let known = pipeline.models();
    for (name, value) in models.entries() {
        if !known.contains(&name.value) {
            return Err(Fault::new(name.span, unknown("model", name.value, known)));
        }
        if value.get_ref().as_str() == Some("real") {
            let message = format!(
                "`{} = \"real\"` is not in this version; write the answers",
                name.value
            );
            return Err(Fault::new(value.span(), message));
        }
        let answers = Section::of(models.at(name.value), value)?;
        let mut table = BTreeMap::new();
        for (text, value) in answers.entries() {
            let path = answers.at(text.value);
            let answer = answer(name.value, &Section::of(path, value)?)?;
            table.insert(text.value.to_owned(), answer);
        }
        found.insert(name.value.to_owned(), table);
    }
    Ok(found)
}

fn answer(model: &str, section: &Section<'_>) -> Result<Answer, Fault> {
    let label = section.needed_text("label")?.value;
    let Some(value) = section.get("score") else {
        return Err(section.missing("score"));
    };
    let score = json(value.get_ref())
        .as_f64()
        .ok_or_else(|| Fault::new(value.span(), "a score is a number"))?;
    let version = section
        .text("version")?
        .map_or_else(|| "1".to_owned(), |version| version.value);
    let probabilities = match section.get("probabilities").map(|value| json(value.get_ref())) {
        Some(Json::Object(map)) => map,
        Some(_) => return Err(section.fault("`probabilities` is a table of labels")),
        None => [(label.clone(), score.into())].into_iter().collect(),
    };
    section.finish(&["error"])?;
    Ok(Answer {
        label,
        score,
        probabilities,
        model: model.to_owned(),
        version,
    })
}

type Rows = Vec<(Range<usize>, Map<String, Json>)>;

fn expected(pipeline: &Pipeline, section: &Section<'_>) -> Result<(BTreeMap<usize, Rows>, Rows), Fault> {
    let expect = section
        .section("expect")?
        .ok_or_else(|| section.missing("expect"))?;
    let mut sinks = BTreeMap::new();
    let mut dead_letters = Vec::new();
    for (name, value) in expect.entries() {
        let path = expect.at(name.value);
        let mut rows = Vec::new();
        for value in list(&path, value)?.iter() {
            match json(value.get_ref()) {
                Json::Object(row) => rows.push((value.span(), row)),
                _ => return Err(Fault::new(value.span(), format!("a row of `{path}` is a table"))),
            }
        }
        if name.value == DEAD_LETTER {
            check_letters(pipeline, &rows)?;
            dead_letters = rows;
            continue;
        }
        let Some((sink, _, spec)) = pipeline
            .sinks()
            .find(|(_, node, _)| node.name.as_ref() == name.value)
        else {
            let known: Vec<&str> = pipeline
                .sinks()
                .map(|(_, node, _)| node.name.as_ref())
                .chain([DEAD_LETTER])
                .collect();
            return Err(Fault::new(name.span, unknown("sink", name.value, known)));
        };
        for (span, row) in &rows {
            for column in row.keys() {
                let columns = || spec.columns.iter().map(|(name, _)| name.as_str());
                if !columns().any(|known| known == column) {
                    return Err(Fault::new(span.clone(), unknown("column", column, columns())));
                }
            }
        }
        sinks.insert(sink, rows);
    }
    Ok((sinks, dead_letters))
}

/// Dead letters are described by `reason`, `node` and `offset`.
fn check_letters(pipeline: &Pipeline, rows: &Rows) -> Result<(), Fault> {
    for (span, row) in rows {
        for (key, value) in row {
            let text = value.as_str().unwrap_or_default();
            let reasons = Reason::ALL.map(Reason::name);
            let message = match key.as_str() {
                "reason" if !reasons.contains(&text) => unknown("reason", text, reasons),
                "node" if pipeline.node(text).is_none() => {
                    let nodes = pipeline
                        .nodes
                        .iter()
                        .filter(|node| !matches!(node.role, Role::Sink(_)));
                    unknown("node", text, nodes.map(|node| node.name.as_ref()))
                }
                "reason" | "node" | "offset" => continue,
                other => unknown("key", other, ["reason", "node", "offset"]),
            };
            return Err(Fault::new(span.clone(), message));
        }
    }
    Ok(())
}

/// A TOML value as JSON; dates become their texts.
fn json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).map_or(Json::Null, Into::into),
        DeValue::Float(n) => n.as_str().parse::<f64>().map_or(Json::Null, Into::into),
        DeValue::Boolean(b) => (*b).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(array) => array.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            entries.collect::<Map<_, _>>().into()
        }
    }
}
