//! Tests of output files of `penstock score`: never the input, complete or absent, replacing the old file.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::{TempDir, tempdir};

use super::{penstock, sentiment, text};

/// A user without rights, for tests that run as root.
const NOBODY: u32 = 65534;

/// A folder with `in.jsonl` of one record.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("in.jsonl"), INPUT).unwrap();
    (folder, root)
}

const INPUT: &str = "{\"text\":\"a fine film\"}\n";
/// Beginning of its line of output.
const SCORED: &str = "{\"index\":0,\"label\":\"POSITIVE\"";

/// `penstock score` in `folder`, with the sentiment model.
fn score(folder: &Path, args: &[&str]) -> Command {
    let model = Path::new(&sentiment()).canonicalize().unwrap();
    let mut command = penstock();
    command.arg("score").arg("--model").arg(model);
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs to the end and checks the exit code and parts of stderr.
fn check(command: &mut Command, code: i32, stderr: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    for wanted in stderr {
        assert!(
            said.contains(wanted),
            "{command:?}: stderr lacks {wanted:?}: {said}"
        );
    }
}

/// Names in a folder, hidden ones included.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn the_input_is_refused_as_output_under_every_name() {
    let (_folder, root) = folder();
    fs::create_dir(root.join("inner")).unwrap();
    symlink("in.jsonl", root.join("link.jsonl")).unwrap();
    symlink("../link.jsonl", root.join("inner/far.jsonl")).unwrap();
    fs::hard_link(root.join("in.jsonl"), root.join("hard.jsonl")).unwrap();
    make_pipe(&root.join("pipe"));
    let before = names(&root);
    let absolute = root.join("in.jsonl").display().to_string();
    let pairs = [
        ("in.jsonl", "in.jsonl"),
        ("in.jsonl", &absolute),
        (&absolute, "inner/../in.jsonl"),
        ("in.jsonl", "link.jsonl"),
        ("in.jsonl", "inner/far.jsonl"),
        ("link.jsonl", "in.jsonl"),
        ("in.jsonl", "hard.jsonl"),
        ("hard.jsonl", "link.jsonl"),
        ("pipe", "pipe"),
    ];
    for (input, output) in pairs {
        let refused = format!("{output}: the output is the same file as the input");
        check(
            &mut score(&root, &["--input", input, "--output", output]),
            2,
            &[&refused],
        );
        assert_eq!(fs::read_to_string(root.join("in.jsonl")).unwrap(), INPUT);
    }
    assert_eq!(names(&root), before);
}

#[test]
fn files_that_a_shell_opened_are_refused_too() {
    let (_folder, root) = folder();
    let opened = || File::open(root.join("in.jsonl")).unwrap();
    let appended = || File::options().append(true).open(root.join("in.jsonl")).unwrap();
    let same = "the output is the same file as the input";
    for input in ["-", "/dev/stdin"] {
        let args = ["--input", input, "--output", "in.jsonl"];
        check(score(&root, &args).stdin(opened()), 2, &[same]);
    }
    for output in ["-", "/dev/stdout"] {
        let args = ["--input", "in.jsonl", "--output", output];
        check(score(&root, &args).stdout(appended()), 2, &[same]);
        let args = ["--output", output];
        check(score(&root, &args).stdin(opened()).stdout(appended()), 2, &[same]);
    }
    assert_eq!(fs::read_to_string(root.join("in.jsonl")).unwrap(), INPUT);
    // The same device may be input and output, because no data can be lost.
    check(&mut score(&root, &["--output", "/dev/null"]), 0, &[]);
}

