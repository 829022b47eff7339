//! Commits of stages and guarantees of sinks, with their reasons.

use super::Planner;
use crate::graph::{Role, Target};

/// How often a row reaches its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Once.
    ExactlyOnce,
    /// Once or more often.
    AtLeastOnce,
    /// The newest version stays.
    LastWriterWins,
}

impl Promise {
    /// The promise in words.
    pub fn name(self) -> &'static str {
        match self {
            Promise::ExactlyOnce => "exactly once",
            Promise::AtLeastOnce => "at least once",
            Promise::LastWriterWins => "last writer wins",
        }
    }
}

/// Guarantee of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The promise.
    pub promise: Promise,
    /// The reason.
    pub because: &'static str,
}

impl Planner<'_> {
    pub(super) fn sinks(&self) -> Vec<(String, Guarantee)> {
        let guarantee = |sink: usize, target: &Target| match target {
            Target::Topic { .. } if self.joins_kafka(sink) => Guarantee {
                promise: Promise::ExactlyOnce,
                because: "rows and offsets are one transaction of the cluster that is read",
            },
            Target::Topic { .. } => Guarantee {
                promise: Promise::AtLeastOnce,
                because: "the topic is in another cluster, which cannot join the transaction",
            },
            Target::Postgres { .. } => Guarantee {
                promise: Promise::ExactlyOnce,
                because: "rows and offsets are one SQL transaction, fenced by the offset that it expects",
            },
            Target::Redis { .. } => Guarantee {
                promise: Promise::LastWriterWins,
                because: "its hashes lie on several nodes, so each carries its version",
            },
            Target::Webhook { .. } => Guarantee {
                promise: Promise::AtLeastOnce,
                because: "a lost answer is tried again with the same webhook-id and body",
            },
        };
        self.pipeline
            .sinks()
            .map(|(sink, node, spec)| (node.name.to_string(), guarantee(sink, &spec.target)))
            .collect()
    }

    /// Place to which a stage commits.
    pub(super) fn commit_of(&self, stage: usize) -> String {
        let stage = &self.stages[stage];
        let external = stage
            .nodes
            .iter()
            .find_map(|node| match &self.pipeline.nodes[*node].role {
                Role::Sink(spec) if !self.joins_kafka(*node) => Some(&spec.target),
                _ => None,
            });
        match external {
            Some(Target::Postgres { table, .. }) => {
                format!("PostgreSQL: rows of {table} and offsets in one transaction")
            }
            Some(Target::Redis { .. }) => "Redis: versioned hashes, then the offsets in Kafka".to_owned(),
            Some(Target::Webhook { .. }) => "Kafka: offsets after the endpoint's answers".to_owned(),
            Some(Target::Topic { topic, .. }) => format!("Kafka: offsets after {topic} has its rows"),
            None => "Kafka: outputs, dead letters, changelog, watermarks and offsets in one transaction"
                .to_owned(),
        }
    }
}
