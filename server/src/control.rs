//! Model control: which requests may load and unload models.

use hyper::http::HeaderMap;
use hyper::http::header::{HOST, ORIGIN};
use penstock_config::ModelControl;

/// Reason why a request may not load or unload models, on any protocol.
pub fn refusal(control: ModelControl) -> Option<&'static str> {
    match control {
        ModelControl::On => None,
        ModelControl::Off => Some(
            "model control is off, so no request loads or unloads a model; start the server with --model-control on, or \
             set model_control = \"on\" under [server]",
        ),
    }
}

/// Reason why an HTTP request may not load or unload models.
///
/// A page of another site can make a browser send such a request, and cannot keep it from naming its origin.
pub fn http_refusal(control: ModelControl, headers: &HeaderMap) -> Option<String> {
    if let Some(reason) = refusal(control) {
        return Some(reason.to_owned());
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        return None;
    }
    Some(format!(
        "a page of origin {origin:?} may not load or unload models of {host:?}; send the request without a browser"
    ))
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    fn check(control: ModelControl, origin: Option<&'static str>, refused: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("penstock.example:8000"));
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        let reason = http_refusal(control, &headers);
        match (&reason, refused) {
            (None, None) => {}
            (Some(reason), Some(part)) if reason.contains(part) => {}
            _ => panic!("{control} {origin:?}: {reason:?}, expected {refused:?}"),
        }
    }

    #[test]
    fn only_requests_that_no_foreign_page_sent_control_models() {
        check(ModelControl::Off, None, Some("--model-control on"));
        check(
            ModelControl::Off,
            Some("http://penstock.example:8000"),
            Some("--model-control on"),
        );
        check(ModelControl::On, None, None);
        check(ModelControl::On, Some("http://penstock.example:8000"), None);
        check(ModelControl::On, Some("https://Penstock.example:8000"), None);
        for foreign in [
            "http://evil.example",
            "http://penstock.example",
            "null",
            "",
            "file://",
        ] {
            check(ModelControl::On, Some(foreign), Some("may not load or unload"));
        }
    }
}
