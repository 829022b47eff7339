//! Reading of a model's files: regular files alone, each up to a bound.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ModelError;

/// Bound of a JSON file. The largest that real models have is a `tokenizer.json` of some 35 MB.
const JSON_BYTES_MAX: u64 = 256 << 20;

/// Opens `file` and returns its length; `None` where it does not exist. A pipe or a device could make the reader wait
/// or read for ever, so only a regular file is opened.
pub(crate) fn open(file: &Path) -> Result<Option<(File, u64)>, ModelError> {
    let io = |e| ModelError::io(file, e);
    let kind = match std::fs::metadata(file) {
        Ok(kind) => kind,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    if !kind.is_file() {
        let kind = if kind.is_dir() {
            "a folder"
        } else {
            "a pipe or a device"
        };
        return Err(ModelError::malformed(file, format!("it is {kind}, not a file")));
    }
    let opened = File::open(file).map_err(io)?;
    let length = opened.metadata().map_err(io)?.len();
    Ok(Some((opened, length)))
}

/// The bytes of `file`; `None` where it does not exist.
pub(crate) fn read(file: &Path) -> Result<Option<Vec<u8>>, ModelError> {
    let Some((opened, length)) = open(file)? else {
        return Ok(None);
    };
    if length > JSON_BYTES_MAX {
        let reason = format!("{length} bytes, more than the {JSON_BYTES_MAX} that are read");
        return Err(ModelError::malformed(file, reason));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The file may grow while it is read.
    let read = opened.take(JSON_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|e| ModelError::io(file, e))?;
    Ok(Some(bytes))
}

/// The JSON in `file`; `None` where the file does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, ModelError> {
    let Some(bytes) = read(file)? else {
        return Ok(None);
    };
    serde_json::from_slice(without_mark(&bytes))
        .map(Some)
        .map_err(|e| ModelError::malformed(file, e))
}

/// The JSON object in `file`; `None` where the file does not exist. Python also writes and reads `NaN` and
/// `Infinity`: here each becomes the text of its name, so a key that needs a number refuses it and all others ignore
/// it.
pub(crate) fn read_object(file: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    let Some(bytes) = read(file)? else {
        return Ok(None);
    };
    let text = without_mark(&bytes);
    let parsed = serde_json::from_slice(text).or_else(|e| match quoted_constants(text) {
        Some(quoted) => serde_json::from_slice(&quoted),
        None => Err(e),
    });
    parsed.map(Some).map_err(|e| ModelError::malformed(file, e))
}

/// Reads `object` into `T`, whose fields all have defaults. The error names the key at fault.
pub(crate) fn keys<T: DeserializeOwned>(file: &Path, object: &Map<String, Value>) -> Result<T, ModelError> {
    T::deserialize(Value::Object(object.clone())).map_err(|whole| {
        let one = |(key, value): (&String, &Value)| {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            let error = T::deserialize(Value::Object(alone)).err()?;
            Some(format!("{key}: {error}"))
        };
        let reason = object.iter().find_map(one);
        ModelError::malformed(file, reason.unwrap_or_else(|| whole.to_string()))
    })
}

/// Some tools write a byte order mark, which JSON does not allow.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// `text` with Python's constants in quotes; `None` where it has none outside of its strings.
fn quoted_constants(text: &[u8]) -> Option<Vec<u8>> {
    const CONSTANTS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut out = Vec::with_capacity(text.len() + 16);
    let (mut at, mut in_string, mut found) = (0, false, false);
    while let Some(&byte) = text.get(at) {
        let constant = CONSTANTS.iter().find(|c| !in_string && text[at..].starts_with(c));
        if let Some(constant) = constant {
            out.push(b'"');
            out.extend_from_slice(constant);
            out.push(b'"');
            at += constant.len();
            found = true;
            continue;
        }
        out.push(byte);
        at += 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                out.extend(text.get(at));
                at += 1;
            }
            _ => {}
        }
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn constants_of_python_are_texts_and_texts_stay_as_they_are() {
        let (_folder, file) =
            written(br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN, \"Infinity", "d": 1}"#);
        let object = read_object(&file).unwrap().unwrap();
        let expected = serde_json::json!(
            {"a": "NaN", "b": ["-Infinity", "Infinity"], "c": "NaN, \"Infinity", "d": 1}
        );
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn broken_json_is_reported_as_it_stands() {
        let (_folder, file) = written(br#"{"a": "#);
        let message = read_object(&file).unwrap_err().to_string();
        assert!(message.contains("config.json: EOF"), "{message}");
        let (_folder, file) = written(b"[1]");
        assert!(read_object(&file).is_err());
    }

    #[test]
    fn a_key_of_the_wrong_kind_is_named() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        struct Two {
            first: u32,
            second: Option<f32>,
        }
        let object = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let file = Path::new("config.json");
        let two: Two = keys(file, &object(r#"{"first": 1, "other": "NaN"}"#)).unwrap();
        assert_eq!((two.first, two.second), (1, None));
        let error = keys::<Two>(file, &object(r#"{"first": 1, "second": "NaN"}"#));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("config.json: second: invalid type"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_or_a_folder_is_refused_without_reading_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let message = read_object(&file).unwrap_err().to_string();
        assert!(
            message.contains("it is a pipe or a device, not a file"),
            "{message}"
        );
        let message = read_object(folder.path()).unwrap_err().to_string();
        assert!(message.contains("it is a folder, not a file"), "{message}");
    }
}
