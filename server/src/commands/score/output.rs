//! Output of a job: a hidden file beside its final name until the job is complete, or a stream.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempPath;
use tokio::task::{JoinHandle, spawn_blocking};

use super::destination::Destination;

/// Prefix of the unfinished file. It is hidden, so that no pattern of a shell matches half a job.
const UNFINISHED: &str = ".penstock-score-";
/// Permissions of a new file before the umask.
const NEW_FILE_MODE: u32 = 0o666;

type Writer = BufWriter<Box<dyn Write + Send>>;

/// Reason why a finished file did not get its name.
#[derive(Debug)]
pub(super) struct NotRenamed {
    /// The reason.
    pub(super) reason: io::Error,
    /// Path of the finished file, if it could be kept.
    pub(super) kept: Option<PathBuf>,
}

/// Guard of an unfinished file, which removes it. The second stop signal shares it and ends the process at
/// once.
#[derive(Clone, Default)]
pub(super) struct Unfinished(Arc<Mutex<Option<TempPath>>>);

impl Unfinished {
    /// Removes the file, unless it has its final name.
    pub(super) fn remove(&self) {
        drop(self.0.lock().take());
    }
}

/// Output of a job.
pub(super) struct JobOutput {
    name: String,
    /// `None` during a write.
    writer: Option<Writer>,
    /// The running write, or the one whose future was dropped.
    running: Option<JoinHandle<(Writer, io::Result<()>)>>,
    unfinished: Unfinished,
    /// `None` for a stream.
    file: Option<Final>,
}

/// The final name of a regular file.
struct Final {
    content: Arc<File>,
    path: PathBuf,
    replaces: bool,
}

impl JobOutput {
    /// Creates the unfinished file, unless `destination` is a stream. `name` is its name in messages.
    pub(super) fn create(destination: Destination, name: String) -> io::Result<JobOutput> {
        let (to, unfinished, file): (Box<dyn Write + Send>, _, _) = match destination {
            Destination::Stream(stream) => (stream, Unfinished::default(), None),
            Destination::File { path, replaces } => {
                let (content, unfinished) = create_beside(&path, replaces.as_ref())?;
                let content = Arc::new(content);
                let file = Final {
                    content: Arc::clone(&content),
                    path,
                    replaces: replaces.is_some(),
                };
                (Box::new(content), unfinished, Some(file))
            }
        };
        Ok(JobOutput {
            name,
            writer: Some(BufWriter::new(to)),
            running: None,
            unfinished,
            file,
        })
    }

    pub(super) fn unfinished(&self) -> Unfinished {
        self.unfinished.clone()
    }

    /// Appends some lines.
    pub(super) async fn write(&mut self, text: Vec<u8>) -> io::Result<()> {
        self.on_thread(move |writer| writer.write_all(&text)).await
    }

    /// Hands every line to the system; a file is synced to its disk.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        let content = self.file.as_ref().map(|file| Arc::clone(&file.content));
        self.on_thread(move |writer| {
            writer.flush()?;
            // A full disk or quota may be reported only here.
            content.map_or(Ok(()), |content| content.sync_all())
        })
        .await
    }

    /// Gives a finished file its name. A stream needs no further step.
    pub(super) fn publish(&self) -> Result<(), NotRenamed> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let Some(path) = self.unfinished.0.lock().take() else {
            // The second stop signal came first, and ends the process.
            return Err(NotRenamed {
                reason: io::ErrorKind::Interrupted.into(),
                kept: None,
            });
        };
        path.persist(&file.path).map_err(|e| NotRenamed {
            reason: e.error,
            kept: e.path.keep().ok(),
        })
    }

    /// Abandons the output and reports its state. The last lines of a stream wait for its reader, at most
    /// `wait`.
    pub(super) async fn abandon(&mut self, wait: Duration) -> String {
        let name = self.name.clone();
        if let Some(file) = &self.file {
            self.unfinished.remove();
            return if file.replaces {
                format!("{name} is left as it was")
            } else {
                format!("{name} is not written")
            };
        }
        let flushed = tokio::time::timeout(wait, self.on_thread(Write::flush)).await;
        match flushed {
            Ok(Ok(())) => format!("their lines are written to {name}"),
            Ok(Err(_)) | Err(_) => format!("the last lines are not written to {name}"),
        }
    }

    /// Runs one step on the writer, on a thread that may block. A stop is therefore noticed while a slow
    /// reader delays the output.
    async fn on_thread(
        &mut self,
        work: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.settle().await?;
        let mut writer = self
            .writer
            .take()
            .ok_or_else(|| io::Error::other("the thread that wrote is gone"))?;
        self.running = Some(spawn_blocking(move || {
            let done = work(&mut writer);
            (writer, done)
        }));
        self.settle().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let ended = running.await;
        self.running = None;
        let (writer, done) = ended.map_err(io::Error::other)?;
        self.writer = Some(writer);
        done
    }
}