#[test]
fn a_link_is_kept_and_its_target_replaced() {
    let (_folder, root) = folder();
    fs::create_dir(root.join("inner")).unwrap();
    fs::write(root.join("inner/old.jsonl"), "old").unwrap();
    for target in ["inner/old.jsonl", "inner/new.jsonl"] {
        let _ = fs::remove_file(root.join("link"));
        symlink(target, root.join("link")).unwrap();
        check(
            &mut score(&root, &["--input", "in.jsonl", "--output", "link"]),
            0,
            &[],
        );
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new(target));
        let written = fs::read_to_string(root.join(target)).unwrap();
        assert!(written.starts_with(SCORED), "{written}");
    }
    assert_eq!(names(&root.join("inner")), ["new.jsonl", "old.jsonl"]);
}

#[test]
fn permissions_are_those_of_the_file_that_was_there_or_of_any_new_file() {
    let (_folder, root) = folder();
    let args = ["--input", "in.jsonl", "--output", "out.jsonl"];
    check(&mut score(&root, &args), 0, &[]);
    let out = || fs::metadata(root.join("out.jsonl")).unwrap();
    let new_file = fs::metadata(root.join("in.jsonl")).unwrap();
    assert_eq!(out().mode(), new_file.mode());
    fs::set_permissions(root.join("out.jsonl"), Permissions::from_mode(0o640)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(root.join("out.jsonl"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let before = out();
    check(&mut score(&root, &args), 0, &[]);
    assert_ne!(before.ino(), out().ino());
    assert_eq!(out().mode() & 0o7777, 0o640);
    assert_eq!((before.uid(), before.gid()), (out().uid(), out().gid()));
}

#[test]
fn pipes_and_devices_are_written_directly() {
    let (_folder, root) = folder();
    check(
        &mut score(&root, &["--input", "in.jsonl", "--output", "/dev/null"]),
        0,
        &[],
    );
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    make_pipe(&root.join("pipe"));
    let pipe = root.join("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    check(
        &mut score(&root, &["--input", "in.jsonl", "--output", "pipe"]),
        0,
        &[],
    );
    let read = reader.join().unwrap();
    assert!(read.starts_with(SCORED), "{read}");
    assert!(fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
    // Earlier output of a script on its stdout stays, whether or not stdout is a file.
    fs::write(root.join("log"), "before\n").unwrap();
    let log = File::options().append(true).open(root.join("log")).unwrap();
    check(
        score(&root, &["--input", "in.jsonl", "--output", "/dev/stdout"]).stdout(log),
        0,
        &[],
    );
    let log = fs::read_to_string(root.join("log")).unwrap();
    assert!(log.starts_with(&format!("before\n{SCORED}")), "{log}");
    assert_eq!(names(&root), ["in.jsonl", "log", "pipe"]);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_a_model_is_loaded() {
    let (_folder, root) = folder();
    fs::create_dir(root.join("inner")).unwrap();
    fs::write(root.join("kept.jsonl"), "kept").unwrap();
    let refused = |output: &str, as_nobody: bool, reason: &str| {
        let mut command = penstock();
        // A missing model would be the error if it were looked up first.
        command.args(["score", "--model", "/nowhere", "--input", "in.jsonl"]);
        command.args(["--output", output]).current_dir(&root);
        if as_nobody && is_root() {
            command.uid(NOBODY).gid(NOBODY);
            if command.stderr(Stdio::null()).status().is_err() {
                eprintln!("skipped: another user cannot run the program here, so {output} is not tried");
                return;
            }
            command.stderr(Stdio::piped());
        }
        check(&mut command, 2, &[&format!("{output}: {reason}")]);
    };
    refused("nowhere/out.jsonl", false, "No such file");
    refused("in.jsonl/out.jsonl", false, "Not a directory");
    refused("inner", false, "is a directory");
    refused("new/", false, "is a directory");
    refused(&"x".repeat(300), false, "File name too long");
    let open = |path: &str, mode| {
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    };
    open(".", 0o755);
    open("inner", 0o555);
    refused(
        "inner/out.jsonl",
        true,
        "no file can be created beside it: Permission denied",
    );
    // The permissions of its folder would allow replacing it.
    open(".", 0o777);
    open("kept.jsonl", 0o444);
    refused("kept.jsonl", true, "Permission denied");
    assert_eq!(fs::read_to_string(root.join("kept.jsonl")).unwrap(), "kept");
    open("inner", 0o755);
    assert_eq!(names(&root), ["in.jsonl", "inner", "kept.jsonl"]);
    assert!(names(&root.join("inner")).is_empty());
}

#[test]
fn a_job_that_fails_leaves_the_output_as_it_was() {
    let (_folder, root) = folder();
    fs::write(root.join("many.txt"), "a fine film\n".repeat(1000)).unwrap();
    // A limit of the shell stands for a full disk: it lets some blocks through, then fails the write.
    let limited = |output: &str| {
        let score = score(&root, &["--input", "many.txt", "--output", output]);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "sh"]);
        command.arg(score.get_program()).args(score.get_args());
        command.current_dir(&root);
        command
    };
    check(
        &mut limited("new.jsonl"),
        2,
        &["new.jsonl is not written", "new.jsonl: File too large"],
    );
    fs::write(root.join("old.jsonl"), "old").unwrap();
    check(&mut limited("old.jsonl"), 2, &["old.jsonl is left as it was"]);
    assert_eq!(fs::read_to_string(root.join("old.jsonl")).unwrap(), "old");
    assert_eq!(names(&root), ["in.jsonl", "many.txt", "old.jsonl"]);
    check(
        &mut score(&root, &["--input", "many.txt", "--output", "/dev/full"]),
        2,
        &["/dev/full: No space left"],
    );
    check(
        &mut score(&root, &["--input", "many.txt", "--output", "old.jsonl"]),
        0,
        &[],
    );
    assert_eq!(
        fs::read_to_string(root.join("old.jsonl"))
            .unwrap()
            .lines()
            .count(),
        1000
    );
}

#[test]
fn records_that_fail_are_part_of_a_whole_output() {
    let (_folder, root) = folder();
    fs::write(root.join("mixed.jsonl"), format!("{INPUT}nonsense\n")).unwrap();
    check(
        &mut score(&root, &["--input", "mixed.jsonl", "--output", "out.jsonl"]),
        1,
        &["1 texts scored, 1 failed"],
    );
    let out = fs::read_to_string(root.join("out.jsonl")).unwrap();
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[test]
fn a_finished_output_that_cannot_get_its_name_is_kept() {
    let (_folder, root) = folder();
    make_pipe(&root.join("pipe"));
    let mut child = score(&root, &["--input", "pipe", "--output", "out.jsonl"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Opening it waits for the program, which examines its output after that.
    let pipe = File::options().write(true).open(root.join("pipe")).unwrap();
    super::wait_for(|| {
        names(&root)
            .iter()
            .any(|name| name.starts_with(".penstock-score-"))
    });
    fs::create_dir(root.join("out.jsonl")).unwrap();
    std::io::Write::write_all(&mut { pipe }, INPUT.as_bytes()).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{stderr}");
    let (_, kept) = stderr.split_once("the finished output is ").expect(&stderr);
    let kept = fs::read_to_string(kept.trim()).unwrap();
    assert!(kept.starts_with(SCORED), "{kept}");
}

#[test]
fn a_mounted_file_is_refused_before_a_model_is_loaded_where_mounting_is_allowed() {
    let (_folder, root) = folder();
    fs::write(root.join("out.jsonl"), "old").unwrap();
    let mount = "mount --bind in.jsonl out.jsonl";
    let run = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c"]);
        command.arg(format!("{mount} && {then}")).current_dir(&root);
        command
    };
    if !run("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine lets nobody mount a file");
        return;
    }
    let program = env!("CARGO_BIN_EXE_penstock");
    let job = format!("echo one | {program} score --model /nowhere --output out.jsonl");
    check(
        &mut run(&job),
        2,
        &["out.jsonl: a mounted file cannot be replaced"],
    );
}
