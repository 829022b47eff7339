//! The plan of a pipeline: stages that read one log each and commit to one place.
//!
//! A cut stands before each `key`, after each stateful step, and before each sink that cannot join the commit of
//! its stage. An internal topic carries the records over a cut.

mod guarantee;
mod show;

#[cfg(test)]
mod tests;

pub use guarantee::{Guarantee, Promise};

use crate::graph::{Node, Operation, Pipeline, Place, Role, StepSpec, Target};

/// A pipeline in stages.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name, version and group, for the head of the plan.
    pub head: String,
    /// The stages; each stands after those that write what it reads.
    pub stages: Vec<Stage>,
    /// Topics between stages, and changelogs.
    pub topics: Vec<InternalTopic>,
    /// Guarantee of each sink.
    pub sinks: Vec<(String, Guarantee)>,
    /// Name and table of each node, for drawings.
    nodes: Vec<(String, &'static str)>,
    /// Inputs of each node.
    inputs: Vec<Vec<usize>>,
}

/// Some nodes that read one log and commit to one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Topics that it reads.
    pub reads: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<usize>,
    /// Internal topics that it writes.
    pub writes: Vec<String>,
    /// Its changelogs.
    pub changelogs: Vec<String>,
    /// Place of its commit, in words.
    pub commits: String,
}

/// A topic that the pipeline makes for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i64,
    /// Its replicas.
    pub replication: i64,
    /// `compact` for a changelog, `delete` for records, which are deleted behind the committed offset.
    pub policy: &'static str,
}

/// Plans a pipeline.
pub fn plan(pipeline: &Pipeline) -> Plan {
    let mut planner = Planner {
        pipeline,
        stages: Vec::new(),
        stage_of: vec![None; pipeline.nodes.len()],
        topics: Vec::new(),
    };
    for node in 0..pipeline.nodes.len() {
        planner.place(node);
    }
    planner.place_external_sinks();
    let sinks = planner.sinks();
    for index in 0..planner.stages.len() {
        planner.stages[index].commits = planner.commit_of(index);
    }
    Plan {
        head: format!(
            "{}, version {}, group {}",
            pipeline.name, pipeline.version, pipeline.group
        ),
        stages: planner.stages,
        topics: planner.topics,
        sinks,
        nodes: pipeline
            .nodes
            .iter()
            .map(|node| (node.name.to_string(), node.role.table()))
            .collect(),
        inputs: pipeline.nodes.iter().map(|node| node.inputs.clone()).collect(),
    }
}

struct Planner<'a> {
    pipeline: &'a Pipeline,
    stages: Vec<Stage>,
    stage_of: Vec<Option<usize>>,
    topics: Vec<InternalTopic>,
}

