//! The process as Prometheus' own libraries show it: processor time, memory, open files, threads, start.
//!
//! The crate `metrics-process` needs a global recorder, and its counter of processor time has whole seconds.

use std::fmt::Write;
use std::fs;

/// Ticks a second of the times in `/proc`: the same on every processor that Linux runs on here.
const TICKS_PER_SECOND: f64 = 100.0;

/// One series.
struct Sample {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: Option<f64>,
}

/// Appends the series. One that this system does not tell is left out.
pub(super) fn render(page: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let files = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|files| files.count() as f64);
    for Sample {
        name,
        kind,
        help,
        value,
    } in samples(&status, &stat, &limits, &boot, files)
    {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
    }
}

fn samples(status: &str, stat: &str, limits: &str, boot: &str, files: Option<f64>) -> [Sample; 7] {
    let kib = |key| Some(number(line(status, key)?, 1)? * 1024.0);
    // The second field is the program's name in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = |of_manual: usize| number(fields, of_manual - 3);
    let start = || Some(number(line(boot, "btime")?, 1)? + field(22)? / TICKS_PER_SECOND);
    let gauge = |name, help, value| Sample {
        name,
        kind: "gauge",
        help,
        value,
    };
    [
        Sample {
            name: "process_cpu_seconds_total",
            kind: "counter",
            help: "Processor time of the process, its own and the system's for it.",
            value: field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
        },
        gauge(
            "process_resident_memory_bytes",
            "Memory that is resident.",
            kib("VmRSS:"),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Memory that is mapped.",
            kib("VmSize:"),
        ),
        gauge("process_open_fds", "Open files, connections included.", files),
        gauge(
            "process_max_fds",
            "Files that the process may open.",
            line(limits, "Max open files").and_then(|line| number(line, 3)),
        ),
        gauge(
            "process_threads",
            "Threads of the process.",
            line(status, "Threads:").and_then(|line| number(line, 1)),
        ),
        gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since the epoch.",
            start(),
        ),
    ]
}

fn line<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(key))
}

/// The word at `index` as a number.
fn number(line: &str, index: usize) -> Option<f64> {
    line.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_right() {
        let status = "Name:\tpen stock\nVmSize:\t  200 kB\nVmRSS:\t     100 kB\nThreads:\t9\n";
        let stat = "7 (pen) stock) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 9 0 12345 1 1";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024  4096  files\n";
        let values =
            samples(status, stat, limits, "cpu 1\nbtime 1000\n", Some(11.0)).map(|sample| sample.value);
        let expected = [2.0, 102_400.0, 204_800.0, 11.0, 1024.0, 9.0, 1123.45];
        assert_eq!(values, expected.map(Some));
        let nothing = samples("", "", "Max open files  unlimited  unlimited\n", "", None);
        assert!(nothing.iter().all(|sample| sample.value.is_none()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_every_series() {
        let mut page = String::new();
        render(&mut page);
        assert_eq!(page.matches("# TYPE process_").count(), 7, "{page}");
    }
}
