//! Tests of bodies that are too long, too slow, or wrongly encoded.

use axum::http::HeaderValue;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::stream;

use super::*;

const PACE: Pace = Pace::REQUEST;

fn headers(encoding: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !encoding.is_empty() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
    }
    headers
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads `bytes` with a limit of 1,000 and expects the body, or the status and a part of the message.
async fn check(encoding: &str, bytes: Vec<u8>, expected: Result<&[u8], (u16, &str)>) {
    let bodies = Bodies::new(1000, 1 << 20, 1 << 20, PACE);
    let read = bodies.read(&headers(encoding), Body::from(bytes)).await;
    match (read, expected) {
        (Ok(whole), Ok(expected)) => assert_eq!(whole.as_ref(), expected, "{encoding}"),
        (Err(refusal), Err((status, message))) => {
            let response = crate::http::response::Dialect::V2.refuse(&refusal);
            assert_eq!(response.status().as_u16(), status, "{encoding}: {refusal:?}");
            assert!(
                format!("{refusal:?}").contains(message),
                "{encoding}: {refusal:?}"
            );
        }
        (read, expected) => panic!("{encoding}: {read:?}, expected {expected:?}"),
    }
    assert_eq!(bodies.memory.held(), 0, "every share went back");
}

#[tokio::test]
async fn a_body_is_inflated_as_its_header_says() {
    let text = b"{\"inputs\": []}".repeat(50);
    check("", text.clone(), Ok(&text)).await;
    check("identity", text.clone(), Ok(&text)).await;
    check("gzip", gzip(&text), Ok(&text)).await;
    check(
        "GZIP",
        [gzip(b"two "), gzip(b"members")].concat(),
        Ok(b"two members"),
    )
    .await;
    check("deflate", zlib(&text), Ok(&text)).await;
    check("gzip", gzip(b""), Ok(b"")).await;
    check("br", text.clone(), Err((415, "gzip, deflate or none"))).await;
    check("gzip, gzip", text, Err((415, "not known"))).await;
}

#[tokio::test]
async fn a_body_is_bounded_on_the_wire_and_inflated() {
    check("", vec![b'x'; 1000], Ok(&[b'x'; 1000])).await;
    check("", vec![b'x'; 1001], Err((413, "max_request_bytes = 1000"))).await;
    check("gzip", gzip(&[0; 1000]), Ok(&[0; 1000])).await;
    let bomb = gzip(&vec![0; 900_000]);
    assert!(bomb.len() < 1000, "small on the wire: {}", bomb.len());
    check("gzip", bomb, Err((413, "max_request_bytes = 1000"))).await;
    let bomb = gzip(&gzip(&vec![0; 900_000]));
    check("gzip", bomb.clone(), Ok(&gzip(&vec![0; 900_000]))).await;
}

#[tokio::test]
async fn truncated_gzip_is_refused() {
    let whole = gzip(&b"some text that compresses to more than a handful of bytes".repeat(3));
    check(
        "gzip",
        whole[..whole.len() - 9].to_vec(),
        Err((400, "not whole gzip")),
    )
    .await;
    check("gzip", b"{}".to_vec(), Err((400, "not whole gzip"))).await;
    check("deflate", b"{}".to_vec(), Err((400, "not whole deflate"))).await;
    let mut broken = whole.clone();
    let last = broken.len() - 6;
    broken[last] ^= 1;
    check("gzip", broken, Err((400, "not whole gzip"))).await;
}

#[tokio::test]
async fn a_promise_beyond_the_limit_is_refused_before_it_is_read() {
    let bodies = Bodies::new(1000, 1000, 1 << 20, PACE);
    let mut headers = headers("");
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1001"));
    headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    let never = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
    let refusal = bodies.read(&headers, never).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::Http(StatusCode::PAYLOAD_TOO_LARGE, _)),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn all_bodies_share_one_memory_and_small_ones_have_a_reserve() {
    const LARGE: usize = 100_000;
    let bodies = Bodies::new(LARGE, 4 * LARGE, 1 << 20, PACE);
    let read = |bytes: usize| {
        let bodies = &bodies;
        async move { bodies.read(&headers(""), Body::from(vec![1; bytes])).await }
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(read(LARGE).await.unwrap());
    }
    let refusal = read(LARGE).await.unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::Rejected(Rejection::Overloaded { bound: 300_000, .. })
        ),
        "{refusal:?}"
    );
    held.push(read(1000).await.unwrap());
    held.clear();
    read(LARGE).await.unwrap();
    assert_eq!(bodies.memory.held(), 0);
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_its_memory_returns() {
    let pace = Pace {
        window: Duration::from_millis(20),
        ..PACE
    };
    let bodies = Bodies::new(1 << 20, 1 << 20, 1 << 20, pace);
    let chunks = stream::iter([Ok::<_, io::Error>(Bytes::from(vec![0; 500_000]))]).chain(stream::pending());
    // The client sends its body without waiting for leave, and nothing is read on.
    let mut headers = headers("");
    headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    let refusal = bodies
        .read(&headers, Body::from_stream(chunks))
        .await
        .unwrap_err();
    let Refusal::Http(StatusCode::REQUEST_TIMEOUT, message) = &refusal else {
        panic!("{refusal:?}")
    };
    assert!(message.contains("500000 bytes in "), "{message}");
    assert_eq!(bodies.memory.held(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_told_from_one_that_frames_wrongly() {
    let bodies = Bodies::new(4096, 4096, 1 << 20, PACE);
    for (kind, cancelled) in [
        (io::ErrorKind::UnexpectedEof, true),
        (io::ErrorKind::InvalidInput, false),
    ] {
        let chunks = stream::iter([Ok(Bytes::from_static(b"{\"inp")), Err(io::Error::from(kind))]);
        let refusal = bodies
            .read(&headers(""), Body::from_stream(chunks))
            .await
            .unwrap_err();
        assert_eq!(
            refusal == Refusal::Rejected(Rejection::Cancelled),
            cancelled,
            "{kind:?}: {refusal:?}"
        );
    }
}
