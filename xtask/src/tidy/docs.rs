//! Docs: links lead to a file, and the metrics of code and docs are the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Adds a fault for every relative link of a Markdown file whose target does not exist.
pub fn check_links(root: &Path, file: &Path, text: &str, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let from = file.parent().unwrap_or(Path::new(""));
            if !root.join(from).join(path).exists() {
                faults.push(format!(
                    "{}:{}: link to {path}, which does not exist",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
}

/// Adds a fault for every metric that is missing in docs/metrics.md or in the code.
pub fn check_metric_names(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let mut code = BTreeSet::new();
    for file in files
        .iter()
        .filter(|f| f.starts_with("telemetry/src/metrics") && !f.ends_with("tests.rs"))
    {
        let text = std::fs::read_to_string(root.join(file)).with_context(|| file.display().to_string())?;
        let production = text.split("#[cfg(test)]").next().unwrap_or_default();
        code.extend(metric_names(production, '"'));
    }
    let page = "docs/metrics.md";
    let text = std::fs::read_to_string(root.join(page)).with_context(|| page.to_owned())?;
    let documented = metric_names(&text, '`');
    faults.extend(
        code.difference(&documented)
            .map(|name| format!("{page}: {name} is not documented")),
    );
    faults.extend(
        documented
            .difference(&code)
            .map(|name| format!("{page}: {name} is not in the code")),
    );
    Ok(())
}

/// Names that begin `penstock_` or `nv_inference_` right after a `quote`.
fn metric_names(text: &str, quote: char) -> BTreeSet<String> {
    text.split(quote)
        .filter(|part| part.starts_with("penstock_") || part.starts_with("nv_inference_"))
        .map(|part| {
            part.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
                .collect()
        })
        .filter(|name: &String| !name.ends_with('_'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_is_named_with_its_line() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[here](tidy.rs#top) [there](https://example.org) [top](#top)\n[gone](gone.md#part)";
        let mut faults = Vec::new();
        check_links(root, Path::new("src/page.md"), text, &mut faults);
        assert_eq!(faults, ["src/page.md:2: link to gone.md, which does not exist"]);
    }

    #[test]
    fn a_metric_name_follows_a_quote() {
        let text = r#"name("penstock_a_total") "penstock_" + "x_penstock_b" "nv_inference_c{d}""#;
        let expected = ["nv_inference_c", "penstock_a_total"].map(String::from);
        assert_eq!(metric_names(text, '"'), BTreeSet::from(expected));
    }
}
