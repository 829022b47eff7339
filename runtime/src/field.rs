//! Text in a record's value: the whole value, or one field of a JSON object, whose other fields are skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use penstock_telemetry::metrics::DeadReason;

/// Reason why there is no text, as a code and in words.
pub type NoText = (DeadReason, String);

/// The text of a value. The last one of duplicate fields counts.
pub fn text(value: &[u8], field: Option<&str>) -> Result<String, NoText> {
    let utf8 = std::str::from_utf8(value).map_err(|e| {
        let message = format!("the value is not UTF-8: {e}");
        (DeadReason::NotUtf8, message)
    })?;
    let Some(field) = field else {
        return Ok(utf8.to_owned());
    };
    let mut json = serde_json::Deserializer::from_str(utf8);
    let found = Field(field).deserialize(&mut json);
    match found.and_then(|found| json.end().map(|()| found)) {
        Ok(Some(Value::String(text))) => Ok(text),
        Ok(Some(_)) => Err((
            DeadReason::FieldNotText,
            format!("the field `{field}` is not a string"),
        )),
        Ok(None) => Err((
            DeadReason::FieldMissing,
            format!("the value has no field `{field}`"),
        )),
        Err(e) if e.is_data() => Err((
            DeadReason::FieldMissing,
            format!("the value has no field `{field}`: it is not an object"),
        )),
        Err(e) => Err((DeadReason::NotJson, format!("the value is not JSON: {e}"))),
    }
}

/// One field of an object, by its name.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &[u8], field: Option<&str>, expected: Result<&str, DeadReason>) {
        let found = text(value, field).map_err(|(reason, _)| reason);
        let found = found.as_deref().map_err(|reason| *reason);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(value));
    }

    #[test]
    fn a_value_is_its_text() {
        check("Grüße".as_bytes(), None, Ok("Grüße"));
        check(b"", None, Ok(""));
        check(b"a\xff", None, Err(DeadReason::NotUtf8));
    }

    #[test]
    fn a_field_is_found_among_others() {
        let field = Some("text");
        check(
            br#"{"id": [1, {"text": "no"}], "text": "a\n\u00e4", "z": null}"#,
            field,
            Ok("a\nä"),
        );
        check(br#"{"te\u0078t": "escaped"}"#, field, Ok("escaped"));
        check(br#"{"text": "first", "text": "last"}"#, field, Ok("last"));
        check(br#" {"text": ""} "#, field, Ok(""));
    }

    #[test]
    fn errors_are_distinguished() {
        let field = Some("text");
        check(b"{\"text\": \"\xff\"}", field, Err(DeadReason::NotUtf8));
        for broken in [
            "",
            "{",
            r#"{"text": "cut"#,
            r#"{"text": "a"} x"#,
            r#"{"text": "\ud800"}"#,
            "{'text': 1}",
        ] {
            check(broken.as_bytes(), field, Err(DeadReason::NotJson));
        }
        for missing in ["{}", r#"{"Text": "a"}"#, "[]", "null", "7", r#""text""#] {
            check(missing.as_bytes(), field, Err(DeadReason::FieldMissing));
        }
        for other in ["null", "7", "[\"a\"]", "{}", "true"] {
            let value = format!(r#"{{"text": {other}}}"#);
            check(value.as_bytes(), field, Err(DeadReason::FieldNotText));
        }
    }

    #[test]
    fn the_reason_names_the_field_and_no_content() {
        let (_, message) = text(br#"{"body": "private"}"#, Some("text")).unwrap_err();
        assert_eq!(message, "the value has no field `text`");
        let (_, message) = text(b"private \xff", Some("text")).unwrap_err();
        assert_eq!(
            message,
            "the value is not UTF-8: invalid utf-8 sequence of 1 bytes from index 8"
        );
    }
}
