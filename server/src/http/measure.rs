//! Memory of a decoded JSON body, measured before it is decoded.
//!
//! A number is two bytes in a body and eight in a vector; an object of three short members grows from forty
//! bytes to hundreds. The values are therefore counted first, by kind, and decoded only if their sum is
//! within the bound. The walk allocates nothing. It is exact up to the first byte that is no JSON (RFC 8259),
//! where the decoder stops.
//!
//! A decoder's errors quote the value that they refuse, escaped, and answers repeat ids. So only texts may be long.

use penstock_proto::schema::STRING_BYTES_MAX;

use crate::http::response::Refusal;

/// Bytes of memory that a value takes with the spare room of the vector that holds it.
const OBJECT: usize = 320;
const ARRAY: usize = 32;
const STRING: usize = 80;
const SCALAR: usize = 16;

/// Bytes of a member's name and value, without the value's contents.
const MEMBER: usize = 160;

/// Deepest nesting: the limit of `serde_json`, applied here to skipped values as well.
const DEPTH_MAX: u32 = 127;

/// Checks that `json` decodes to at most its own length and `allowance` bytes more. Only strings under a member called
/// `texts` may be longer than [`STRING_BYTES_MAX`].
pub fn check(json: &[u8], allowance: usize, texts: &'static str) -> Result<(), Refusal> {
    let bytes_max = json.len().saturating_add(allowance);
    let mut walk = Walk::new(texts);
    while let Some(&byte) = json.get(walk.at) {
        walk.step(byte, json)?;
        if walk.taken > bytes_max {
            return Err(Refusal::invalid(format!(
                "the body has too many values: at byte {} they take more than {bytes_max} bytes of memory once \
                 decoded; send fewer in one request",
                walk.at
            )));
        }
    }
    Ok(())
}

struct Walk {
    at: usize,
    taken: usize,
    depth: u32,
    /// One bit for each level, the innermost lowest: set for an array.
    arrays: u128,
    /// Name of the members that hold texts.
    texts: &'static str,
    /// One bit for each level, the innermost lowest: set where elements are texts.
    long: u128,
    /// Place of the last string, between its quotes: a member's name, if a colon follows.
    last: (usize, usize),
    /// Whether the value behind the last colon is a text, or holds texts.
    member: bool,
}

impl Walk {
    fn new(texts: &'static str) -> Walk {
        Walk {
            at: 0,
            taken: 0,
            depth: 0,
            arrays: 0,
            texts,
            long: 0,
            last: (0, 0),
            member: false,
        }
    }

    /// Whether a value that stands here may be a text.
    fn may_be_long(&self) -> bool {
        if self.in_array() {
            self.long & 1 == 1
        } else {
            self.member
        }
    }

    fn in_array(&self) -> bool {
        self.arrays & 1 == 1
    }

    /// Adds an element; members are counted at their colon.
    fn element(&mut self, bytes: usize) {
        if self.in_array() {
            self.taken += bytes;
        }
    }

