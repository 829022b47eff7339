//! Records to Kafka: what a scored record becomes, and the transaction in which it leaves.

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
