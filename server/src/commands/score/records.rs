//! From bytes to records: plain lines or JSON Lines, in windows of bounded size.

use std::io::{self, BufRead, BufReader, Read};

use serde_json::{Map, Value};

/// Texts of one window; 16 windows in flight fill several batches of short texts.
const WINDOW_TEXTS: usize = 128;
/// Bytes of text that close a window.
const WINDOW_BYTES: u64 = 1 << 20;
/// Longest line; a longer one is skipped and answered with an error.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Default field of the text.
const DEFAULT_FIELD: &str = "text";

/// One record.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// Its number, from 0.
    pub(super) index: u64,
    /// Its own `id`, if it has one.
    pub(super) id: Option<Value>,
    /// Its text, or the reason why it has none.
    pub(super) text: Result<String, String>,
}

/// Some consecutive records.
#[derive(Debug)]
pub(super) struct Window {
    /// In order; empty at the end of the input.
    pub(super) records: Vec<Record>,
    /// Bytes of input of the records.
    pub(super) read: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Plain,
    Json { field: String },
}

/// Kind of a line.
enum Line {
    Whole,
    TooLong,
}

/// Reads records.
pub(super) struct Records<R> {
    input: BufReader<R>,
    /// Unknown before the first line, unless a field was named.
    form: Option<Form>,
    line: Vec<u8>,
    line_number: u64,
    index: u64,
}

impl<R: Read> Records<R> {
    /// Records of `input`: JSON Lines with the text in `field`; without a field, the first line decides the
    /// form.
    pub(super) fn new(input: BufReader<R>, field: Option<String>) -> Records<R> {
        let form = field.map(|field| Form::Json { field });
        Records {
            input,
            form,
            line: Vec::new(),
            line_number: 0,
            index: 0,
        }
    }

    pub(super) fn next_window(&mut self) -> io::Result<Window> {
        let mut window = Window {
            records: Vec::with_capacity(WINDOW_TEXTS),
            read: 0,
        };
        while window.records.len() < WINDOW_TEXTS && window.read < WINDOW_BYTES {
            let Some((line, read)) = self.next_line()? else {
                break;
            };
            window.read += read;
            let (id, text) = match line {
                Line::TooLong => (
                    None,
                    Err(format!(
                        "line {}: longer than {LINE_BYTES_MAX} bytes",
                        self.line_number
                    )),
                ),
                Line::Whole => match self.parse() {
                    Some(parsed) => parsed,
                    None => continue,
                },
            };
            window.records.push(Record {
                index: self.index,
                id,
                text,
            });
            self.index += 1;
        }
        Ok(window)
    }

    /// Reads the next line into `self.line`, without its end, and returns its bytes; `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<(Line, u64)>> {
        self.line.clear();
        let mut read = 0_u64;
        let mut too_long = false;
        loop {
            let buffer = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            let end = buffer.iter().position(|b| *b == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= self.line.len() + part.len() > LINE_BYTES_MAX;
            if too_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(used);
            read += used as u64;
            if read == 0 {
                return Ok(None);
            }
            if end.is_some() || used == 0 {
                break;
            }
        }
        self.line_number += 1;
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.line_number == 1 && self.line.starts_with(b"\xEF\xBB\xBF") {
            self.line.drain(..3);
        }
        Ok(Some((if too_long { Line::TooLong } else { Line::Whole }, read)))
    }

    /// Id and text of the line; `None` for a blank line between JSON objects. A blank plain line is an empty
    /// text.
    #[allow(clippy::type_complexity, reason = "the two parts of a record, once")]
    fn parse(&mut self) -> Option<(Option<Value>, Result<String, String>)> {
        let number = self.line_number;
        let line = self.line.as_slice();
        let form = self.form.get_or_insert_with(|| guess(line));
        match form {
            Form::Plain => {
                let text = std::str::from_utf8(line).map(str::to_owned);
                Some((None, text.map_err(|e| format!("line {number}: not UTF-8: {e}"))))
            }
            Form::Json { .. } if line.iter().all(u8::is_ascii_whitespace) => None,
            Form::Json { field } => Some(match serde_json::from_slice::<Value>(line) {
                Err(e) => (None, Err(format!("line {number}: not JSON: {e}"))),
                Ok(Value::Object(mut object)) => {
                    let text = text_of(&mut object, field).map_err(|e| format!("line {number}: {e}"));
                    (object.remove("id"), text)
                }
                Ok(other) => (
                    None,
                    Err(format!("line {number}: {}, not a JSON object", kind(&other))),
                ),
            }),
        }
    }
}

