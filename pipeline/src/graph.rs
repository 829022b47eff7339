//! The checked graph of a pipeline: sources, steps and sinks with the types of every expression.

mod connections;
mod order;
mod read;
mod sinks;
mod sources;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use connections::{Connection, Place};
pub use sinks::{SinkSpec, Target, Template, TemplatePart};
pub use sources::{Format, IdleRule, SourceSpec};
pub use steps::{
    ModelInput, Operation, PatternSpec, PatternStage, ScoreSpec, SessionSpec, StepSpec, WhenLate,
};

use crate::fault::FileError;
use crate::test_case::TestCase;
use crate::types::Scope;

/// A checked pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Version of its state: another one starts anew.
    pub version: i64,
    /// Consumer group.
    pub group: String,
    /// Partitions of internal topics.
    pub partitions: i64,
    /// Replicas of internal topics.
    pub replication: i64,
    /// Time between two commits, where the file says it.
    pub commit_interval: Option<i64>,
    /// Connections by name.
    pub connections: BTreeMap<String, Connection>,
    /// Nodes; each stands after its inputs.
    pub nodes: Vec<Node>,
    /// The tests of the file.
    pub tests: Vec<TestCase>,
}

/// One node of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, unique in the pipeline.
    pub name: Arc<str>,
    /// Place of its name in the file.
    pub(crate) span: Range<usize>,
    /// Its inputs among the nodes.
    pub inputs: Vec<usize>,
    /// Names that the expressions of the nodes after it see.
    pub scope: Scope,
    /// Whether its records have a key.
    pub keyed: bool,
    /// Its work.
    pub role: Role,
}

/// Work of a node.
#[derive(Clone, Debug)]
pub enum Role {
    /// Reads records.
    Source(Box<SourceSpec>),
    /// Changes, joins or counts records.
    Step(Box<StepSpec>),
    /// Hands records on.
    Sink(Box<SinkSpec>),
}

impl Role {
    /// Name of its table in the file.
    pub fn table(&self) -> &'static str {
        match self {
            Role::Source(_) => "source",
            Role::Step(_) => "step",
            Role::Sink(_) => "sink",
        }
    }
}

impl Pipeline {
    /// Reads and checks a file. `models` are the models that are there; `None` if that is not known.
    pub fn parse(file: &Path, text: &str, models: Option<&[String]>) -> Result<Pipeline, FileError> {
        read::read(text, models).map_err(|fault| fault.in_file(file, text))
    }

    /// Place of a node among the nodes.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name.as_ref() == name)
    }

    /// The nodes that read a node.
    pub fn outputs(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(move |other| self.nodes[*other].inputs.contains(&node))
    }

    /// The sources with their places.
    pub fn sources(&self) -> impl Iterator<Item = (usize, &Node, &SourceSpec)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| match &node.role {
                Role::Source(spec) => Some((index, node, spec.as_ref())),
                _ => None,
            })
    }

    /// The sinks with their places.
    pub fn sinks(&self) -> impl Iterator<Item = (usize, &Node, &SinkSpec)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| match &node.role {
                Role::Sink(spec) => Some((index, node, spec.as_ref())),
                _ => None,
            })
    }

    /// The models that the steps name, each once.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for node in &self.nodes {
            if let Role::Step(step) = &node.role
                && let Operation::Score(score) = &step.operation
                && !models.contains(&score.model.as_str())
            {
                models.push(&score.model);
            }
        }
        models
    }
}
