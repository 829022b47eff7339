//! Folders, cached ids and what happens without a network.

use super::*;

fn hub(cache: &Path, offline: bool) -> Hub {
    // Port 9 (discard) refuses at once where nothing listens: the network that is not there.
    Hub {
        cache: cache.to_path_buf(),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        token: None,
        offline,
    }
}

fn snapshot(cache: &Path, commit: &str, files: &[&str]) -> PathBuf {
    let repo = cache.join("models--org--tiny");
    let folder = repo.join("snapshots").join(commit);
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    for file in files {
        std::fs::write(folder.join(file), "{}").unwrap();
    }
    folder
}

const COMPLETE: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

#[test]
fn a_folder_is_taken_as_it_is() {
    let cache = tempfile::tempdir().unwrap();
    let path = cache.path().to_str().unwrap();
    assert_eq!(hub(cache.path(), true).locate(path).unwrap(), cache.path());
}

#[test]
fn a_cached_id_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let folder = snapshot(cache.path(), "abc123", &COMPLETE);
    for reference in ["org/tiny", "org/tiny@main", "org/tiny@abc123"] {
        assert_eq!(
            hub(cache.path(), false).locate(reference).unwrap(),
            folder,
            "{reference}"
        );
    }
}

fn check_error(cache: &Path, offline: bool, reference: &str, parts: &[&str]) {
    let message = hub(cache, offline).locate(reference).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn a_half_downloaded_snapshot_is_not_served() {
    let cache = tempfile::tempdir().unwrap();
    snapshot(cache.path(), "abc123", &["config.json", "tokenizer.json"]);
    check_error(
        cache.path(),
        true,
        "org/tiny",
        &["org/tiny@main", "HF_HUB_OFFLINE"],
    );
}

#[test]
fn without_network_the_error_names_id_and_cache() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().to_str().unwrap().to_owned();
    check_error(
        cache.path(),
        false,
        "org/absent@v1",
        &["org/absent@v1", &folder, "could not be downloaded"],
    );
}

#[test]
fn what_is_neither_a_folder_nor_an_id_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    for reference in [
        "",
        "./models/none",
        "/none/here",
        "a/b/c",
        "org/na me",
        "../up",
        "org/x@../../etc",
        "org/x@",
    ] {
        check_error(cache.path(), true, reference, &[reference, "ORG/NAME@REVISION"]);
    }
}

#[test]
fn the_cache_lies_where_huggingface_hub_puts_it() {
    let check = |set: &[(&str, &str)], expected: &str| {
        let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        assert_eq!(cache_folder(&env), Path::new(expected), "{set:?}");
    };
    check(&[("HOME", "/home/a")], "/home/a/.cache/huggingface/hub");
    check(
        &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")],
        "/c/huggingface/hub",
    );
    check(&[("HOME", "/home/a"), ("HF_HOME", "/h")], "/h/hub");
    check(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/x")], "/x");
}
