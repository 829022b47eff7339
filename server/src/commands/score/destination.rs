//! Place of the output: checked before a model is loaded, and never the input itself.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::is_standard;

/// Most symbolic links that are followed; Linux follows as many.
const LINKS_MAX: usize = 40;
/// Open files of processes, such as /dev/stdout. A new file cannot be created beside these names.
const PROCESSES: &str = "/proc";

/// Place of the output. Nothing has been created or changed there yet.
pub(super) enum Destination {
    /// stdout, a pipe or a device: lines are written as they come.
    Stream(Box<dyn Write + Send>),
    /// A regular file, or an unused name.
    File {
        /// Its path, without symbolic links.
        path: PathBuf,
        /// The file that has the name now.
        replaces: Option<Metadata>,
    },
}

/// Refuses an output that is also the input, under any name: a path, a link, a file that a shell opened.
///
/// Both are checked before either is opened, because opening a pipe waits for its other end.
pub(super) fn check_distinct(input: &Path, output: &Path) -> io::Result<()> {
    // Missing files are reported when they are opened.
    let Ok(read) = metadata(input, io::stdin()) else {
        return Ok(());
    };
    let Ok(written) = metadata(output, io::stdout()) else {
        return Ok(());
    };
    // A terminal, /dev/null or a socket may be both.
    let kind = read.file_type();
    let keeps_content = kind.is_file() || kind.is_block_device() || kind.is_fifo();
    if keeps_content && (read.dev(), read.ino()) == (written.dev(), written.ino()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the output is the same file as the input; name another one",
        ));
    }
    Ok(())
}

fn metadata(path: &Path, standard: impl AsFd) -> io::Result<Metadata> {
    if is_standard(path) {
        File::from(standard.as_fd().try_clone_to_owned()?).metadata()
    } else {
        fs::metadata(path)
    }
}

impl Destination {
    /// Examines `path` and opens a stream.
    pub(super) fn find(path: &Path) -> io::Result<Destination> {
        if is_standard(path) {
            return Ok(Destination::Stream(Box::new(io::stdout())));
        }
        let replaces = match fs::metadata(path) {
            Ok(about) if about.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(about) => Some(about),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if replaces.as_ref().is_some_and(|about| !about.is_file()) {
            let device = File::options().write(true).open(path)?;
            return Ok(Destination::Stream(Box::new(device)));
        }
        let place = follow(path)?;
        if place.starts_with(PROCESSES) {
            // A file of another program keeps its contents.
            let file = File::options().append(true).open(path)?;
            return Ok(Destination::Stream(Box::new(file)));
        }
        if replaces.is_some() {
            check_replaceable(&place)?;
        }
        Ok(Destination::File {
            path: place,
            replaces,
        })
    }
}

/// The final target of `path`, whether or not it exists. Its folder must exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.canonicalize()?,
            _ => Path::new(".").canonicalize()?,
        };
        let place = folder.join(name);
        // An error means that the path is no link: it is a file, or does not exist.
        match fs::read_link(&place) {
            Ok(target) if !folder.starts_with(PROCESSES) => path = folder.join(target),
            Ok(_) | Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other(format!("more than {LINKS_MAX} symbolic links")))
}

/// Refuses an existing file that may not, or cannot, be replaced.
fn check_replaceable(path: &Path) -> io::Result<()> {
    // Renaming needs the folder's permission only, so a write-protected file is checked here.
    File::options().write(true).open(path)?;
    let about = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    if about.is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)) {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "a mounted file cannot be replaced; name a file in a mounted folder, or write to stdout",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The final path of the output, or the error.
    fn found(path: &Path) -> Result<PathBuf, io::ErrorKind> {
        match Destination::find(path) {
            Ok(Destination::File { path, .. }) => Ok(path),
            Ok(Destination::Stream(_)) => panic!("{} is no stream", path.display()),
            Err(e) => Err(e.kind()),
        }
    }

    #[test]
    fn links_are_followed_to_the_file_that_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("inner")).unwrap();
        fs::write(root.join("inner/file"), "").unwrap();
        let link = |target: &str, name: &str| symlink(target, root.join(name)).unwrap();
        link("inner/file", "to-file");
        link("inner", "to-folder");
        link("../to-file", "inner/and-back");
        link("inner/new", "to-nothing");
        link("nowhere/new", "to-no-folder");
        link("round", "round");
        let file = || Ok(root.join("inner/file"));
        for path in [
            "inner/file",
            "to-file",
            "to-folder/file",
            "to-folder/and-back",
            "inner/../to-file",
        ] {
            assert_eq!(found(&root.join(path)), file(), "{path}");
        }
        for path in ["to-nothing", "to-folder/new"] {
            assert_eq!(found(&root.join(path)), Ok(root.join("inner/new")), "{path}");
        }
        assert_eq!(found(&root.join("to-no-folder")), Err(io::ErrorKind::NotFound));
        for path in ["inner", "to-folder", "inner/..", "new/"] {
            assert_eq!(
                found(&root.join(path)),
                Err(io::ErrorKind::IsADirectory),
                "{path}"
            );
        }
        assert!(found(&root.join("round")).is_err());
        assert!(found(&root.join("inner/file/under")).is_err());
    }

    #[test]
    fn devices_are_streams_and_may_be_both_ends() {
        let null = Path::new("/dev/null");
        assert!(matches!(Destination::find(null), Ok(Destination::Stream(_))));
        check_distinct(null, null).unwrap();
    }
}
