//! Immutable bytes that many own, behind a pointer of eight bytes and a header of eight.
//!
//! `Arc<[u8]>` takes sixteen and sixteen. A record is held by the index and by the revision log, so that is 24 bytes for
//! each version in memory, and at common sizes a whole step of the allocator's classes.

#![allow(unsafe_code)]

use crate::limits::RECORD_OWNERS_MAX;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// What stands before the bytes.
#[repr(C)]
struct Header {
    owners: AtomicU32,
    len: u32,
}

/// Bytes that an allocation has before those of the slice.
pub(crate) const HEADER_BYTES: usize = size_of::<Header>();

/// Shared bytes; cloning counts, and the last owner frees.
///
/// - Invariant: the pointer is to a [`Header`] with `len` bytes behind it, in one allocation of [`layout`], alive as
///   long as `owners` is above zero; nobody writes to those bytes after [`Shared::new`].
pub(crate) struct Shared(NonNull<Header>);

// SAFETY: the bytes are never written while shared, and the count of owners is atomic.
unsafe impl Send for Shared {}
// SAFETY: as above; `&Shared` gives out `&[u8]` only.
unsafe impl Sync for Shared {}

fn layout(len: usize) -> Layout {
    let bytes = Layout::array::<u8>(len).expect("a slice in memory has a layout");
    let (layout, at) = Layout::new::<Header>().extend(bytes).expect("a header fits before it");
    debug_assert_eq!(at, HEADER_BYTES);
    layout
}

impl Shared {
    /// Copies `bytes` into an allocation of their own.
    ///
    /// - Panics: for 4 GiB and more, which no request can hold.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("a record is far below 4 GiB");
        let layout = layout(bytes.len());
        // SAFETY: the layout has the header's size at least, so it is not empty.
        let Some(header) = NonNull::new(unsafe { alloc(layout) }.cast::<Header>()) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is ours alone, aligned for the header, and has `len` bytes behind it; `bytes` lies in
        // another allocation.
        unsafe {
            header.write(Header { owners: AtomicU32::new(1), len });
            header.add(1).cast::<u8>().copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
        Self(header)
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariant the header lives as long as an owner does.
        unsafe { self.0.as_ref() }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.header().len as usize;
        // SAFETY: by the invariant `len` initialized bytes follow the header, in the same allocation, unchanged while
        // `self` lives.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(1).cast::<u8>(), len) }
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        // Relaxed, as in `Arc`: who clones has a reference already, by which everything else became visible.
        if self.header().owners.fetch_add(1, Ordering::Relaxed) >= RECORD_OWNERS_MAX {
            self.header().owners.fetch_sub(1, Ordering::Relaxed);
            panic!("a record has {RECORD_OWNERS_MAX} owners");
        }
        Self(self.0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.header().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // All uses by former owners come before the free.
        fence(Ordering::Acquire);
        let layout = layout(self.header().len as usize);
        // SAFETY: this was the last owner, and the layout is the one of the allocation.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_given_until_the_last_owner_goes() {
        for len in [0usize, 1, 7, 8, 9, 311, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let first = Shared::new(&bytes);
            let owners: Vec<Shared> = (0..10).map(|_| first.clone()).collect();
            assert_eq!(first.header().owners.load(Ordering::SeqCst), 11);
            drop(first);
            assert!(owners.iter().all(|owner| owner[..] == bytes[..]));
            assert_eq!(owners[3], Shared::new(&bytes));
            assert_eq!(owners[0].header().owners.load(Ordering::SeqCst), 10);
        }
        assert_ne!(Shared::new(b"a"), Shared::new(b"b"));
    }

    #[test]
    fn is_one_word() {
        assert_eq!((size_of::<Shared>(), size_of::<Option<Shared>>(), HEADER_BYTES), (8, 8, 8));
    }
}
