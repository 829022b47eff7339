//! The deadline in a gRPC client's metadata, and the context of a request with it.

use std::time::Duration;

use penstock_core::{RequestContext, Source};
use penstock_engine::service::InferenceService;
use tonic::metadata::MetadataMap;

/// Context of a gRPC request that was just received.
pub fn context(service: &InferenceService, metadata: &MetadataMap) -> RequestContext {
    let received = service.clock().now();
    let deadline = timeout(metadata).map(|timeout| received + timeout);
    RequestContext::new(Source::Grpc, received).due(deadline)
}

/// Value of `grpc-timeout`: up to eight digits and a unit. An unreadable value is ignored, because the client
/// keeps its own deadline anyway.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<Duration>) {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        assert_eq!(timeout(&metadata), expected, "{value}");
    }

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        check("2H", Some(Duration::from_hours(2)));
        check("3M", Some(Duration::from_mins(3)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("250m", Some(Duration::from_millis(250)));
        check("0u", Some(Duration::ZERO));
        check("7n", Some(Duration::from_nanos(7)));
        for wrong in ["", "S", "1", "1h", "-1S", "+1S", "123456789n", "1.5S"] {
            check(wrong, None);
        }
        assert_eq!(timeout(&MetadataMap::new()), None);
    }
}