    fn step(&mut self, byte: u8, json: &[u8]) -> Result<(), Refusal> {
        self.at += 1;
        match byte {
            b'[' | b'{' => {
                let array = byte == b'[';
                let long = array && self.may_be_long();
                self.element(if array { ARRAY } else { OBJECT });
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Refusal::invalid(format!(
                        "the body is not JSON: recursion limit exceeded at byte {}; arrays and objects may stand \
                         inside of each other {DEPTH_MAX} deep",
                        self.at
                    )));
                }
                self.arrays = self.arrays << 1 | u128::from(array);
                self.long = self.long << 1 | u128::from(long);
                self.member = false;
            }
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.arrays >>= 1;
                self.long >>= 1;
                self.member = false;
            }
            b':' => {
                self.taken += MEMBER;
                self.member = json[self.last.0..self.last.1] == *self.texts.as_bytes();
            }
            b'"' => {
                self.element(STRING);
                let long = self.may_be_long();
                let begin = self.at;
                self.string(json);
                self.last = (begin, self.at.saturating_sub(1).max(begin));
                let bytes = self.last.1 - begin;
                self.member = false;
                if bytes > STRING_BYTES_MAX && !long {
                    return Err(Refusal::invalid(format!(
                        "the string at byte {begin} of the body has {bytes} bytes; only texts may have more than \
                         {STRING_BYTES_MAX}"
                    )));
                }
            }
            b',' => self.member = false,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                self.element(SCALAR);
                self.scalar(json);
            }
        }
        Ok(())
    }

    /// Skips to behind the closing quote.
    fn string(&mut self, json: &[u8]) {
        while let Some(&byte) = json.get(self.at) {
            self.at += match byte {
                b'"' => break,
                b'\\' => 2,
                _ => 1,
            };
        }
        self.at = (self.at + 1).min(json.len());
    }

    /// Skips a number or a literal.
    fn scalar(&mut self, json: &[u8]) {
        let ends = |byte: &u8| {
            matches!(
                byte,
                b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\n' | b'\r' | b'"'
            )
        };
        let rest = json[self.at..].iter().position(ends);
        self.at = rest.map_or(json.len(), |rest| self.at + rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(json: &str) -> usize {
        let mut walk = Walk::new("");
        while let Some(&byte) = json.as_bytes().get(walk.at) {
            walk.step(byte, json.as_bytes()).unwrap();
        }
        assert_eq!((walk.depth, walk.arrays), (0, 0), "{json}");
        walk.taken
    }

    #[test]
    fn every_value_is_counted_by_its_kind() {
        assert_eq!(taken(r#""a text alone, with \" and \\""#), 0);
        assert_eq!(taken("[]"), 0);
        assert_eq!(taken(r#"["a", "[1,2]", "\"", "\\"]"#), 4 * STRING);
        assert_eq!(taken("[1, -2.5e3, true,null]"), 4 * SCALAR);
        assert_eq!(taken(r#"{"a": 1, "b": "x:y", "c": [1]}"#), 3 * MEMBER + SCALAR);
        assert_eq!(
            taken(r#"[{"a": {}}, [["b"]]]"#),
            OBJECT + MEMBER + 2 * ARRAY + STRING
        );
    }

    fn refused(json: &[u8], allowance: usize) -> String {
        format!(
            "{:?}",
            check(json, allowance, "inputs").expect_err("it is refused")
        )
    }

    #[test]
    fn only_texts_may_be_long() {
        let long = "\u{7f}".repeat(STRING_BYTES_MAX + 1);
        for body in [
            "{\"inputs\":\"L\"}",
            "{\"inputs\":[\"L\",[\"L\"]],\"a\":1}",
            "{\"a\":[{\"inputs\":[\"L\"]}]}",
        ] {
            check(body.replace('L', &long).as_bytes(), 1 << 20, "inputs").unwrap();
        }
        for body in [
            "\"L\"",
            "{\"id\":\"L\"}",
            "{\"L\":1}",
            "{\"inputs\":{\"a\":\"L\"}}",
            "{\"inputs\":[{\"L\":1}]}",
            "{\"inputs\":[1],\"a\":[\"L\"]}",
            "{\"inputs\":1,\"a\":\"L\"}",
            "{\"inputs\":\"a\",\"L\":2}",
            "{\"inputs\":1,\"L\":2}",
            "[\"inputs\",\"L\"]",
        ] {
            let message = refused(body.replace('L', &long).as_bytes(), 1 << 20);
            assert!(
                message.contains("only texts") && message.len() < 300,
                "{body}: {message}"
            );
        }
    }

    #[test]
    fn a_body_of_many_small_values_is_refused_before_it_is_decoded() {
        let many = |element: &str| format!("{{\"inputs\":[{}]}}", vec![element; 1 << 18].join(","));
        let input = r#"{"name":"","datatype":"","shape":[]}"#;
        for element in ["{}", "[]", "1", "\"\"", input] {
            let message = refused(many(element).as_bytes(), 1 << 20);
            assert!(message.contains("too many values"), "{message}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(refused(deep.as_bytes(), 1 << 20).contains("recursion limit"));
    }

    #[test]
    fn as_many_texts_as_a_request_may_hold_pass() {
        let texts = vec!["\"a\""; 8192].join(",");
        for body in [
            format!("{{\"inputs\":[{texts}]}}"),
            format!(
                "{{\"inputs\":[{{\"name\":\"text\",\"datatype\":\"BYTES\",\"shape\":[8192],\"data\":[{texts}]}}]}}"
            ),
            format!("{{\"inputs\":[{}]}}", vec!["[\"a\"]"; 8192].join(",")),
        ] {
            check(body.as_bytes(), 160 * 8192, "inputs").unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_measured_without_a_panic(bytes: Vec<u8>) {
            let _ = check(&bytes, 100, "inputs");
        }

        #[test]
        fn strings_hide_what_is_in_them(text: String) {
            let json = serde_json::to_string(&[text]).unwrap();
            prop_assert_eq!(taken(&json), STRING);
        }
    }
}
