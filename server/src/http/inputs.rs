//! Inputs of text-embeddings-inference's `/embed`: texts, or token ids of the model's own tokenizer.

use std::fmt;

use penstock_engine::request::Input;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::texts::{ELEMENTS_MAX, too_many};

/// A string or an array of ids is one input, an array of them is many.
#[derive(Debug, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

const IDS: &str =
    "an array of token ids holds whole numbers from 0 alone; for several inputs send [[1, 2], [3]]";

/// An element of `inputs`: one id, or a whole input.
enum Element {
    Id(u32),
    Whole(Input),
}

fn id<E: Error>(number: u64) -> Result<u32, E> {
    u32::try_from(number).map_err(|_| E::custom(format_args!("token id {number} is in no vocabulary")))
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or an array of token ids")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Whole(Input::Text(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Element, E> {
        Ok(Element::Whole(Input::Text(text)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Element, E> {
        id(number).map(Element::Id)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        let mut ids = Vec::new();
        while let Some(element) = seq.next_element()? {
            match element {
                Element::Id(id) => ids.push(id),
                Element::Whole(_) => return Err(A::Error::custom(IDS)),
            }
        }
        Ok(Element::Whole(Input::TokenIds(ids)))
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Inputs, D::Error> {
        struct InputsVisitor;
        impl<'de> Visitor<'de> for InputsVisitor {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, or arrays of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Inputs, E> {
                Ok(Inputs(vec![Input::Text(text.to_owned())]))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Inputs, E> {
                Ok(Inputs(vec![Input::Text(text)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
                let (mut many, mut ids) = (Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Id(id) if many.is_empty() => ids.push(id),
                        Element::Whole(_) if many.len() == ELEMENTS_MAX => return Err(too_many()),
                        Element::Whole(input) if ids.is_empty() => many.push(input),
                        Element::Id(_) | Element::Whole(_) => return Err(A::Error::custom(IDS)),
                    }
                }
                if !ids.is_empty() {
                    many.push(Input::TokenIds(ids));
                }
                Ok(Inputs(many))
            }
        }
        deserializer.deserialize_any(InputsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<Vec<Input>, &str>) {
        match (serde_json::from_str::<Inputs>(json), expected) {
            (Ok(Inputs(found)), Ok(expected)) => assert_eq!(found, expected, "{json}"),
            (Err(found), Err(expected)) => {
                assert!(found.to_string().contains(expected), "{json}: {found}");
            }
            (found, expected) => panic!("{json}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn inputs_are_texts_or_token_ids() {
        let text = |text: &str| Input::Text(text.to_owned());
        let ids = |ids: &[u32]| Input::TokenIds(ids.to_vec());
        check("\"a\"", Ok(vec![text("a")]));
        check("[\"a\", \"b\"]", Ok(vec![text("a"), text("b")]));
        check("[101, 7, 102]", Ok(vec![ids(&[101, 7, 102])]));
        check("[[101, 102], [5]]", Ok(vec![ids(&[101, 102]), ids(&[5])]));
        check("[\"a\", [5]]", Ok(vec![text("a"), ids(&[5])]));
        check("[[]]", Ok(vec![ids(&[])]));
        check("[]", Ok(Vec::new()));
    }

    #[test]
    fn a_wrong_id_is_refused_by_name() {
        check("[1, \"a\"]", Err("whole numbers from 0"));
        check("[\"a\", 1]", Err("whole numbers from 0"));
        check("[[1, [2]]]", Err("whole numbers from 0"));
        check("[[1, \"a\"]]", Err("whole numbers from 0"));
        check("[4294967296]", Err("token id 4294967296 is in no vocabulary"));
        check("[-1]", Err("invalid type: integer `-1`"));
        check("[1.5]", Err("a token id"));
        check("[null]", Err("a token id"));
        check("{}", Err("a string, an array of strings, or arrays of token ids"));
    }
}
