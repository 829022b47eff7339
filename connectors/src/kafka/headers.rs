//! Size and readability of a record's headers.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use rdkafka::message::Headers;

/// Overhead of the protocol for one header: two lengths of at most five bytes each.
const FRAME_BYTES: usize = 10;

/// Bytes of a record's headers; `None` if they cannot be read. The protocol allows any bytes as a name, but
/// the client panics on names that are not UTF-8. Headers that pass here can be read again.
pub fn bytes(headers: &impl Headers) -> Option<usize> {
    let bytes = || {
        let bytes = headers
            .iter()
            .map(|header| FRAME_BYTES + header.key.len() + header.value.map_or(0, <[u8]>::len));
        bytes.sum()
    };
    quietly(bytes)
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// `None` if `read` panics. Nothing is printed, because a writer to the topic could fill the log.
fn quietly<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let read = catch_unwind(AssertUnwindSafe(read)).ok();
    QUIET.set(false);
    read
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    /// Stands for the client's panic on a name that is not UTF-8.
    struct Unreadable;

    impl Headers for Unreadable {
        fn count(&self) -> usize {
            1
        }

        fn try_get(&self, _: usize) -> Option<Header<'_, &[u8]>> {
            panic!("Utf8Error")
        }
    }

    #[test]
    fn headers_that_cannot_be_read_are_told_from_none() {
        let header = Header {
            key: "name",
            value: Some("value"),
        };
        let made = OwnedHeaders::new().insert(header);
        assert_eq!(bytes(&made), Some(9 + FRAME_BYTES));
        assert_eq!(bytes(&OwnedHeaders::new()), Some(0));
        assert_eq!(bytes(&Unreadable), None);
        assert!(!QUIET.get(), "other panics are printed");
    }
}
