//! From a window of records to its lines of output.

use penstock_core::{Class, Outcome, Rejection, RequestContext, Source};
use penstock_models::ModelSpec;
use serde::Serialize;
use serde_json::Value;

use super::records::{Record, Window};
use penstock_engine::request::{InferenceRequest, Input};
use penstock_engine::rows::Object;
use penstock_engine::served_model::WhenFull;
use penstock_engine::service::InferenceService;

/// The output of one window.
pub(super) struct Lines {
    /// One JSON object per record, in order.
    pub(super) text: Vec<u8>,
    /// Bytes of input that the records took.
    pub(super) read: u64,
    /// Number of records.
    pub(super) records: u64,
    /// Number of records with an error.
    pub(super) failed: u64,
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(flatten)]
    result: Scores<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Scores<'a> {
    Outputs(Object<'a>),
    Error { error: String },
}

/// Scores the records that have a text, and writes a line for each record.
pub(super) async fn score(service: &InferenceService, model: &str, window: Window) -> Lines {
    let Window { mut records, read } = window;
    let texts: Vec<Input> = records
        .iter_mut()
        .filter_map(|record| record.text.as_mut().ok().map(std::mem::take))
        .map(Input::Text)
        .collect();
    let mut lines = Lines {
        text: Vec::new(),
        read,
        records: records.len() as u64,
        failed: 0,
    };
    if texts.is_empty() {
        for record in &records {
            lines.push(record, error_of(record));
        }
        return lines;
    }
    let context = RequestContext {
        class: Class::Bulk,
        ..RequestContext::new(Source::File, service.clock().now())
    };
    let scored = async {
        let request = InferenceRequest {
            served: service.find(model, "", &context)?,
            inputs: texts,
            context,
            room: WhenFull::Block,
        };
        service.score(request).await
    };
    match scored.await {
        Ok(scored) => {
            let mut rows = scored.rows.iter();
            for record in &records {
                let result = match &record.text {
                    Ok(_) => rows.next().map_or_else(
                        || refused(&Rejection::Lost),
                        |row| scores(&scored.served.spec, row),
                    ),
                    Err(_) => error_of(record),
                };
                lines.push(record, result);
            }
        }
        Err(rejection) => {
            for record in &records {
                let result = if record.text.is_ok() {
                    refused(&rejection)
                } else {
                    error_of(record)
                };
                lines.push(record, result);
            }
        }
    }
    lines
}

impl Lines {
    fn push(&mut self, record: &Record, result: Scores<'_>) {
        self.failed += u64::from(matches!(result, Scores::Error { .. }));
        let before = self.text.len();
        let line = Line {
            index: record.index,
            id: record.id.as_ref(),
            result,
        };
        if let Err(e) = serde_json::to_writer(&mut self.text, &line) {
            // Strings, numbers and maps of them always serialise; should one fail, the record still gets a
            // line.
            self.text.truncate(before);
            self.failed += 1;
            self.text
                .extend_from_slice(format!("{{\"index\":{},\"error\":\"{e:?}\"}}", record.index).as_bytes());
        }
        self.text.push(b'\n');
    }
}

fn error_of(record: &Record) -> Scores<'static> {
    Scores::Error {
        error: record.text.as_ref().err().cloned().unwrap_or_default(),
    }
}

fn refused(rejection: &Rejection) -> Scores<'static> {
    Scores::Error {
        error: rejection.to_string(),
    }
}

fn scores<'a>(spec: &'a ModelSpec, row: &'a Outcome) -> Scores<'a> {
    let object = row
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|reply| Object::of(spec, reply));
    match object {
        Ok(object) => Scores::Outputs(object.by_label(spec)),
        Err(rejection) => refused(&rejection),
    }
}
