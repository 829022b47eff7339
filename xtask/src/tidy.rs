//! The rules of CONTRIBUTING.md that can be checked by reading: layers, walls, sizes, names, comments, links;
//! and that the tests do not build the program's crates anew.

mod comments;
mod docs;
mod kernels;
mod layers;
mod names;
mod source;
mod units;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Every fault in the tree, one line each: `file:line: fault`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let files = files(root)?;
    let mut faults = layers::check(root)?;
    for file in &files {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs" | "cu" | "cuh") => {
                source::check(file, &text, &mut faults);
                comments::check(file, &text, &mut faults);
            }
            Some("proto") => comments::check(file, &text, &mut faults),
            Some("md") => docs::check_links(root, file, &text, &mut faults),
            _ => {}
        }
    }
    docs::check_metric_names(root, &files, &mut faults)?;
    kernels::check(root, &files, &mut faults)?;
    names::check(root, &files, &mut faults)?;
    units::check(root, &mut faults)?;
    faults.sort();
    Ok(faults)
}

/// The files that git tracks or would track, relative to the root.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    ensure!(
        listed.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let listed = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
    Ok(listed
        .lines()
        .map(PathBuf::from)
        .filter(|f| root.join(f).is_file())
        .collect())
}
