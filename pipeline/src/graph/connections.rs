//! Connections: the address of a cluster or a database.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::section::{Section, text};

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its kind with its address.
    pub place: Place,
    /// Settings of a Kafka client: as they are, from files, from the environment.
    pub client: [BTreeMap<String, String>; 3],
}

/// Kind of a connection with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bootstrap servers of a Kafka cluster.
    Kafka(String),
    /// PostgreSQL: its URL, or the file that holds it.
    Postgres {
        /// The URL, or the path of the file.
        url: String,
        /// Whether it is a file.
        from_file: bool,
    },
    /// Nodes of a Redis cluster.
    Redis(Vec<String>),
}

impl Place {
    /// Name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Place::Kafka(_) => "kafka",
            Place::Postgres { .. } => "postgres",
            Place::Redis(_) => "redis_cluster",
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> Result<Connection, Fault> {
    let mut places = Vec::new();
    if let Some(brokers) = section.text("kafka")? {
        places.push(Place::Kafka(brokers.value));
    }
    for (key, from_file) in [("postgres", false), ("postgres_file", true)] {
        if let Some(url) = section.text(key)? {
            let url = url.value;
            places.push(Place::Postgres { url, from_file });
        }
    }
    if let Some(nodes) = section.texts("redis_cluster")? {
        places.push(Place::Redis(nodes.into_iter().map(|node| node.value).collect()));
    }
    let client = [
        settings(section, "client")?,
        settings(section, "client_files")?,
        settings(section, "client_env")?,
    ];
    section.finish(&["mysql", "redis", "kinesis", "schema_registry"])?;
    let one = "one of `kafka`, `postgres`, `postgres_file` and `redis_cluster`";
    match (places.pop(), places.is_empty()) {
        (Some(place), true) => {
            let is_kafka = matches!(place, Place::Kafka(_));
            if !is_kafka && client.iter().any(|map| !map.is_empty()) {
                return Err(section.fault(format!(
                    "`{}` has settings of a Kafka client, but is no Kafka connection",
                    section.path()
                )));
            }
            Ok(Connection { place, client })
        }
        _ => Err(section.fault(format!("`{}` needs {one}, and only one", section.path()))),
    }
}

fn settings(section: &Section<'_>, key: &'static str) -> Result<BTreeMap<String, String>, Fault> {
    let Some(inner) = section.section(key)? else {
        return Ok(BTreeMap::new());
    };
    let entry = |(name, value): (crate::section::Placed<&str>, _)| {
        let setting = text(&inner.at(name.value), value)?;
        Ok((name.value.to_owned(), setting.value))
    };
    inner.entries().into_iter().map(entry).collect()
}
