//! Comments whose subject is the thing: no comment block begins with a question word or a pronoun.

use std::path::Path;

/// Crates in which the rule holds. A crate whose comments have been rewritten gets a row.
const CRATES: [&str; 9] = [
    "config",
    "core",
    "engine",
    "models",
    "pipeline",
    "proto",
    "server",
    "telemetry",
    "xtask",
];

/// First words that hide the subject.
const REFUSED: [&str; 9] = [
    "What", "Who", "Whoever", "Whose", "Of", "That", "None", "Nobody", "Somebody",
];

/// Adds a fault for every comment block of a file that begins with one of the words.
pub fn check(file: &Path, text: &str, faults: &mut Vec<String>) {
    if !CRATES.iter().any(|folder| file.starts_with(folder)) {
        return;
    }
    let mut before = None;
    for (number, line) in text.lines().enumerate() {
        let comment = comment(line);
        if let Some((marker, words)) = comment {
            let first: String = words.chars().take_while(|c| c.is_alphanumeric()).collect();
            let begins = before != Some(marker);
            if begins && REFUSED.contains(&first.as_str()) {
                faults.push(format!(
                    "{}:{}: a comment begins with {first}: name the thing first",
                    file.display(),
                    number + 1
                ));
            }
        }
        before = comment.map(|(marker, _)| marker);
    }
}

/// The marker of a comment line, and its words.
fn comment(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    let markers = ["///", "//!", "//"];
    let found = |marker| Some((marker, line.strip_prefix(marker)?.trim_start()));
    markers.into_iter().find_map(found)
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
    fn a_block_that_hides_its_subject_is_named_with_its_line() {
        for (text, line, word) in [
            ("//! What a file is for.", 1, "What"),
            ("//! Head.\n\n    /// Whose turn it is.", 3, "Whose"),
            ("//! Head.\n// None where it is gone.", 2, "None"),
            ("/// Kept.\n// That is why.", 2, "That"),
        ] {
            let expected =
                format!("xtask/src/a.rs:{line}: a comment begins with {word}: name the thing first");
            assert_eq!(faults("xtask/src/a.rs", text), [expected], "{text}");
        }
    }

    #[test]
    fn plain_comments_pass() {
        for text in [
            "//! Head of the file.",
            "/// The first line.\n/// What the second line begins with is free.",
            "/// `None` where it is gone.",
            "/// Offset of the record.",
            "let text = \"What\"; // What",
            "/// \n/// Whatever is left.",
        ] {
            assert_eq!(faults("xtask/src/a.rs", text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn crates_without_a_row_are_not_read() {
        assert_eq!(faults("elsewhere/src/a.rs", "//! What."), Vec::<String>::new());
    }
}
