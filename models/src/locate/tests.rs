//! Folders, cached ids and downloads, with and without a network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

fn hub(cache: &Path, offline: bool) -> Hub {
    // Port 9 (discard) refuses at once where no service listens, like a network that is down.
    Hub {
        cache: cache.to_path_buf(),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        token: None,
        offline,
        allow_pickle: false,
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
fn a_folder_is_used_as_it_is() {
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
fn an_index_without_its_shards_is_not_served() {
    let cache = tempfile::tempdir().unwrap();
    let files = ["config.json", "tokenizer.json", "model.safetensors.index.json"];
    let folder = snapshot(cache.path(), "abc123", &files);
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    std::fs::write(folder.join("one.safetensors"), "").unwrap();
    check_error(cache.path(), true, "org/tiny", &["HF_HUB_OFFLINE"]);
    std::fs::write(folder.join("two.safetensors"), "").unwrap();
    assert_eq!(hub(cache.path(), true).locate("org/tiny").unwrap(), folder);
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
fn a_reference_that_is_neither_folder_nor_id_is_refused() {
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
fn the_cache_is_that_of_huggingface_hub() {
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

/// Starts a hub on the loopback with one model. Returns its address and the list of requested files.
fn serve(files: &'static [(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), files, &log);
        }
    });
    (endpoint, asked)
}

fn answer(stream: &TcpStream, files: &[(&str, &str)], log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream)
        .lines()
        .map(Result::unwrap)
        .take_while(|l| !l.is_empty());
    let Some(request) = lines.next() else { return };
    let range = lines.find_map(|l| l.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let path = request.split(' ').nth(1).unwrap();
    let (head, body) = if path == "/api/models/org/tiny/revision/main" {
        let names: Vec<String> = files
            .iter()
            .map(|(name, _)| format!(r#"{{"rfilename":"{name}"}}"#))
            .collect();
        (
            "200 OK".to_owned(),
            format!(r#"{{"siblings":[{}],"sha":"c0ffee"}}"#, names.join(",")),
        )
    } else if let Some((name, text)) = files
        .iter()
        .find(|(name, _)| path == format!("/org/tiny/resolve/main/{name}"))
    {
        log.lock().unwrap().push((*name).to_owned());
        let (from, to) = match range.as_deref() {
            Some("0-0") => (0, 1),
            _ => (0, text.len()),
        };
        let size = text.len();
        let facts = format!(
            "content-range: bytes {from}-{}/{size}\r\nx-repo-commit: c0ffee\r\netag: \"{name}\"",
            to - 1
        );
        (
            format!(
                "206 Partial Content\r\n{}",
                facts.replace("1_Pooling/", "").replace("0_Transformer/", "")
            ),
            text[from..to].to_owned(),
        )
    } else {
        ("404 Not Found".to_owned(), String::new())
    };
    let mut stream = stream;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
}

#[test]
fn a_download_fetches_only_the_files_that_a_model_needs() {
    let (endpoint, asked) = serve(&[
        ("config.json", "{}"),
        ("tokenizer.json", "{} "),
        ("1_Pooling/config.json", "{}  "),
        (
            "model.safetensors.index.json",
            r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#,
        ),
        ("model-1.safetensors", "one"),
        ("model-2.safetensors", "two"),
        ("pytorch_model.bin", "not needed"),
        ("onnx/model.onnx", "not needed"),
        ("README.md", "not needed"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = hub(cache.path(), false);
    hub.endpoint = Some(endpoint);
    let folder = hub.locate("org/tiny").unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.join("model-2.safetensors")).unwrap(),
        "two"
    );
    assert!(folder.join("1_Pooling/config.json").exists());
    let mut files = asked.lock().unwrap().clone();
    files.sort();
    files.dedup();
    let expected = [
        "1_Pooling/config.json",
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
    ];
    let expected = [&expected[..], &["model.safetensors.index.json", "tokenizer.json"]].concat();
    assert_eq!(files, expected);

    hub.offline = true;
    assert_eq!(hub.locate("org/tiny").unwrap(), folder);
}

#[test]
fn a_download_follows_the_modules_to_the_encoder_and_leaves_pickles_alone() {
    const MODULES: &str = r#"[{"path":"0_Transformer","type":"sentence_transformers.models.Transformer"},
        {"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#;
    let (endpoint, asked) = serve(&[
        ("modules.json", MODULES),
        ("config_sentence_transformers.json", "{}"),
        ("0_Transformer/config.json", "{} "),
        ("0_Transformer/tokenizer.json", "{}  "),
        ("0_Transformer/pytorch_model.bin", "a pickle"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = hub(cache.path(), false);
    hub.endpoint = Some(endpoint);
    let message = hub.locate("org/tiny").unwrap_err().to_string();
    for part in [
        "0_Transformer/model.safetensors",
        "--allow-pickle",
        "allow_pickle = true under [[model]]",
    ] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    assert!(
        !asked
            .lock()
            .unwrap()
            .iter()
            .any(|file| file.contains("pytorch_model"))
    );
    hub.allow_pickle = true;
    let folder = hub.locate("org/tiny").unwrap();
    for file in [
        "modules.json",
        "0_Transformer/pytorch_model.bin",
        "config_sentence_transformers.json",
    ] {
        assert!(folder.join(file).exists(), "{file}");
    }
    hub.offline = true;
    assert_eq!(hub.locate("org/tiny").unwrap(), folder);
}
