//! What a client of Kafka says of itself: its log lines, its connections, the records that the broker did not take.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tracing::{debug, error, warn};

/// Log lines of one client in so much time; a broker that is down would fill the log.
const LINES_MAX: usize = 10;
const LINES_WINDOW: Duration = Duration::from_secs(10);

/// What any client says.
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
    /// Nothing said yet by a client of this route.
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

    /// Whose client it is.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// What the client last said of its connections.
    pub fn last_trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// A line of the client's own log.
    pub fn log(&self, level: RDKafkaLogLevel, fac: &str, line: &str) {
        // Both clients get all properties of the route, and each complains about those of the other.
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

    /// A connection in trouble.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        debug!(route = self.route, %error, reason, "a client is in trouble");
        // That all brokers are down says less than why the last of them is.
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

/// A record that the broker did not take.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Where it was to go.
    pub topic: String,
    /// Why it did not.
    pub code: RDKafkaErrorCode,
}

/// A record that the broker refused for what it contains: it would be refused again.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The number that it was sent under.
    pub number: usize,
    /// Why.
    pub code: RDKafkaErrorCode,
}

/// Whether it is the size that is wrong: of a record, or of the batch that it stands in.
pub fn is_too_large(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)
}

/// Whether a record is refused for what it, or another of its batch, contains.
fn is_of_a_record(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::InvalidRecord | Code::InvalidTimestamp) || is_too_large(code)
}

/// What a producer says; its `poll` calls it, on the pump's thread.
pub struct Deliveries {
    /// Like any client.
    pub told: Told,
    undelivered: Mutex<Option<Undelivered>>,
    /// At most those of one transaction.
    refused: Mutex<Vec<Refused>>,
}

impl Deliveries {
    /// Of a producer of this route.
    pub fn new(route: &str) -> Deliveries {
        Deliveries {
            told: Told::new(route),
            undelivered: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The first record since the last look that the broker did not take.
    pub fn take_undelivered(&self) -> Option<Undelivered> {
        self.undelivered.lock().take()
    }

    /// The client itself refuses a record.
    pub fn refuse(&self, number: usize, code: RDKafkaErrorCode) {
        if is_of_a_record(code) {
            self.refused.lock().push(Refused { number, code });
        }
    }

    /// The records since the last look that were refused for what they contain, or for what others beside them do.
    pub fn take_refused(&self) -> Vec<Refused> {
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
    // A number and no box: of what arrives nothing is reported, so that nobody would ever free it.
    type DeliveryOpaque = usize;

    // Called for failures alone: the producer is made with `delivery.report.only.error`.
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        use RDKafkaErrorCode as Code;
        let Err((error, record)) = result else {
            return;
        };
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        self.refuse(number, code);
        let mut first = self.undelivered.lock();
        // What its neighbours contain is not why.
        if first
            .as_ref()
            .is_none_or(|first| first.code == Code::InvalidDifferentRecord)
        {
            let topic = record.topic().to_owned();
            *first = Some(Undelivered { topic, code });
        }
    }
}
