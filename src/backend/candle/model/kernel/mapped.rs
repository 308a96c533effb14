//! A file that is read through the page cache.

#![expect(unsafe_code, reason = "mapping a file; nothing else in this module")]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A read-only mapping.
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps the whole file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only. Another process that writes to or truncates the file while it is mapped
        // breaks this; checkpoints are written once and then moved into place, and no reader of mapped weights can exclude it.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells the system that pages of a converted range are not needed any more, so that they do not count as this process's memory.
    pub fn forget(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        {
            // SAFETY: `DontNeed` on a private read-only file mapping: pages are read from the file again when touched.
            let _ = unsafe {
                self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}
