//! Records to Kafka: outputs of scored records, and the transaction that writes them.

mod call_with_timeout;
mod client_shutdown;

mod progress;

mod deliveries;

mod record;

mod produce;

mod transaction;

pub use client_shutdown::{ClientShutdown, clients_alive};
pub use deliveries::{Deliveries, Refused, Told, is_too_large};
pub use produce::Partitions;
pub use progress::{Hand, LOOK, Progress, Still};
pub use record::{Carried, DeadLetter, Outgoing, dead, scored, tombstone, value};
pub use transaction::{Writer, remedy};

/// Reason why a route cannot simply continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The transaction is aborted, and its records are read again.
    #[error("{0}")]
    Abort(String),
    /// The clients cannot recover; new ones begin at the committed positions.
    #[error("{0}")]
    Restart(String),
    /// Another consumer has the transactional id. Continuing would only fence each other.
    #[error("{0}")]
    Fatal(String),
}
