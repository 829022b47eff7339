//! Every reason why no GPU is used, by libraries that answer as the test tells them: no driver and no GPU is needed.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and the child prints its answer"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use penstock_kernels::cuda::nvidia;

const DRIVER: &str = r#"
#include <stdlib.h>
#include <string.h>
static int told(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}
int cuDriverGetVersion(int *version) { *version = told("STUB_DRIVER", 13000); return 0; }
int cuInit(unsigned flags) { return flags ? 1 : told("STUB_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = told("STUB_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    if (device < 0 || length < 5) return 1;
    strcpy(name, "STUB");
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 && device >= 0 ? told("STUB_MAJOR", 9) : 0;
    return 0;
}
int cuGetErrorString(int error, const char **said) { *said = error ? "a bad day" : ""; return 0; }
"#;

const LIBRARY: &str = r#"
#include <stdlib.h>
size_t cublasLtGetVersion(void) {
    const char *value = getenv("STUB_LIBRARY");
    return value ? (size_t)atol(value) : 130000;
}
"#;

/// Set in the process that asks.
const ASKS: &str = "PENSTOCK_ASKS_STUBS";

/// Folders with a driver and the library of products, and with a library that is none.
fn stubs() -> &'static (PathBuf, PathBuf, PathBuf) {
    static STUBS: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();
    STUBS.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stubs-{}", std::process::id()));
        let folder = |name: &str| {
            let folder = place.join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            folder
        };
        let (driver, library, broken) = (folder("driver"), folder("library"), folder("broken"));
        compile(DRIVER, &driver, "libcuda.so");
        compile(LIBRARY, &library, "libcublasLt.so");
        // By every name that one may be installed under: the linker stops at a file that is no library.
        for name in [
            "cublasLt.so",
            "cublasLt.so.13",
            "cublasLt.so.12",
            "cuda.so",
            "cuda.so.1",
        ] {
            std::fs::write(
                broken.join(format!("lib{name}")),
                "this is no library, whatever its name says",
            )
            .expect("a file");
        }
        (driver, library, broken)
    })
}

fn compile(source: &str, folder: &Path, name: &str) {
    let file = folder.join("stub.c");
    std::fs::write(&file, source).expect("a source");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let made = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o"])
        .args([&folder.join(name), &file])
        .status();
    assert!(
        made.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{compiler}: {made:?}"
    );
}

/// Runs the probe in a process that finds libraries in `folders` first, with the environment `told`.
fn check(folders: &[&Path], told: &[(&str, &str)], expected: &str) {
    let done = Command::new(std::env::current_exe().expect("a program"))
        .args([
            "--exact",
            "answer_of_a_process_with_these_libraries",
            "--nocapture",
        ])
        .env(ASKS, "1")
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders"))
        .envs(told.iter().copied())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    // Behind the name of the test, which ends without a line's end.
    let answer = said.lines().find_map(|line| line.split_once("ANSWER: "));
    assert_eq!(answer.map(|(_, answer)| answer), Some(expected), "{told:?}");
}

#[test]
#[cfg_attr(miri, ignore = "an interpreter loads no driver")]
fn answer_of_a_process_with_these_libraries() {
    if std::env::var_os(ASKS).is_some() {
        match nvidia::probe(&[0]) {
            Ok(names) => println!("ANSWER: {}", names.join(", ")),
            Err(reason) => println!("ANSWER: {reason}"),
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn every_reason_is_given_and_none_ends_the_process() {
    let (driver, library, broken) = stubs();
    let both: [&Path; 2] = [driver, library];
    check(&both, &[], "STUB");
    check(
        &[broken],
        &[],
        "libcuda.so.1 cannot be loaded: no NVIDIA driver is installed",
    );
    check(
        &both,
        &[("STUB_DRIVER", "12080")],
        "the NVIDIA driver supports CUDA 12.8, CUDA 13.0 is needed",
    );
    check(
        &[driver, broken],
        &[],
        "libcublasLt.so.13 cannot be loaded: cuBLAS of CUDA 13 is not installed or not on the library path",
    );
    check(
        &both,
        &[("STUB_LIBRARY", "120805")],
        "cuBLASLt is of version 120805, 130000 or later is needed",
    );
    // CUDA_ERROR_NO_DEVICE, and a driver that counts none.
    for none in [("STUB_INIT", "100"), ("STUB_COUNT", "0")] {
        check(&both, &[none], "the NVIDIA driver sees no GPU");
    }
    check(
        &both,
        &[("STUB_MAJOR", "7")],
        "cuda:0 (STUB) has compute capability 7.0, 8.0 is needed",
    );
    check(
        &both,
        &[("STUB_INIT", "999")],
        "cuInit failed: CUDA_ERROR_UNKNOWN: a bad day",
    );
    let _ = std::fs::remove_dir_all(driver.parent().expect("the stubs' folder"));
}
