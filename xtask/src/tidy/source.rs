//! Rules of a source file: first line, length, name, and the places of `unsafe` and wire types.

use std::path::Path;

/// Longest file. A longer one holds two ideas.
const LINES_MAX: usize = 500;

/// Folders and files of server/ that may name wire types; everything behind them is protocol-neutral.
const WIRE: [&str; 12] = [
    "server/src/grpc.rs",
    "server/src/grpc",
    "server/src/http.rs",
    "server/src/http",
    "server/src/fuzzing.rs",
    "server/src/status.rs",
    "server/src/admin.rs",
    "server/src/app.rs",
    "server/tests",
    "server/examples",
    "server/src/listen/http1",
    "server/src/listen/http2",
];

/// Where `unsafe` may stand beside kernels/: calls of librdkafka that its crate does not wrap.
const UNSAFE: &str = "connectors/src/kafka/native.rs";

/// Where librdkafka's crate may be named: one folder of the connectors, its tests and examples.
const KAFKA: [&str; 4] = [
    "connectors/src/kafka",
    "connectors/src/kafka.rs",
    "connectors/tests",
    "connectors/examples",
];

/// Adds the faults of one file.
pub fn check(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!(
            "{name}: {lines} lines, more than {LINES_MAX}: two ideas?"
        ));
    }
    let rust = file.extension().is_some_and(|e| e == "rs");
    if rust && !text.starts_with("//! ") {
        faults.push(format!(
            "{name}:1: the first line says what the file is for: //! …"
        ));
    }
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    if ["utils", "util", "common", "helpers", "helper", "manager", "misc"].contains(&stem) {
        faults.push(format!("{name}: the name does not say what is inside"));
    }
    // The rest is skipped for xtask, which spells out the forbidden words.
    if file.starts_with("xtask") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{name}:{}: {what}", number + 1));
        for left in ["TODO", "FIXME", "XXX", "#[ignore"] {
            if line.contains(left) {
                fault(&format!("{left} left behind"));
            }
        }
        let code = line.split("//").next().unwrap_or_default();
        let uses_unsafe =
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        if uses_unsafe && !file.starts_with("kernels") && file != Path::new(UNSAFE) {
            fault(&format!("unsafe belongs in kernels/ and {UNSAFE} alone"));
        }
        if code.contains("rdkafka::") && !KAFKA.iter().any(|folder| file.starts_with(folder)) {
            fault("rdkafka belongs in connectors/src/kafka alone");
        }
        let behind_wire = file.starts_with("server") && !WIRE.iter().any(|w| file.starts_with(w));
        if behind_wire && (code.contains("tonic::") || code.contains("axum::") || code.contains("prost::")) {
            fault("wire types stay in the folders of their protocols");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check(Path::new(file), text, &mut faults);
        faults
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let long = format!("//! Head.\n{}", "\n".repeat(LINES_MAX));
        for (file, text, expected) in [
            ("core/src/a.rs", "fn a() {}", "core/src/a.rs:1: the first line"),
            ("core/src/a.rs", long.as_str(), "core/src/a.rs: 501 lines"),
            ("core/src/utils.rs", "//! Head.", "core/src/utils.rs: the name"),
            (
                "core/src/a.rs",
                "//! Head.\n// TODO: later",
                "core/src/a.rs:2: TODO",
            ),
            (
                "core/src/a.rs",
                "//! Head.\nunsafe { f() }",
                "core/src/a.rs:2: unsafe",
            ),
            (
                "connectors/src/kafka/pump.rs",
                "//! Head.\nunsafe { f() }",
                "connectors/src/kafka/pump.rs:2: unsafe",
            ),
            (
                "connectors/src/lib.rs",
                "//! Head.\nuse rdkafka::Offset;",
                "connectors/src/lib.rs:2: rdkafka",
            ),
            (
                "server/src/lane.rs",
                "//! Head.\nuse tonic::Status;",
                "server/src/lane.rs:2: wire",
            ),
        ] {
            let found = faults(file, text);
            assert!(
                matches!(&found[..], [one] if one.starts_with(expected)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn allowed_files_have_no_fault() {
        for (file, text) in [
            ("kernels/src/a.rs", "//! Head.\nunsafe { f() }"),
            (UNSAFE, "//! Head.\nunsafe { f() }"),
            ("connectors/src/kafka/a.rs", "//! Head.\nuse rdkafka::Offset;"),
            ("kernels/cu/a.cu", "// no head is asked of it"),
            (
                "server/src/grpc/a.rs",
                "//! Head.\nuse tonic::Status; // unsafe { in words }",
            ),
        ] {
            assert_eq!(faults(file, text), Vec::<String>::new(), "{file}");
        }
    }
}
