//! Tests of signals to `penstock score`: no half output, and a last message about the progress.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::io::ioctl_fionread;
use tempfile::tempdir;

use super::{penstock, sentiment, wait_for};

/// One text.
const TEXT: &str = "a fine film\n";
/// Texts of one window of the reader. Their lines exceed every buffer of the program.
const WINDOW_TEXTS: usize = 128;

struct Job {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Job {
    fn start(command: &mut Command) -> Job {
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        Job { child, stdin }
    }

    /// Gives it one window of texts, and keeps stdin open.
    fn feed(&mut self) {
        let texts = TEXT.repeat(WINDOW_TEXTS);
        self.stdin.as_mut().unwrap().write_all(texts.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Exit code and the rest of stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

/// A job with the default action of every signal. A shell's background jobs, and so perhaps these tests, ignore SIGINT.
fn score(args: &[&str]) -> Command {
    let penstock = penstock();
    let mut command = Command::new("env");
    for (name, _) in penstock.get_envs() {
        command.env_remove(name);
    }
    command
        .arg("--default-signal=HUP,INT,TERM")
        .arg(penstock.get_program())
        .args(["score", "--model", &sentiment()])
        .args(args);
    command
}

/// Waits until the unfinished output in `folder` has at least `bytes`.
fn wait_for_output(folder: &Path, bytes: u64) {
    wait_for(|| {
        fs::read_dir(folder).unwrap().flatten().any(|entry| {
            let name = entry.file_name();
            let unfinished = name.to_string_lossy().starts_with(".penstock-score-");
            unfinished && entry.metadata().is_ok_and(|about| about.len() >= bytes)
        })
    });
}

#[test]
fn a_signal_leaves_no_half_output_and_says_so() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for old in [None, Some("old")] {
            let folder = tempdir().unwrap();
            let out = folder.path().join("out.jsonl");
            if let Some(old) = old {
                fs::write(&out, old).unwrap();
            }
            let mut job = Job::start(&mut score(&["--output", &out.display().to_string()]));
            job.feed();
            wait_for_output(folder.path(), 1);
            job.signal(name);
            let (ended, stderr) = job.end();
            assert_eq!(ended, Some(code), "{stderr}");
            let left = if old.is_some() {
                "left as it was"
            } else {
                "not written"
            };
            let done = format!("128 texts scored; {} is {left}\n", out.display());
            assert!(stderr.contains(&done), "{stderr}");
            assert!(
                stderr.ends_with(&format!("penstock: stopped by SIG{name}\n")),
                "{stderr}"
            );
            assert_eq!(fs::read_to_string(&out).ok().as_deref(), old);
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                usize::from(old.is_some())
            );
        }
    }
}

#[test]
fn a_signal_before_the_first_text_leaves_nothing() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let job = Job::start(&mut score(&["--output", &out.display().to_string()]));
    wait_for_output(folder.path(), 0);
    job.signal("INT");
    let (code, stderr) = job.end();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("0 texts scored; "), "{stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// One block of 512 bytes is the limit; a window of lines is longer.
#[test]
fn a_file_size_limit_is_an_error_and_leaves_nothing() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]);
    let score = penstock();
    command.arg(score.get_program());
    command.args([
        "score",
        "--model",
        &sentiment(),
        "--output",
        &out.display().to_string(),
    ]);
    let mut job = Job::start(&mut command);
    job.feed();
    drop(job.stdin.take());
    let (code, stderr) = job.end();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("out.jsonl") && stderr.contains("large"),
        "{stderr}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_signal_that_is_ignored_from_the_start_stays_ignored() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]);
    let score = penstock();
    command.arg(score.get_program());
    command.args([
        "score",
        "--model",
        &sentiment(),
        "--output",
        &out.display().to_string(),
    ]);
    let mut job = Job::start(&mut command);
    job.feed();
    wait_for_output(folder.path(), 1);
    job.signal("HUP");
    job.signal("INT");
    job.feed();
    drop(job.stdin.take());
    let (code, stderr) = job.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        fs::read_to_string(&out).unwrap().lines().count(),
        2 * WINDOW_TEXTS
    );
}

#[test]
fn lines_that_were_written_to_stdout_are_whole() {
    let mut job = Job::start(score(&[]).stdout(Stdio::piped()));
    let mut stdout = BufReader::new(job.child.stdout.take().unwrap());
    job.feed();
    let mut lines = String::new();
    for _ in 0..WINDOW_TEXTS {
        stdout.read_line(&mut lines).unwrap();
    }
    job.signal("INT");
    let (code, stderr) = job.end();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(
        stderr.contains("128 texts scored; their lines are written to stdout"),
        "{stderr}"
    );
    stdout.read_to_string(&mut lines).unwrap();
    assert_eq!(lines.lines().count(), WINDOW_TEXTS);
    assert!(lines.ends_with("}\n"), "{lines}");
}

#[test]
fn a_second_signal_ends_the_job_while_nobody_reads_its_output() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // One page of 16 is free. A window of lines is longer: its write fills the page and waits for a reader.
    writer.write_all(&vec![b'\n'; 15 << 12]).unwrap();
    let mut job = Job::start(score(&[]).stdout(writer));
    job.feed();
    wait_for(|| ioctl_fionread(&reader).unwrap() == 16 << 12);
    job.signal("INT");
    let mut stderr = BufReader::new(job.child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("penstock: stopping after SIGINT; a second signal ends the job at once\n") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    job.signal("TERM");
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(job.child.wait().unwrap().code(), Some(143), "{said}");
    assert!(
        said.ends_with("penstock: ended at once by a second signal, SIGTERM\n"),
        "{said}"
    );
    reader.read_to_end(&mut Vec::new()).unwrap();
}
