//! A device that does no more work for this process: noticed by the executor on it, heard by the app, which drains
//! the process and ends it, so that an orchestrator starts another.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether a device is lost, and why. Clones share it.
#[derive(Clone)]
pub struct DeviceLost(Arc<watch::Sender<Option<String>>>);

impl Default for DeviceLost {
    fn default() -> DeviceLost {
        DeviceLost(Arc::new(watch::Sender::new(None)))
    }
}

impl DeviceLost {
    /// Says that a device is lost. The first reason stands: what follows is mostly its consequence.
    pub fn raise(&self, why: &str) {
        self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    /// True once a device is lost.
    pub fn is_raised(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Why a device is lost, where one is.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Resolves with the reason when a device is lost, which may be never.
    pub async fn raised(&self) -> String {
        let mut reason = self.0.subscribe();
        loop {
            if let Some(why) = reason.borrow_and_update().clone() {
                return why;
            }
            if reason.changed().await.is_err() {
                // The sender lives in `self`, so this is never reached; and where nobody can say it, nothing is lost.
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands_and_is_heard_before_and_after() {
        let fault = DeviceLost::default();
        assert!(!fault.is_raised());
        let heard = tokio::spawn({
            let fault = fault.clone();
            async move { fault.raised().await }
        });
        fault.raise("first");
        fault.raise("second");
        assert!(fault.is_raised());
        assert_eq!(heard.await.unwrap(), "first");
        assert_eq!(fault.raised().await, "first");
    }
}