/// The form that the first line suggests.
fn guess(line: &[u8]) -> Form {
    match serde_json::from_slice::<Map<String, Value>>(line) {
        Ok(_) => Form::Json {
            field: DEFAULT_FIELD.to_owned(),
        },
        Err(_) => Form::Plain,
    }
}

fn text_of(object: &mut Map<String, Value>, field: &str) -> Result<String, String> {
    match object.get_mut(field) {
        Some(Value::String(text)) => Ok(std::mem::take(text)),
        Some(other) => Err(format!("field `{field}` is {}, not a string", kind(other))),
        None => {
            let has: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
            Err(format!(
                "no field `{field}`; the record has {}",
                if has.is_empty() {
                    "none".into()
                } else {
                    has.join(", ")
                }
            ))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], field: Option<&str>) -> Vec<Record> {
        // A buffer of three bytes splits every line.
        let mut records = Records::new(BufReader::with_capacity(3, input), field.map(str::to_owned));
        let mut all = Vec::new();
        let mut bytes = 0;
        loop {
            let window = records.next_window().unwrap();
            bytes += window.read;
            if window.records.is_empty() {
                assert_eq!(bytes, input.len() as u64);
                return all;
            }
            all.extend(window.records);
        }
    }

    fn check(input: &[u8], field: Option<&str>, expected: &[Result<&str, &str>]) {
        let records = read(input, field);
        let texts: Vec<_> = records
            .iter()
            .map(|r| r.text.as_ref().map(String::as_str).map_err(String::as_str))
            .collect();
        assert_eq!(texts, expected);
        assert!(
            records
                .iter()
                .zip(0..)
                .all(|(record, index)| record.index == index)
        );
    }

    #[test]
    fn plain_lines_are_texts() {
        check(
            b"one\ntwo words\r\n\nlast",
            None,
            &[Ok("one"), Ok("two words"), Ok(""), Ok("last")],
        );
        check(b"one\n", None, &[Ok("one")]);
        check(b"", None, &[]);
        check(
            b"\xEF\xBB\xBFbom\n{\"text\":1}",
            None,
            &[Ok("bom"), Ok("{\"text\":1}")],
        );
        let not = "line 2: not UTF-8: invalid utf-8 sequence of 1 bytes from index 1";
        check(b"fine\na\xFFb\nfine", None, &[Ok("fine"), Err(not), Ok("fine")]);
    }

    #[test]
    fn json_lines_hold_texts_in_a_field() {
        let input = b"{\"text\":\"a\\nb\",\"id\":7}\n\n{\"id\":\"x\"}\nnonsense\n[1]\n{\"text\":null}\n{}";
        let expected = [
            Ok("a\nb"),
            Err("line 3: no field `text`; the record has id"),
            Err("line 4: not JSON: expected ident at line 1 column 2"),
            Err("line 5: an array, not a JSON object"),
            Err("line 6: field `text` is null, not a string"),
            Err("line 7: no field `text`; the record has none"),
        ];
        check(input, None, &expected);
        let ids: Vec<_> = read(input, None).into_iter().map(|r| r.id).collect();
        assert_eq!(ids[..2], [Some(Value::from(7)), Some(Value::from("x"))]);
        check(b"{\"body\":\"b\",\"text\":\"t\"}", Some("body"), &[Ok("b")]);
        check(
            b"plain",
            Some("body"),
            &[Err("line 1: not JSON: expected value at line 1 column 1")],
        );
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_without_being_held() {
        let mut input = vec![b'x'; LINE_BYTES_MAX + 1];
        input.extend_from_slice(b"\nfine\n");
        check(
            &input,
            None,
            &[Err("line 1: longer than 16777216 bytes"), Ok("fine")],
        );
        let exact = [vec![b'x'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
        let mut records = Records::new(BufReader::new(exact.as_slice()), None);
        assert!(records.next_window().unwrap().records[0].text.is_ok());
    }

    #[test]
    fn windows_are_bounded_by_texts_and_by_bytes() {
        let short = "x\n".repeat(300);
        let mut records = Records::new(BufReader::new(short.as_bytes()), None);
        let sizes: Vec<usize> = (0..4)
            .map(|_| records.next_window().unwrap().records.len())
            .collect();
        assert_eq!(sizes, [128, 128, 44, 0]);
        let long = format!("{}\n", "x".repeat(600_000)).repeat(5);
        let mut records = Records::new(BufReader::new(long.as_bytes()), None);
        let sizes: Vec<usize> = (0..4)
            .map(|_| records.next_window().unwrap().records.len())
            .collect();
        assert_eq!(sizes, [2, 2, 1, 0]);
    }
}
