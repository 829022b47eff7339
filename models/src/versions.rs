//! Model repositories in the form of Triton: `NAME/VERSION/…` with integer versions.

use std::path::{Path, PathBuf};

/// The version folders of `folder`, lowest first; empty where `folder` is a plain model folder or does not
/// exist. As in Triton, only folders named by an integer without leading zeros count. They must hold a
/// `config.json`, or the `modules.json` that names its folder, so a half-copied version is not offered.
pub fn versions(folder: &Path) -> Vec<(u64, PathBuf)> {
    let is_model = |folder: &Path| {
        ["config.json", "modules.json"]
            .iter()
            .any(|name| folder.join(name).is_file())
    };
    if is_model(folder) {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let version: u64 = name.parse().ok()?;
            let plain = version.to_string() == name;
            (plain && is_model(&entry.path())).then(|| (version, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        folder
    }

    fn check(files: &[&str], expected: &[u64]) {
        let folder = folder_with(files);
        let found: Vec<u64> = versions(folder.path()).into_iter().map(|(v, _)| v).collect();
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn integer_folders_are_versions_in_numeric_order() {
        check(&["10/config.json", "9/config.json", "1/config.json"], &[1, 9, 10]);
    }

    #[test]
    fn a_plain_model_folder_has_no_versions() {
        check(&["config.json", "1_Pooling/config.json", "2/config.json"], &[]);
        check(
            &["modules.json", "0_Transformer/config.json", "2/config.json"],
            &[],
        );
        check(&["2/modules.json", "2/0_Transformer/config.json"], &[2]);
    }

    #[test]
    fn unfinished_and_misnamed_folders_are_ignored() {
        check(
            &[
                "01/config.json",
                "-1/config.json",
                "v2/config.json",
                "3/model.safetensors",
                "4",
            ],
            &[],
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_has_no_versions() {
        assert!(versions(Path::new("/nonexistent/model")).is_empty());
    }
}
