//! Reasons why a route cannot simply continue.

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
