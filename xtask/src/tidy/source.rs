//! Rules of a source file: its head, its length, its name, and where `unsafe` and wire types may stand.

use std::path::Path;

/// Above this a file holds two ideas.
const LINES_MAX: usize = 500;

/// Folders and files of server/ that may name wire types; everything behind them is protocol-neutral.
const WIRE: [&str; 7] = [
    "server/src/ingest",
    "server/src/respond",
    "server/src/status.rs",
    "server/src/metrics",
    "server/src/app.rs",
    "server/tests",
    "server/examples",
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
    // This file spells out what it forbids.
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
        if uses_unsafe && !file.starts_with("kernels") {
            fault("unsafe belongs in kernels/ alone");
        }
        let behind_wire = file.starts_with("server") && !WIRE.iter().any(|w| file.starts_with(w));
        if behind_wire && (code.contains("tonic::") || code.contains("axum::") || code.contains("prost::")) {
            fault("wire types stop at ingest/ and respond/");
        }
    }
}
