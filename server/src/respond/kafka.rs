//! Records to Kafka: what a scored record becomes, and the transaction in which it leaves.

mod deliveries;

mod produce;

mod transaction;

pub use deliveries::{Deliveries, Told};
pub use produce::Partitions;
pub use transaction::Writer;

/// Why a route cannot go on as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing since the last commit counts: it is undone, and its records are read again.
    #[error("{0}")]
    Abort(String),
    /// The clients are beyond repair; new ones begin at what is committed.
    #[error("{0}")]
    Restart(String),
    /// Somebody else has taken our place. To go on would be to fight over it.
    #[error("{0}")]
    Fatal(String),
}

/// A record that leaves.
pub struct Outgoing {
    /// Where to.
    pub topic: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its headers.
    pub headers: rdkafka::message::OwnedHeaders,
    /// Its time.
    pub timestamp: Option<i64>,
}

/// Why a record is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason;
