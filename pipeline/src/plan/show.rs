//! A plan as text, JSON and Mermaid.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Plan, Stage};

impl Plan {
    /// The plan for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = format!("pipeline {}\n", self.head);
        // Writing to a text cannot fail.
        for (number, stage) in self.stages.iter().enumerate() {
            let _ = writeln!(text, "\nstage {}  reads {}", number + 1, stage.reads.join(", "));
            let _ = writeln!(text, "  nodes    {}", self.names(stage).join(", "));
            for changelog in &stage.changelogs {
                let _ = writeln!(text, "  state    {changelog}");
            }
            for topic in &stage.writes {
                let _ = writeln!(text, "  writes   {topic}");
            }
            let _ = writeln!(text, "  commits  {}", stage.commits);
        }
        if !self.topics.is_empty() {
            text.push_str("\ninternal topics\n");
        }
        let width = self
            .topics
            .iter()
            .map(|topic| topic.name.len())
            .max()
            .unwrap_or_default();
        for topic in &self.topics {
            let _ = writeln!(
                text,
                "  {:width$}  {} partitions, {} replicas, {}",
                topic.name, topic.partitions, topic.replication, topic.policy
            );
        }
        text.push_str("\nsinks\n");
        let width = self
            .sinks
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, guarantee) in &self.sinks {
            let promise = guarantee.promise.name();
            let _ = writeln!(text, "  {name:width$}  {promise}: {}", guarantee.because);
        }
        text
    }

    /// The plan as JSON.
    pub fn to_json(&self) -> Value {
        let stage = |stage: &Stage| {
            json!({
                "reads": stage.reads,
                "nodes": self.names(stage),
                "writes": stage.writes,
                "changelogs": stage.changelogs,
                "commits": stage.commits,
            })
        };
        let topics: Vec<Value> = self
            .topics
            .iter()
            .map(|topic| {
                json!({
                    "name": topic.name,
                    "partitions": topic.partitions,
                    "replication": topic.replication,
                    "policy": topic.policy,
                })
            })
            .collect();
        let sinks: Vec<Value> = self
            .sinks
            .iter()
            .map(|(name, guarantee)| {
                json!({ "name": name, "guarantee": guarantee.promise.name(), "because": guarantee.because })
            })
            .collect();
        json!({
            "pipeline": self.head,
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
            "topics": topics,
            "sinks": sinks,
        })
    }

    /// The plan as a Mermaid drawing.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (number, stage) in self.stages.iter().enumerate() {
            let _ = writeln!(text, "  subgraph stage{0} [stage {0}]", number + 1);
            for node in &stage.nodes {
                let (name, table) = &self.nodes[*node];
                let shape = match *table {
                    "source" => format!("([{name}])"),
                    "sink" => format!("[/{name}/]"),
                    _ => format!("[{name}]"),
                };
                let _ = writeln!(text, "    n{node}{shape}");
            }
            text.push_str("  end\n");
        }
        for (node, inputs) in self.inputs.iter().enumerate() {
            for input in inputs {
                let _ = match self.topic_between(*input, node) {
                    Some(topic) => writeln!(text, "  n{input} -->|{topic}| n{node}"),
                    None => writeln!(text, "  n{input} --> n{node}"),
                };
            }
        }
        text
    }

    fn names(&self, stage: &Stage) -> Vec<&str> {
        stage
            .nodes
            .iter()
            .map(|node| self.nodes[*node].0.as_str())
            .collect()
    }

    /// The internal topic through which records go from one node to another.
    fn topic_between(&self, from: usize, to: usize) -> Option<&str> {
        let stage = |node: usize| self.stages.iter().find(|stage| stage.nodes.contains(&node));
        let (from, to) = (stage(from)?, stage(to)?);
        if from == to {
            return None;
        }
        to.reads.first().map(String::as_str)
    }
}
