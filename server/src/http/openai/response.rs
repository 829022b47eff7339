//! Embeddings in OpenAI's form, as numbers or as base64 of little-endian f32.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock_models::embedded;
use serde::Deserialize;

use crate::http::response::{Refusal, Turns, bytes_with, push_json};
use penstock_engine::rows::Shape;
use penstock_engine::service::InferenceResponse;

/// Encoding of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorEncoding {
    /// A JSON array.
    #[default]
    Float,
    /// The default of OpenAI's own client, with a quarter of the size.
    Base64,
}

/// The answer to `POST /v1/embeddings`.
pub async fn embeddings(
    scored: &InferenceResponse,
    shape: Shape,
    encoding: VectorEncoding,
) -> Result<Response<Body>, Refusal> {
    let replies = scored.all().map_err(Clone::clone)?;
    let mut out = br#"{"object":"list","data":["#.to_vec();
    let (mut turns, mut vector) = (Turns::default(), Vec::new());
    for (index, reply) in replies.into_iter().enumerate() {
        vector.clear();
        shape.append(embedded(&scored.served.spec, reply)?, &mut vector);
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        push_json(&mut out, &index)?;
        out.extend_from_slice(br#","embedding":"#);
        match encoding {
            VectorEncoding::Float => push_json(&mut out, &vector)?,
            VectorEncoding::Base64 => push_json(&mut out, &base64(&vector))?,
        }
        out.push(b'}');
        turns.give(out.len()).await;
    }
    out.extend_from_slice(br#"],"model":"#);
    push_json(&mut out, &scored.served.name)?;
    let tokens = scored.timings().tokens;
    out.extend_from_slice(
        format!(r#","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#).as_bytes(),
    );
    Ok(bytes_with(StatusCode::OK, "application/json", out))
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_of_little_endian_f32() {
        // 1.0 is 0x3f800000, -2.0 is 0xc0000000.
        assert_eq!(base64(&[1.0, -2.0]), "AACAPwAAAMA=");
    }

    #[test]
    fn numbers_read_back_to_the_same_f32() {
        let values = [0.1_f32, 1.0 / 3.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, -0.0];
        let mut out = Vec::new();
        push_json(&mut out, &values[..]).unwrap();
        let back: Vec<f32> = serde_json::from_slice(&out).unwrap();
        assert_eq!(back.map_bits(), values.to_vec().map_bits());
        assert!(
            out.starts_with(b"[0.1,0.33333334,"),
            "{}",
            String::from_utf8_lossy(&out)
        );
    }

    trait MapBits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl MapBits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
