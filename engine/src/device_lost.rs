//! Loss of a device: the executor detects it, and the app drains and ends the process, so that an
//! orchestrator starts another.

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
    /// Reports the loss of a device. The first reason is kept, because later ones are mostly consequences.
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

    /// Reason of the loss, if a device is lost.
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
                // The sender lives in `self`, so this is unreachable; without a sender no loss can be
                // reported.
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
