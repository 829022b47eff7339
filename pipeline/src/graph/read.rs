//! From the text of a file to the checked graph.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::order::{Draft, Drafted, sort};
use super::{Node, Pipeline, Role, connections, sinks, sources, steps};
use crate::fault::{Fault, unknown};
use crate::section::{Placed, Section};
use crate::test_case;

/// Longest name.
const NAME_MAX: usize = 64;
/// Largest file in bytes.
const FILE_MAX: usize = 1 << 20;
/// Names of expected results that are no sink.
const RESERVED: [&str; 2] = ["dead_letter", "match"];

/// What the checks of a node may look at.
pub(super) struct Context<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) connections: &'a BTreeMap<String, super::Connection>,
    pub(super) models: Option<&'a [String]>,
}

pub(super) fn read(text: &str, models: Option<&[String]>) -> Result<Pipeline, Fault> {
    if text.len() > FILE_MAX {
        return Err(Fault::new(
            0..0,
            format!("the file is larger than {FILE_MAX} bytes"),
        ));
    }
    let table = DeTable::parse(text).map_err(|error| syntax(&error))?;
    let root = Section::new(String::new(), 0..0, table.get_ref());
    let name = root
        .needed_text("name")
        .map_err(|fault| top_level(&root, fault))?;
    check_name(&name)?;
    let version = root.number("version", 1..=i64::from(i32::MAX), 1)?;
    let group = root
        .text("group")?
        .map_or_else(|| format!("penstock.{}", name.value), |group| group.value);
    let partitions = root.number("partitions", 1..=10_000, 1)?;
    let replication = root.number("replication", 1..=100, 1)?;
    let commit_interval = root.time("commit_interval", 10..=60_000)?;
    let connections = read_connections(&root)?;
    let drafts = drafts(&root)?;
    let tests = root.list("test")?;
    root.finish(&["graph", "schema", "state", "ready_needs"])?;

    let mut nodes: Vec<Node> = Vec::with_capacity(drafts.len());
    for (draft, inputs) in sort(drafts)? {
        let context = Context {
            nodes: &nodes,
            connections: &connections,
            models,
        };
        let node = match draft.kind {
            Drafted::Source => sources::read(&context, &draft)?,
            Drafted::Step => steps::read(&context, &draft, inputs)?,
            Drafted::Sink => sinks::read(&context, &draft, inputs)?,
        };
        nodes.push(node);
    }
    let mut pipeline = Pipeline {
        name: name.value,
        version,
        group,
        partitions,
        replication,
        commit_interval,
        connections,
        nodes,
        tests: Vec::new(),
    };
    check_uses(&pipeline, &root)?;
    if let Some(tests) = tests {
        pipeline.tests = test_case::read(&pipeline, tests)?;
    }
    Ok(pipeline)
}

fn syntax(error: &toml::de::Error) -> Fault {
    let parts: Vec<&str> = error
        .message()
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    Fault::new(error.span().unwrap_or(0..0), parts.join("; "))
}

fn top_level(root: &Section<'_>, fault: Fault) -> Fault {
    match root.get("name") {
        Some(_) => fault,
        None => Fault::new(0..0, "the pipeline needs a `name`"),
    }
}

fn check_name(name: &Placed<String>) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let first = name.value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if first && name.value.len() <= NAME_MAX && name.value.chars().all(plain) {
        return Ok(());
    }
    Err(Fault::new(
        name.span.clone(),
        format!(
            "`{}` is no name: a letter, then letters, digits, `_` and `-`, at most {NAME_MAX}",
            name.value
        ),
    ))
}

fn read_connections(root: &Section<'_>) -> Result<BTreeMap<String, super::Connection>, Fault> {
    let mut found = BTreeMap::new();
    let Some(section) = root.section("connection")? else {
        return Ok(found);
    };
    for (name, value) in section.entries() {
        let inner = Section::of(section.at(name.value), value)?;
        found.insert(name.value.to_owned(), connections::read(&inner)?);
    }
    Ok(found)
}

/// Names and inputs of all nodes, in the order of the file.
fn drafts<'a>(root: &Section<'a>) -> Result<Vec<Draft<'a>>, Fault> {
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    for (table, kind) in [
        ("source", Drafted::Source),
        ("step", Drafted::Step),
        ("sink", Drafted::Sink),
    ] {
        let Some(section) = root.section(table)? else {
            continue;
        };
        for (name, value) in section.entries() {
            let placed = Placed {
                span: name.span.clone(),
                value: name.value.to_owned(),
            };
            check_name(&placed)?;
            if RESERVED.contains(&name.value) {
                let message = format!("`{}` has a meaning of its own; take another name", name.value);
                return Err(Fault::new(name.span, message));
            }
            if let Some(other) = drafts.iter().find(|draft| draft.name == name.value) {
                let message = format!(
                    "two nodes have the name `{}`: `{}` has it too",
                    name.value,
                    other.section.path()
                );
                return Err(Fault::new(name.span, message));
            }
            let inner = Section::of(section.at(name.value), value)?;
            let from = match kind {
                Drafted::Source => Vec::new(),
                _ => inner
                    .texts("from")?
                    .filter(|from| !from.is_empty())
                    .ok_or_else(|| inner.missing("from"))?,
            };
            drafts.push(Draft {
                name: placed.value,
                span: placed.span,
                kind,
                section: inner,
                from,
            });
        }
    }
    drafts.sort_by_key(|draft| draft.span.start);
    Ok(drafts)
}

/// Refuses a pipeline without an end, and a node that nothing reads.
fn check_uses(pipeline: &Pipeline, root: &Section<'_>) -> Result<(), Fault> {
    for (table, there) in [
        ("source", pipeline.sources().next().is_some()),
        ("sink", pipeline.sinks().next().is_some()),
    ] {
        if !there {
            return Err(root.fault(format!("the pipeline needs a `[{table}.NAME]`")));
        }
    }
    for (index, node) in pipeline.nodes.iter().enumerate() {
        if pipeline.outputs(index).next().is_none() && !matches!(node.role, Role::Sink(_)) {
            let message = format!("nothing reads `{}`; a sink or a step has it in `from`", node.name);
            return Err(Fault::new(node.span.clone(), message));
        }
    }
    Ok(())
}

impl Context<'_> {
    /// The connection that a key names, if it is of the right kind.
    pub(super) fn connection(&self, section: &Section<'_>, kind: &str) -> Result<String, Fault> {
        let name = section.needed_text("connection")?;
        let Some(connection) = self.connections.get(&name.value) else {
            let known = self.connections.keys().map(String::as_str);
            return Err(Fault::new(name.span, unknown("connection", &name.value, known)));
        };
        if connection.place.kind() != kind {
            let found = connection.place.kind();
            let message = format!(
                "`{}` is a `{found}` connection, but `{kind}` is needed",
                name.value
            );
            return Err(Fault::new(name.span, message));
        }
        Ok(name.value)
    }
}
