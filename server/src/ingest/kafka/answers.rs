//! From a record to its text, and from its score to the record that leaves.

use std::sync::Arc;

use penstock_core::{Rejection, Reply};
use rdkafka::message::{BorrowedMessage, Header};

use super::work::{Answer, Fate, Taken, Wish};
use crate::config::KafkaRoute;
use crate::lane::Lane;
use crate::respond::kafka::{Outgoing, Reason};

/// How records of a route are read and answered.
pub struct Answers {
    route: Arc<KafkaRoute>,
    wish: Wish,
}

/// What a record turned out to be.
pub enum Read {
    /// A text to be scored.
    Text(Wish, String, Taken),
    /// Nothing to score.
    Answer(Taken, Answer),
}

impl Answers {
    /// Of a route.
    pub fn new(route: Arc<KafkaRoute>) -> Answers {
        let wish = Wish {
            model: route.model.as_str().into(),
            class: route.class,
            timeout: None,
        };
        Answers { route, wish }
    }

    /// The route.
    pub fn route(&self) -> &KafkaRoute {
        &self.route
    }

    /// The version of a model that is asked for.
    pub fn version(&self, model: &str) -> &str {
        if model == self.route.model {
            &self.route.version
        } else {
            ""
        }
    }

    fn text(&self, taken: &Taken) -> Result<String, String> {
        let value = taken.value.as_deref().ok_or("the value is null")?;
        match &self.route.field {
            None => String::from_utf8(value.to_vec()).map_err(|e| e.to_string()),
            Some(field) => {
                let json: serde_json::Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
                let text = json.get(field).and_then(|value| value.as_str());
                text.map(str::to_owned)
                    .ok_or_else(|| format!("there is no text in field {field}"))
            }
        }
    }

    /// Reads a record.
    pub fn read(&self, _: &BorrowedMessage<'_>, taken: Taken) -> Read {
        if taken.value.is_none() {
            let answer = leave(&self.route.output, None, &taken, Fate::Tombstone);
            return Read::Answer(taken, answer);
        }
        if let Ok(text) = self.text(&taken) {
            return Read::Text(self.wish.clone(), text, taken);
        }
        let answer = self.dead(&taken);
        Read::Answer(taken, answer)
    }

    /// The text of a record that was read before.
    pub fn text_again(&self, taken: &Taken) -> String {
        self.text(taken).unwrap_or_default()
    }

    fn dead(&self, taken: &Taken) -> Answer {
        let value = taken.value.clone();
        leave(&self.route.dead_letter, value, taken, Fate::Dead(Reason))
    }

    /// The answer of a record that was scored.
    pub fn scored(&self, lane: &Lane, reply: &Reply, taken: &Taken) -> Answer {
        let json = match reply {
            Reply::Embedding(vector) => serde_json::json!({ "model": lane.name, "embedding": vector }),
            Reply::Classes { probabilities, .. } => {
                serde_json::json!({ "model": lane.name, "probabilities": probabilities })
            }
        };
        let payload = serde_json::to_vec(&json).ok();
        leave(&self.route.output, payload, taken, Fate::Scored)
    }

    /// The answer of a record that was refused.
    pub fn rejected(&self, _: Option<&Lane>, _: &Rejection, taken: &Taken) -> Answer {
        self.dead(taken)
    }
}

fn leave(topic: &str, payload: Option<Vec<u8>>, taken: &Taken, fate: Fate) -> Answer {
    let source = Header {
        key: "penstock-source-topic",
        value: Some(&taken.source.topic),
    };
    let headers = taken.headers.clone().unwrap_or_default();
    let record = Outgoing {
        topic: topic.to_owned(),
        key: taken.key.clone(),
        payload,
        headers: headers.insert(source),
        timestamp: taken.timestamp,
    };
    Answer { record, fate }
}
