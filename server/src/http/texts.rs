//! JSON forms of texts on the OpenAI and text-embeddings-inference routes.

use std::fmt;

use penstock_core::Rejection;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};

use super::body::Whole;
use super::measure;
use crate::http::response::Refusal;

/// Size from which a body is parsed on a blocking thread.
const LARGE_BYTES: usize = 256 * 1024;

/// Most texts of one JSON body, independent of `max_request_texts`. An empty text is three bytes on the wire
/// and 24 in a vector, so the body's own limit is a weak bound.
pub const ELEMENTS_MAX: usize = 1 << 20;

/// The error at the first element beyond the bound.
pub fn too_many<E: Error>() -> E {
    E::custom(format_args!("more than {ELEMENTS_MAX} texts in one body"))
}

/// Parses a JSON body, whose member `texts` holds texts. The error names the place.
pub async fn parse<T: DeserializeOwned + Send + 'static>(
    body: Whole,
    texts: &'static str,
) -> Result<T, Refusal> {
    let bytes = body.as_ref().len();
    aside(bytes, move || {
        measure::check(body.as_ref(), body.allowance, texts)?;
        serde_json::from_slice(body.as_ref()).map_err(|e| not_json(&e))
    })
    .await
}

/// Runs work on a body: a small one on this thread, a large one on a blocking thread.
pub async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < LARGE_BYTES {
        return work();
    }
    // An error means that the work panicked; the panic hook has reported it.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Refusal::Rejected(Rejection::Lost)))
}

/// Refusal of a body that is no JSON, or not the JSON of the route.
pub fn not_json(error: &serde_json::Error) -> Refusal {
    let what = if error.is_data() {
        "the body is not what this route takes"
    } else {
        "the body is not JSON"
    };
    Refusal::invalid(format!("{what}: {error}"))
}

/// One text, or many.
#[derive(Debug, PartialEq, Eq)]
pub enum Texts {
    /// A string.
    One(String),
    /// An array of strings.
    Many(Vec<String>),
}

impl Texts {
    /// All texts.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

const TOKENS: &str = "token ids are not taken here: clients make them with another tokenizer than the model's; send the \
                      text itself (check_embedding_ctx_length=False in langchain-openai)";

/// A string; token ids get an error of their own.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
                Err(E::custom(TOKENS))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Text, A::Error> {
                Err(A::Error::custom(TOKENS))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Texts, D::Error> {
        struct TextsVisitor;
        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Texts, E> {
                Ok(Texts::One(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(Text(text)) = seq.next_element()? {
                    if texts.len() == ELEMENTS_MAX {
                        return Err(too_many());
                    }
                    texts.push(text);
                }
                Ok(Texts::Many(texts))
            }
        }
        deserializer.deserialize_any(TextsVisitor)
    }
}

/// Input of `/predict`: a string or `[string]` is one text, `[[string], …]` are many. Two strings side by
/// side are a pair, which no served task accepts.
#[derive(Debug, PartialEq, Eq)]
pub struct Predicted(pub Texts);

const PAIR: &str =
    "pairs of texts are not taken by this model; for several texts send [[\"first\"], [\"second\"]]";

impl<'de> Deserialize<'de> for Predicted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Predicted, D::Error> {
        struct PredictedVisitor;
        impl<'de> Visitor<'de> for PredictedVisitor {
            type Value = Predicted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of arrays of one string each")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Predicted, E> {
                Ok(Predicted(Texts::One(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Predicted, E> {
                Ok(Predicted(Texts::One(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Predicted, A::Error> {
                let mut many = Vec::new();
                let mut one: Option<String> = None;
                while let Some(texts) = seq.next_element::<Texts>()? {
                    match texts {
                        _ if one.is_some() => return Err(A::Error::custom(PAIR)),
                        Texts::One(text) if many.is_empty() => one = Some(text),
                        Texts::One(_) => {
                            return Err(A::Error::custom("strings and arrays of strings cannot be mixed"));
                        }
                        Texts::Many(texts) => match <[String; 1]>::try_from(texts) {
                            Ok(_) if many.len() == ELEMENTS_MAX => return Err(too_many()),
                            Ok([text]) => many.push(text),
                            Err(texts) if texts.is_empty() => {
                                return Err(A::Error::custom("an inner array is empty; it takes one string"));
                            }
                            Err(_) => return Err(A::Error::custom(PAIR)),
                        },
                    }
                }
                Ok(Predicted(one.map_or(Texts::Many(many), Texts::One)))
            }
        }
        deserializer.deserialize_any(PredictedVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: DeserializeOwned + fmt::Debug + PartialEq>(json: &str, expected: Result<T, &str>) {
        match (serde_json::from_str::<T>(json), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{json}"),
            (Err(found), Err(expected)) => {
                assert!(found.to_string().contains(expected), "{json}: {found}");
            }
            (found, expected) => panic!("{json}: {found:?}, expected {expected:?}"),
        }
    }

    fn many(texts: &[&str]) -> Texts {
        Texts::Many(texts.iter().map(|&t| t.to_owned()).collect())
    }

    #[test]
    fn texts_are_a_string_or_an_array() {
        check("\"a\"", Ok(Texts::One("a".into())));
        check("\"\"", Ok(Texts::One(String::new())));
        check("[\"a\", \"b\\u00e9\"]", Ok(many(&["a", "bé"])));
        check("[]", Ok(many(&[])));
        check::<Texts>("[1, 2]", Err("token ids are not taken"));
        check::<Texts>("[[1, 2], [3]]", Err("token ids are not taken"));
        check::<Texts>("[\"a\", 1]", Err("token ids are not taken"));
        check::<Texts>("[\"a\", null]", Err("expected a string"));
        check::<Texts>("{}", Err("expected a string or an array of strings"));
        check::<Texts>("\"\\ud800\"", Err("hex escape"));
    }

    #[test]
    fn predict_reads_texts_as_text_embeddings_inference_does() {
        check("\"a\"", Ok(Predicted(Texts::One("a".into()))));
        check("[\"a\"]", Ok(Predicted(Texts::One("a".into()))));
        check("[[\"a\"], [\"b\"]]", Ok(Predicted(many(&["a", "b"]))));
        check("[]", Ok(Predicted(many(&[]))));
        check::<Predicted>("[\"a\", \"b\"]", Err("pairs"));
        check::<Predicted>("[[\"a\", \"b\"]]", Err("pairs"));
        check::<Predicted>("[[\"a\"], \"b\"]", Err("mixed"));
        check::<Predicted>("[[]]", Err("empty"));
        check::<Predicted>("7", Err("expected a string"));
    }
}