impl Drop for JobOutput {
    fn drop(&mut self) {
        // The signal listener may live longer.
        self.unfinished.remove();
    }
}

/// A file with an unused name in the folder of `path`, with the permissions for `path`.
fn create_beside(path: &Path, replaces: Option<&Metadata>) -> io::Result<(File, Unfinished)> {
    // Other users may read it only once its owner and group are set.
    let mode = if replaces.is_some() { 0o600 } else { NEW_FILE_MODE };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(|e| io::Error::new(e.kind(), format!("no file can be created beside it: {e}")))?;
    if let Some(replaces) = replaces {
        copy_permissions(file.as_file(), replaces)
            .map_err(|e| io::Error::new(e.kind(), format!("its permissions cannot be kept: {e}")))?;
    }
    let (file, path) = file.into_parts();
    Ok((file, Unfinished(Arc::new(Mutex::new(Some(path))))))
}

/// Copies owner and group if the system allows it, and the permissions.
fn copy_permissions(file: &File, from: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let mut mode = from.mode() & 0o777;
    if new.gid() != from.gid() && fchown(file, None, Some(from.gid())).is_err() {
        // These bits belong to another group.
        mode &= !0o070;
    }
    if new.uid() != from.uid() {
        // Only a privileged process may change the owner; other processes keep the file as their own.
        let _ = fchown(file, Some(from.uid()), None);
    }
    if new.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    /// A reader that blocks until it is released.
    struct Slow(crossbeam_channel::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_abandoned_stream_says_whether_its_last_lines_were_written() {
        let (read, slow) = crossbeam_channel::bounded(1);
        let destination = Destination::Stream(Box::new(Slow(slow)));
        let mut output = JobOutput::create(destination, "stdout".into()).unwrap();
        // Longer than the buffer, so that the write waits for the reader.
        let write = Box::pin(output.write(vec![b'x'; 1 << 16]));
        assert!(poll_immediate(write).await.is_none(), "the write waits");
        let missing = "the last lines are not written to stdout";
        assert_eq!(output.abandon(Duration::ZERO).await, missing);
        drop(read);
        let written = "their lines are written to stdout";
        assert_eq!(output.abandon(Duration::from_mins(1)).await, written);
    }

    #[tokio::test]
    async fn a_file_has_its_name_when_it_is_published_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        let create = || {
            let destination = Destination::File {
                path: path.clone(),
                replaces: None,
            };
            JobOutput::create(destination, "out".into()).unwrap()
        };
        let mut output = create();
        output.write(b"half".to_vec()).await.unwrap();
        assert_eq!((count(), path.exists()), (1, false));
        // Like an unwinding panic, while the signal listener lives on.
        let unfinished = output.unfinished();
        drop(output);
        assert_eq!(count(), 0);
        drop(unfinished);

        let mut output = create();
        output.write(b"whole".to_vec()).await.unwrap();
        output.finish().await.unwrap();
        assert!(!path.exists());
        output.publish().unwrap();
        drop(output);
        assert_eq!((count(), std::fs::read(&path).unwrap()), (1, b"whole".to_vec()));
    }
}
