//! Docs: links lead to a file and a heading, and the metrics of code and docs are the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Adds a fault for every relative link of a Markdown file whose file or heading does not exist.
pub fn check_links(root: &Path, file: &Path, text: &str, faults: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = root.join(file.parent().unwrap_or(Path::new(""))).join(path);
            let mut fault =
                |missing: &str| faults.push(format!("{}:{}: link to {missing}", file.display(), number + 1));
            if !path.is_empty() && !to.exists() {
                fault(&format!("{path}, which does not exist"));
            } else if !anchor.is_empty()
                && !has_heading(if path.is_empty() { None } else { Some(&to) }, text, anchor)
            {
                fault(&format!("{target}, which has no such heading"));
            }
        }
    }
}

/// True where the page `to`, or `here` without one, has a heading for `anchor`. Other files than Markdown pass.
fn has_heading(to: Option<&Path>, here: &str, anchor: &str) -> bool {
    let read;
    let page = match to {
        None => here,
        Some(to) if to.extension().is_some_and(|extension| extension == "md") => {
            read = std::fs::read_to_string(to).unwrap_or_default();
            &read
        }
        Some(_) => return true,
    };
    page.lines()
        .filter_map(|line| {
            line.trim_start_matches('#')
                .strip_prefix(' ')
                .filter(|_| line.starts_with('#'))
        })
        .any(|heading| slug(heading) == anchor)
}

/// The anchor that a heading gets on the page: lower case, spaces as hyphens, without punctuation.
fn slug(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
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
    fn a_link_without_its_file_or_heading_is_named_with_its_line() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "# The `top`, at last\n[here](tidy.rs#top) [there](https://example.org/#a) [top](#the-top-at-last)\n\
                    [gone](gone.md#part)\n[up](#bottom) [rules](../../CONTRIBUTING.md#the-rules)\n\
                    [moved](../../CONTRIBUTING.md#no-rules)";
        let mut faults = Vec::new();
        check_links(root, Path::new("src/page.md"), text, &mut faults);
        let expected = [
            "src/page.md:3: link to gone.md, which does not exist",
            "src/page.md:4: link to #bottom, which has no such heading",
            "src/page.md:5: link to ../../CONTRIBUTING.md#no-rules, which has no such heading",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_metric_name_follows_a_quote() {
        let text = r#"name("penstock_a_total") "penstock_" + "x_penstock_b" "nv_inference_c{d}""#;
        let expected = ["nv_inference_c", "penstock_a_total"].map(String::from);
        assert_eq!(metric_names(text, '"'), BTreeSet::from(expected));
    }
}
