//! Events of a Kafka client: log lines, connection errors, and undelivered records.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tracing::{debug, error, warn};

/// Log lines of one client in an interval; a broker that is down would otherwise fill the log.
const LINES_MAX: usize = 10;
const LINES_WINDOW: Duration = Duration::from_secs(10);

/// Events of any client.
pub struct Told {
    route: String,
    trouble: Mutex<Option<String>>,
    lines: Mutex<Lines>,
}

struct Lines {
    since: Instant,
    written: usize,
}

impl Told {
    /// No events yet, for a client of this route.
    pub fn new(route: &str) -> Told {
        Told {
            route: route.to_owned(),
            trouble: Mutex::default(),
            lines: Mutex::new(Lines {
                since: Instant::now(),
                written: 0,
            }),
        }
    }

    /// Route of the client.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Last connection error.
    pub fn last_trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Handles a line of the client's own log.
    pub fn log(&self, level: RDKafkaLogLevel, fac: &str, line: &str) {
        // Both clients get all properties of the route, and each warns about the other's.
        let others = fac == "CONFWARN" && line.contains(" property and will be ignored by ");
        if others || !self.may_log() {
            return;
        }
        let route = self.route.as_str();
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => error!(route, fac, "{line}"),
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => warn!(route, fac, "{line}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(route, fac, "{line}"),
        }
    }

    /// Handles a connection error.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        debug!(route = self.route, %error, reason, "a client is in trouble");
        // The error of the last broker tells more than "all brokers are down".
        let mut trouble = self.trouble.lock();
        if trouble.is_none() || *error != KafkaError::Global(RDKafkaErrorCode::AllBrokersDown) {
            *trouble = Some(reason.to_owned());
        }
    }

    fn may_log(&self) -> bool {
        let mut lines = self.lines.lock();
        if lines.since.elapsed() > LINES_WINDOW {
            *lines = Lines {
                since: Instant::now(),
                written: 0,
            };
        }
        lines.written += 1;
        lines.written <= LINES_MAX
    }
}

/// A record that was not delivered.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Its topic.
    pub topic: String,
    /// The error.
    pub code: RDKafkaErrorCode,
}

/// Whether the size of a record or of its batch is the error.
pub fn is_too_large(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)
}

/// Whether a record is refused for its content, or for that of another record of its batch.
fn is_of_a_record(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::InvalidRecord | Code::InvalidTimestamp) || is_too_large(code)
}

/// Events of a producer; the client's `poll` adds them, on the pump's thread.
pub struct Deliveries {
    /// Events of any client.
    pub told: Told,
    undelivered: Mutex<Option<Undelivered>>,
    /// Refused records by number, at most those of one transaction.
    refused: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

impl Deliveries {
    /// No events yet, for a producer of this route.
    pub fn new(route: &str) -> Deliveries {
        Deliveries {
            told: Told::new(route),
            undelivered: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The first undelivered record since the last call.
    pub fn take_undelivered(&self) -> Option<Undelivered> {
        self.undelivered.lock().take()
    }

    /// Notes a record that the client itself refuses.
    pub fn refuse(&self, number: usize, code: RDKafkaErrorCode) {
        if is_of_a_record(code) {
            self.refused.lock().push((number, code));
        }
    }

    /// Records refused since the last call, for their content or that of others in their batch, by the number
    /// they were sent with. A retry would be refused too.
    pub fn take_refused(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        std::mem::take(&mut self.refused.lock())
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, line: &str) {
        self.told.log(level, fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.told.error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    // A number, not a box: delivered records are not reported, so a box would never be freed.
    type DeliveryOpaque = usize;

    // Called for failures only: the producer is created with `delivery.report.only.error`.
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        use RDKafkaErrorCode as Code;
        let Err((error, record)) = result else {
            return;
        };
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        self.refuse(number, code);
        let mut first = self.undelivered.lock();
        // Its neighbours' content is not the reason.
        if first
            .as_ref()
            .is_none_or(|first| first.code == Code::InvalidDifferentRecord)
        {
            let topic = record.topic().to_owned();
            *first = Some(Undelivered { topic, code });
        }
    }
}
