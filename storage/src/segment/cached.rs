//! The second descriptor of a sealed segment, through the page cache, for readers that are far behind.
//!
//! Page cache and direct writes do not mix on one file, so a segment has one only once nobody writes to it. A log that is
//! cut goes on with a new [`Segment`] for the same file; what was handed out of the old one lies below the high
//! watermark, where nothing is ever cut.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use heizer_runtime::fs::CachedFile;
use heizer_runtime::time::Instant;
use heizer_runtime::{task, time};

use super::Segment;
use crate::error::{IoContext, StorageError};
use crate::readers::Readers;

/// What is known of the second descriptor.
#[derive(Default)]
pub(super) enum Cached {
    /// Nobody has asked, or it was closed.
    #[default]
    Closed,
    /// Kernel or file system are not up to it.
    Unsuited,
    Open {
        file: CachedFile,
        readers: Readers,
    },
}

impl Segment {
    /// The file through the page cache, opened if it is not; `None` where it has to be read directly.
    pub(crate) async fn open_cached(self: &Rc<Self>) -> Result<Option<CachedFile>, StorageError> {
        assert!(self.is_sealed(), "pages of a file that is written to would be stale");
        self.used.set(true);
        match &*self.cached.borrow() {
            Cached::Closed => {}
            Cached::Unsuited => return Ok(None),
            Cached::Open { file, .. } => return Ok(Some(file.clone())),
        }
        // Without direct I/O everything is in the page cache anyway, and stays as the kernel sees fit.
        let direct = self.open_file().await?.is_direct();
        let opened = if direct { CachedFile::open(&self.path).await.at(&self.path, "open")? } else { None };
        if self.retired.get() {
            // The name may be that of the segment that compaction has put in this one's place.
            return Ok(None);
        }
        let mut cached = self.cached.borrow_mut();
        match (&*cached, opened) {
            // Another reader was faster.
            (Cached::Open { file, .. }, _) => Ok(Some(file.clone())),
            (_, None) => {
                *cached = Cached::Unsuited;
                Ok(None)
            }
            (_, Some(file)) => {
                *cached = Cached::Open { file: file.clone(), readers: Readers::default() };
                self.was_cached.set(true);
                drop(cached);
                self.ctx.note_open_file(self);
                self.ctx.note_cached(self);
                Ok(Some(file))
            }
        }
    }

    /// A reader is given `range`: lets go of pages that nobody needs any more.
    pub(crate) fn note_reader(&self, range: Range<u64>) {
        let mut cached = self.cached.borrow_mut();
        if let Cached::Open { file, readers } = &mut *cached
            && let Some(unneeded) = readers.take(range, time::now())
        {
            forget(file.clone(), unneeded);
        }
    }

    /// Closes the second descriptor where all readers are gone, and lets go of the pages. Whether it is open still.
    pub(crate) fn sweep_cached(&self, now: Instant) -> bool {
        let mut cached = self.cached.borrow_mut();
        let Cached::Open { file, readers } = &mut *cached else { return false };
        if !readers.are_gone(now) {
            return true;
        }
        forget(file.clone(), 0..self.bytes());
        *cached = Cached::Closed;
        false
    }

    /// Whether the second descriptor was ever open: parts of the file may have been handed out, and nobody knows whether
    /// they have arrived.
    pub(crate) fn was_cached(&self) -> bool {
        self.was_cached.get()
    }

    /// Whether the second descriptor is open.
    #[cfg(test)]
    pub(crate) fn is_cached(&self) -> bool {
        matches!(*self.cached.borrow(), Cached::Open { .. })
    }
}

/// Closes it; what was handed out of it goes on.
pub(super) fn close(cached: &RefCell<Cached>) {
    let mut cached = cached.borrow_mut();
    if matches!(*cached, Cached::Open { .. }) {
        *cached = Cached::Closed;
    }
}

fn forget(file: CachedFile, range: Range<u64>) {
    drop(task::spawn(async move {
        // Pages that stay are reclaimed like any others.
        if let Err(error) = file.forget(range).await {
            tracing::debug!(%error, "pages of a segment cannot be dropped");
        }
    }));
}
