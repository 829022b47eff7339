//! A part of a file as memory: weights are packed from where the system keeps the file anyway.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapOptions};

/// Bytes of a file, mapped for reading.
///
/// Meant to be held for moments. A program that writes to the file meanwhile changes these bytes. One that
/// shortens it ends this process as soon as it reads behind the new end.
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps `len` bytes from `start` on. A file that does not hold them is an error, not a fault.
    pub fn new(file: &File, start: u64, len: usize) -> io::Result<Self> {
        let (end, length) = (start.saturating_add(len as u64), file.metadata()?.len());
        if end > length {
            let short = format!("the file has {length} bytes, not the {end} that it had");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, short));
        }
        // SAFETY: Rust requires that bytes behind a reference do not change. A program that writes to the file
        // meanwhile breaks that, and no other program can prevent it. The harm is bounded: any bits are a valid byte
        // or f32, and both are only copied. They are never a length, an index or text that was checked before, so a
        // writer changes results alone. The file's length was checked just now; a file that is shortened later ends the
        // process by a signal.
        let map = unsafe { MmapOptions::new().offset(start).len(len).map(file)? };
        Ok(Self(map))
    }

    /// The bytes as values, where their order and place fit this machine: little-endian, on a multiple of four.
    pub fn into_singles(self) -> Result<MappedSingles, Self> {
        let aligned = self.0.as_ptr().addr().is_multiple_of(align_of::<f32>());
        let fits = aligned && self.0.len().is_multiple_of(size_of::<f32>());
        if fits && cfg!(target_endian = "little") {
            Ok(MappedSingles(self.0))
        } else {
            Err(self)
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Values of a file, mapped for reading; see [`Mapped`].
pub struct MappedSingles(Mmap);

impl Deref for MappedSingles {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `into_singles`, the only way to make one, checked the alignment and that the length is a multiple
        // of a value's; the map lives as long as the borrow, and any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / size_of::<f32>()) }
    }
}
