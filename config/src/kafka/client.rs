//! Properties of librdkafka: the ones that the settings decide, the secret ones, and the sources of their
//! values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use super::ClientSource;
use super::raw::{Properties, Property};
use crate::resolve::Step;
use crate::secret::Secret;

/// A certificate chain fits; a larger file is probably the wrong one.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Properties that the settings decide, with the setting to use instead. If both were set, one would silently
/// lose, and records with it.
const OWNED: [(&str, &str); 29] = [
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("group.id", "use `group`"),
    ("group.instance.id", "use `instance` under [server]"),
    ("transactional.id", "use `instance` under [server]"),
    ("transaction.timeout.ms", "use `transaction_timeout`"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("offset.store.path", COMMITS),
    ("offset.store.sync.interval.ms", COMMITS),
    ("enable.idempotence", IDEMPOTENT),
    ("enable.gapless.guarantee", IDEMPOTENT),
    ("acks", ALL_REPLICAS),
    ("request.required.acks", ALL_REPLICAS),
    ("delivery.report.only.error", REPORTS),
    ("dr_cb", REPORTS),
    ("dr_msg_cb", REPORTS),
    ("isolation.level", "only committed records are read"),
    ("partition.assignment.strategy", ASSIGNMENT),
    ("group.protocol", ASSIGNMENT),
    ("group.remote.assignor", ASSIGNMENT),
    ("enable.partition.eof", "the end of a partition is no record"),
    ("statistics.interval.ms", STATISTICS),
    ("stats_cb", STATISTICS),
    ("log_level", "use `log` under [server]"),
    ("log.queue", "use `log` under [server]"),
];
const COMMITS: &str = "offsets are committed with the outputs; use `delivery` and `commit_interval`";
const IDEMPOTENT: &str = "the producer is always idempotent; use `delivery`";
const ALL_REPLICAS: &str =
    "an output counts when all in-sync replicas have it; use `min.insync.replicas` of the topic";
const REPORTS: &str = "every delivery is reported, or commits would not know what was written";
const ASSIGNMENT: &str = "the assignment is cooperative-sticky";
const STATISTICS: &str = "the metrics are made of the statistics";

/// Parts of the names of properties with secret values.
const SECRET: [&str; 8] = [
    "password",
    "secret",
    "token",
    "credential",
    "assertion",
    "key.pem",
    "keystore.pem",
    "oauthbearer.config",
];

/// Whether a property's value is never shown, even where it stands in the file.
pub(super) fn is_secret(name: &str) -> bool {
    // `ssl.key.password` is a secret; the address that tokens are fetched from is not.
    SECRET.iter().any(|part| name.contains(part)) && !name.ends_with("endpoint.url")
}

/// Properties with their values, and the sources of those that do not stand in the file.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) values: BTreeMap<String, Secret<String>>,
    pub(super) sources: BTreeMap<String, ClientSource>,
}

/// An error, and the steps that lead to it from the route's table.
pub(super) type PropertyError = (Vec<Step>, String);

/// The properties of a route from its three tables. `env` reads an environment variable.
pub(super) fn client(
    inline: Properties,
    files: Properties,
    environment: Properties,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Client, PropertyError> {
    let mut client = Client::default();
    for property in inline.0 {
        client.take("client", property, |value| Ok((value, None)))?;
    }
    for property in files.0 {
        client.take("client_files", property, |path| {
            let value = read(&path).map_err(|e| format!("{path}: {e}"))?;
            Ok((value, Some(ClientSource::File(path))))
        })?;
    }
    for property in environment.0 {
        client.take("client_env", property, |variable| {
            let value = env(&variable)
                .ok_or_else(|| format!("the environment variable {variable} is not set, or no text"))?;
            Ok((value, Some(ClientSource::Environment(variable))))
        })?;
    }
    Ok(client)
}

impl Client {
    /// Adds a property of the table `section`. `look` turns the table's entry into the value.
    fn take(
        &mut self,
        section: &'static str,
        property: Property,
        look: impl FnOnce(String) -> Result<(String, Option<ClientSource>), String>,
    ) -> Result<(), PropertyError> {
        let name = property.name();
        let steps = property.path.into_iter().map(Step::Name);
        let wrong = |message| {
            let path = std::iter::once(Step::Key(section)).chain(steps).collect();
            (path, message)
        };
        if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == name) {
            return Err(wrong(format!("`{name}` is not for the client: {instead}")));
        }
        let written = match property.value {
            Ok(written) => written.expose().clone(),
            Err(kind) => {
                return Err(wrong(format!(
                    "`{name}` is {kind}; a property is a string, a number or a bool"
                )));
            }
        };
        if self.values.contains_key(&name) {
            return Err(wrong(format!("`{name}` is set twice in this route")));
        }
        let (value, source) = look(written).map_err(|e| wrong(format!("`{name}`: {e}")))?;
        self.sources.extend(source.map(|source| (name.clone(), source)));
        self.values.insert(name, Secret::new(value));
        Ok(())
    }
}

/// Reads a secret from a file, without the trailing newline that editors add. No error shows the contents.
fn read(path: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("the file is larger than {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
