//! Location of the benches' model: all-MiniLM-L6-v2 as `./quickstart` fetches it.

use std::path::PathBuf;

use penstock_models::{Device, LoadOptions, Loaded, Precision, Threads, load};

/// Variable with another folder than the one that `./quickstart` fills.
pub const FOLDER_VARIABLE: &str = "PENSTOCK_MINILM";

/// The folder of all-MiniLM-L6-v2.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE).map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../.cache/models/all-MiniLM-L6-v2"
            ))
        },
        PathBuf::from,
    )
}

/// The model on `threads` threads; without its folder, prints a message and returns `None`.
#[allow(clippy::print_stderr, reason = "a bench that is skipped says so")]
pub fn minilm(threads: usize) -> Option<Loaded> {
    let folder = folder();
    let threads = match Threads::new(threads) {
        Ok(threads) => Some(threads),
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let options = LoadOptions {
        device: Device::Cpu {
            threads,
            precision: Precision::F32,
        },
        check_parity: false,
        ..LoadOptions::default()
    };
    match load(&folder, &options) {
        Ok(loaded) => Some(loaded),
        Err(error) => {
            eprintln!("skipped, no model: {error}; run ./quickstart or set {FOLDER_VARIABLE}");
            None
        }
    }
}