impl Planner<'_> {
    fn node(&self, node: usize) -> &Node {
        &self.pipeline.nodes[node]
    }

    /// Places a node. Sinks outside of Kafka come later, when their stage is known as a whole.
    fn place(&mut self, node: usize) {
        match &self.pipeline.nodes[node].role {
            Role::Source(spec) => {
                let stage = self.open(spec.topics.clone());
                self.join(node, stage);
            }
            Role::Step(step) => self.place_step(node, step),
            Role::Sink(_) if self.joins_kafka(node) => {
                let stage = self.after_inputs(node);
                self.join(node, stage);
            }
            Role::Sink(_) => {}
        }
    }

    fn place_step(&mut self, node: usize, step: &StepSpec) {
        let is_pattern = matches!(step.operation, Operation::Pattern(_));
        if is_pattern
            && let Some(stage) = self
                .node(node)
                .inputs
                .first()
                .and_then(|input| self.stage_of[*input])
        {
            return self.join(node, stage);
        }
        let input = self.after_inputs(node);
        let needs_key = step.key.is_some() && !self.has_key_already(node, step);
        // A stateful stage never waits for a model.
        let waits = step.operation.is_stateful() && self.has_model(input);
        let stage = if needs_key || waits {
            let topic = self.internal(node, "in");
            self.write(input, &topic);
            self.open(vec![topic])
        } else {
            input
        };
        self.join(node, stage);
        if step.operation.is_stateful() {
            let changelog = format!("penstock.{}.{}.state", self.pipeline.name, self.node(node).name);
            self.stages[stage].changelogs.push(changelog.clone());
            self.add_topic(changelog, "compact");
        }
    }

    /// The stage in which the readers of a node's inputs stand.
    fn after_inputs(&mut self, node: usize) -> usize {
        let inputs = self.node(node).inputs.clone();
        let mut stages: Vec<usize> = inputs.iter().map(|input| self.after(*input)).collect();
        stages.sort_unstable();
        stages.dedup();
        if let [one] = stages[..] {
            return one;
        }
        let topic = self.internal(node, "in");
        for stage in stages {
            self.write(stage, &topic);
        }
        self.open(vec![topic])
    }

    /// The stage in which a reader of a node stands: behind a cut where the node is stateful.
    fn after(&mut self, node: usize) -> usize {
        let stage = self.stage_of[node].unwrap_or_default();
        let stateful = match &self.node(node).role {
            Role::Step(step) => step.operation.is_stateful(),
            _ => false,
        };
        if !stateful {
            return stage;
        }
        let topic = self.internal(node, "out");
        if let Some(reader) = self
            .stages
            .iter()
            .position(|stage| stage.reads == [topic.clone()])
        {
            return reader;
        }
        self.write(stage, &topic);
        self.open(vec![topic])
    }

    /// Whether the source's records have the step's key already, with nothing between that changes it.
    fn has_key_already(&self, node: usize, step: &StepSpec) -> bool {
        let Some([part]) = step.key.as_deref() else {
            return false;
        };
        let mut at = node;
        loop {
            let [input] = self.node(at).inputs[..] else {
                return false;
            };
            at = input;
            match &self.node(at).role {
                Role::Source(spec) => {
                    return spec
                        .keyed_by
                        .as_ref()
                        .is_some_and(|keyed| same_text(&keyed.text, &part.text));
                }
                Role::Step(before) => match before.operation {
                    Operation::Filter(_) | Operation::Pass if before.key.is_none() => {}
                    _ => return false,
                },
                Role::Sink(_) => return false,
            }
        }
    }

    fn has_model(&self, stage: usize) -> bool {
        self.stages[stage]
            .nodes
            .iter()
            .any(|node| match &self.node(*node).role {
                Role::Step(step) => matches!(step.operation, Operation::Score(_)),
                _ => false,
            })
    }

    /// Whether a sink is a topic of the cluster that the pipeline reads.
    fn joins_kafka(&self, sink: usize) -> bool {
        let Role::Sink(spec) = &self.node(sink).role else {
            return false;
        };
        matches!(spec.target, Target::Topic { .. })
            && self.pipeline.sources().all(|(_, _, source)| {
                spec.connection.as_deref().and_then(|name| self.cluster(name))
                    == self.cluster(&source.connection)
            })
    }

    fn cluster(&self, connection: &str) -> Option<&str> {
        match &self.pipeline.connections.get(connection)?.place {
            Place::Kafka(brokers) => Some(brokers),
            _ => None,
        }
    }

    /// A sink outside of the cluster joins a stage that has no state and commits nowhere else.
    fn place_external_sinks(&mut self) {
        let sinks: Vec<usize> = self.pipeline.sinks().map(|(sink, _, _)| sink).collect();
        let external: Vec<usize> = sinks
            .into_iter()
            .filter(|sink| self.stage_of[*sink].is_none())
            .collect();
        let wanted: Vec<usize> = external.iter().map(|sink| self.after_inputs(*sink)).collect();
        for (place, sink) in external.iter().enumerate() {
            let stage = wanted[place];
            let Role::Sink(spec) = &self.pipeline.nodes[*sink].role else {
                continue;
            };
            let can_join = matches!(spec.target, Target::Postgres { .. } | Target::Redis { .. });
            let alone = wanted.iter().filter(|other| **other == stage).count() == 1;
            let free = {
                let stage = &self.stages[stage];
                let sinks = stage
                    .nodes
                    .iter()
                    .any(|node| matches!(self.node(*node).role, Role::Sink(_)));
                stage.writes.is_empty() && stage.changelogs.is_empty() && !sinks
            };
            if can_join && alone && free {
                self.join(*sink, stage);
                continue;
            }
            let topic = self.internal(*sink, "out");
            self.write(stage, &topic);
            let own = self.open(vec![topic]);
            self.join(*sink, own);
        }
    }

    fn internal(&self, node: usize, end: &str) -> String {
        format!("penstock.{}.{}.{end}", self.pipeline.name, self.node(node).name)
    }

    fn open(&mut self, reads: Vec<String>) -> usize {
        self.stages.push(Stage {
            reads,
            nodes: Vec::new(),
            writes: Vec::new(),
            changelogs: Vec::new(),
            commits: String::new(),
        });
        self.stages.len() - 1
    }

    fn join(&mut self, node: usize, stage: usize) {
        self.stages[stage].nodes.push(node);
        self.stage_of[node] = Some(stage);
    }

    fn write(&mut self, stage: usize, topic: &str) {
        self.stages[stage].writes.push(topic.to_owned());
        self.add_topic(topic.to_owned(), "delete");
    }

    fn add_topic(&mut self, name: String, policy: &'static str) {
        if self.topics.iter().any(|topic| topic.name == name) {
            return;
        }
        self.topics.push(InternalTopic {
            name,
            partitions: self.pipeline.partitions,
            replication: self.pipeline.replication,
            policy,
        });
    }
}

/// Equality of two expressions' texts, without regard to spaces.
fn same_text(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    plain(a) == plain(b)
}
