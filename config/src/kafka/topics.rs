//! A route's topics: names that Kafka accepts, and no cycle by which a record comes back.

use std::collections::BTreeSet;

use regex::Regex;

use super::resolve::RouteError;
use super::{KafkaInput, KafkaRoute};

/// Kafka's own bound.
const TOPIC_BYTES_MAX: usize = 249;

/// The input, from the two settings that can define it.
pub(super) fn input(topics: Option<Vec<String>>, pattern: Option<String>) -> Result<KafkaInput, RouteError> {
    let topics = match (topics, pattern) {
        (Some(topics), None) => topics,
        (None, Some(pattern)) => {
            matcher(&pattern).map_err(|message| ("input_pattern", message))?;
            return Ok(KafkaInput::Pattern(pattern));
        }
        (Some(_), Some(_)) => {
            let message = "input and input_pattern exclude each other; give one of them";
            return Err(("input_pattern", message.to_owned()));
        }
        (None, None) => {
            let message =
                "a route without input reads nothing; give input = [\"TOPIC\"] or input_pattern = \"^…\"";
            return Err(("input", message.to_owned()));
        }
    };
    if topics.is_empty() {
        return Err(("input", "the list of input topics is empty".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for topic in &topics {
        valid_topic(topic).map_err(|message| ("input", message))?;
        if !seen.insert(topic) {
            return Err(("input", format!("the topic `{topic}` stands twice in the input")));
        }
    }
    Ok(KafkaInput::Topics(topics))
}

/// A pattern as librdkafka reads it: it may match anywhere in the name, so only `^` anchors it.
fn matcher(pattern: &str) -> Result<Regex, String> {
    if !pattern.starts_with('^') {
        return Err(format!(
            "the pattern `{pattern}` does not begin with `^`, by which Kafka's clients tell a pattern from a topic"
        ));
    }
    Regex::new(pattern).map_err(|e| {
        let reason = e.to_string();
        let reason = reason
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        format!("the pattern `{pattern}` is no regular expression: {reason}")
    })
}

pub(super) fn valid_topic(topic: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if topic.starts_with('^') {
        return Err(format!("`{topic}` is a pattern, not a topic; use input_pattern"));
    }
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
        return Err(format!(
            "a topic's name has 1 to {TOPIC_BYTES_MAX} characters, this one has {}",
            topic.len()
        ));
    }
    match topic.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(format!(
            "topic `{topic}` holds {c:?}; letters, digits, `-`, `_` and `.` are allowed"
        )),
        None if topic == "." || topic == ".." => Err(format!("`{topic}` cannot be a topic")),
        None => Ok(()),
    }
}

/// Checks topics and groups that must differ, within the route and against earlier routes.
pub(super) fn apart(route: &KafkaRoute, before: &[KafkaRoute]) -> Result<(), RouteError> {
    for (key, topic) in [("output", &route.output), ("dead_letter", &route.dead_letter)] {
        if route.reads(topic) {
            let message = format!("route `{}` would read its own {key} `{topic}`", route.name);
            return Err((key, message));
        }
    }
    if route.output == route.dead_letter {
        let message = format!(
            "output and dead_letter are both `{}`; scores and failures need a topic each",
            route.output
        );
        return Err(("dead_letter", message));
    }
    for other in before {
        if other.name == route.name {
            return Err(("name", format!("two routes are named `{}`", route.name)));
        }
        if other.group == route.group && other.brokers == route.brokers {
            let message = format!(
                "the routes `{}` and `{}` share the group `{}`: each would get a part of the other's partitions",
                other.name, route.name, route.group
            );
            return Err(("group", message));
        }
        if other.transactional_id() == route.transactional_id() && other.brokers == route.brokers {
            let message = format!(
                "the routes `{}` and `{}` would both write as `{}-{}` and fence each other; rename one or its group",
                other.name, route.name, route.group, route.name
            );
            return Err(("name", message));
        }
    }
    Ok(())
}

impl KafkaRoute {
    /// Whether a topic is among its inputs.
    fn reads(&self, topic: &str) -> bool {
        match &self.input {
            KafkaInput::Topics(topics) => topics.iter().any(|input| input == topic),
            KafkaInput::Pattern(pattern) => matcher(pattern).is_ok_and(|pattern| pattern.is_match(topic)),
        }
    }

    /// Whether the route reads the output of `from`. Two routes share a cluster if their brokers are written
    /// alike.
    fn follows(&self, from: &KafkaRoute) -> bool {
        self.brokers == from.brokers && (self.reads(&from.output) || self.reads(&from.dead_letter))
    }
}

/// Names of the routes that form a cycle through `start`, if there is one.
pub(super) fn circle(start: usize, routes: &[KafkaRoute]) -> Option<String> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let last = &routes[*way.last()?];
        for (next, _) in routes.iter().enumerate().filter(|(_, route)| route.follows(last)) {
            if next == start {
                let names: Vec<&str> = way.iter().map(|route| routes[*route].name.as_str()).collect();
                return Some(names.join(", "));
            }
            if seen.insert(next) {
                ways.push(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}
