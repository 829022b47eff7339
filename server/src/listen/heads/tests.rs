//! Tests of the scanner: bytes cut anywhere, bodies of every kind, and faults of heads.

use hyper::header::HeaderValue;

use super::*;

/// Bytes of `sent` as the parser sees them. They arrive in pieces of `cut` bytes. `lengths` are the bodies that the
/// service tells of, one after each head.
fn scan(sent: &[u8], cut: usize, lengths: &[u64]) -> Vec<u8> {
    let (mut scanner, body) = (HeadScanner::default(), BodyLength::default());
    let mut lengths = lengths.iter().peekable();
    let mut seen = Vec::new();
    for piece in sent.chunks(cut) {
        let mut left = piece.to_vec();
        while !left.is_empty() {
            let done = scanner.scan(&mut left, &body);
            assert!(done > 0, "a read of nothing means the end");
            seen.extend(left.drain(..done));
            let is_asked = scanner.at == At::Body && body.0.load(Ordering::Relaxed) == UNKNOWN;
            if let Some(length) = lengths.next_if(|_| is_asked && ends_head(&seen)) {
                body.0.store(*length, Ordering::Relaxed);
            }
        }
    }
    seen
}

fn ends_head(seen: &[u8]) -> bool {
    seen.ends_with(b"\r\n\r\n")
}

#[test]
fn heads_with_right_line_ends_pass_however_they_are_cut() {
    let sent = b"\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\n\r\na\nb\n\nGET / HTTP/1.1\r\n\r\n";
    for cut in 1..=sent.len() {
        assert_eq!(scan(sent, cut, &[0, 5, 0]), sent, "pieces of {cut}");
    }
}

#[test]
fn a_bare_line_feed_in_a_head_is_replaced() {
    for (sent, seen) in [
        (
            &b"GET / HTTP/1.1\nhost: x\r\n\r\n"[..],
            &b"GET / HTTP/1.1\0host: x\r\n\r\n"[..],
        ),
        (
            b"GET / HTTP/1.1\r\nhost: x\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\0\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\n\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n\0",
        ),
        (b"\nGET / HTTP/1.1\r\n\r\n", b"\0GET / HTTP/1.1\r\n\r\n"),
    ] {
        for cut in 1..=sent.len() {
            assert_eq!(scan(sent, cut, &[]), seen, "pieces of {cut}");
        }
    }
}

#[test]
fn the_head_after_a_body_of_known_length_is_looked_at() {
    let sent = b"POST / HTTP/1.1\r\n\r\n\n\nGET / HTTP/1.1\n";
    for cut in 1..=sent.len() {
        assert_eq!(
            scan(sent, cut, &[2]),
            b"POST / HTTP/1.1\r\n\r\n\n\nGET / HTTP/1.1\0",
            "{cut}"
        );
    }
}

#[test]
fn what_follows_a_head_of_unknown_length_passes() {
    let sent = b"POST / HTTP/1.1\r\n\r\n1\r\n\n\r\n0\r\n\r\n\n";
    assert_eq!(scan(sent, 7, &[UNKNOWN]), sent);
}

#[test]
fn hosts_and_codings_are_counted() {
    let check = |fields: &[(hyper::header::HeaderName, &'static str)], version, refused: Option<&str>| {
        let mut request = Request::new(());
        *request.version_mut() = version;
        for (name, value) in fields {
            request
                .headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        let reason = fault(&request);
        assert_eq!(reason.is_some(), refused.is_some(), "{fields:?}: {reason:?}");
        assert!(
            reason.unwrap_or_default().contains(refused.unwrap_or_default()),
            "{reason:?}"
        );
    };
    let (new, old) = (Version::HTTP_11, Version::HTTP_10);
    check(&[(HOST, "x")], new, None);
    check(&[], new, Some("no host"));
    check(&[], old, None);
    check(&[(HOST, "x"), (HOST, "x")], new, Some("several host"));
    check(&[(HOST, "x"), (TRANSFER_ENCODING, "gzip, chunked")], new, None);
    for doubled in ["chunked, chunked", "Chunked,gzip,chunked"] {
        check(
            &[(HOST, "x"), (TRANSFER_ENCODING, doubled)],
            new,
            Some("more than once"),
        );
    }
    let twice = [
        (HOST, "x"),
        (TRANSFER_ENCODING, "chunked"),
        (TRANSFER_ENCODING, "chunked"),
    ];
    check(&twice, new, Some("more than once"));
}
