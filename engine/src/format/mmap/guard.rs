//! What happens when a mapped file shrinks: zeros and an error instead of the end of the process.
//!
//! Reading a page that the file behind a mapping no longer has raises SIGBUS, for private mappings too. The handler puts
//! a page of zeros there and notes which mapping it was; whoever computes with mapped bytes asks [`check`] before it
//! believes the outcome. A fault anywhere else goes to whoever handled it before.

#![expect(unsafe_code, reason = "a signal handler and the page it maps are unsafe by nature")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Code, Error, Result};

/// Mappings that can be guarded at a time; one above that many is mapped without a guard.
const SLOTS: usize = 4096;

/// Addresses of one mapping. The handler reads these fields only: it may not take a lock.
struct Slot {
    /// First address; 0 while the slot is free.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; SLOTS];
/// Whether any slot is lost: the one load that every step pays.
static ANY_LOST: AtomicBool = AtomicBool::new(false);
/// Files of the slots in use; its lock orders all changes of the table.
static FILES: Mutex<BTreeMap<usize, PathBuf>> = Mutex::new(BTreeMap::new());

fn files() -> MutexGuard<'static, BTreeMap<usize, PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the table, given back on drop.
#[derive(Debug)]
pub(super) struct Guarded(Option<usize>);

impl Guarded {
    /// Enters the mapping of `path` at `bytes`.
    pub(super) fn new(path: &Path, bytes: &[u8]) -> Self {
        let mut files = files();
        let free = (0..SLOTS).find(|slot| !files.contains_key(slot));
        if let Some(index) = free {
            let start = bytes.as_ptr() as usize;
            TABLE[index].end.store(start.saturating_add(bytes.len()), Ordering::Release);
            TABLE[index].start.store(start, Ordering::Release);
            files.insert(index, path.to_path_buf());
        }
        Self(free)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(index) = self.0 else { return };
        let mut files = files();
        TABLE[index].start.store(0, Ordering::Release);
        TABLE[index].lost.store(false, Ordering::Release);
        files.remove(&index);
        let any = files.keys().any(|&slot| TABLE[slot].lost.load(Ordering::Acquire));
        ANY_LOST.store(any, Ordering::Release);
    }
}

/// Refuses to go on when a mapped file has lost bytes that were read: they read as zeros.
///
/// # Errors
/// [`Code::FileChanged`] with the file.
pub fn check() -> Result<()> {
    if !ANY_LOST.load(Ordering::Acquire) {
        return Ok(());
    }
    let files = files();
    let lost = files.iter().find(|(slot, _)| TABLE[**slot].lost.load(Ordering::Acquire));
    lost.map_or(Ok(()), |(_, path)| {
        Err(Error::new(Code::FileChanged)
            .expected("a file that keeps its length while it is in use")
            .found("bytes that were there are gone")
            .hint("do not write to a model file while it is in use; write a copy and rename it")
            .in_file(path))
    })
}

#[cfg(target_os = "linux")]
pub use handler::install;

/// Systems whose handler nobody has tried keep their own.
#[cfg(not(target_os = "linux"))]
pub fn install() {}

#[cfg(target_os = "linux")]
mod handler {
    use std::mem::MaybeUninit;
    use std::ptr::null_mut;
    use std::sync::OnceLock;

    use libc::{c_int, c_void, siginfo_t};

    use super::{ANY_LOST, AtomicUsize, Ordering, TABLE};

    /// Who handled the signal before.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE: AtomicUsize = AtomicUsize::new(4096);

    /// Installs the handler for this process, once. A program decides that, a library must not.
    pub fn install() {
        PREVIOUS.get_or_init(|| {
            // SAFETY: `sysconf` takes no pointer. The action is zeroed, which is a valid value of the structure, and its
            // handler has the signature that SA_SIGINFO asks for; the kernel writes the old action before the call returns.
            unsafe {
                let page = libc::sysconf(libc::_SC_PAGESIZE);
                PAGE.store(usize::try_from(page).unwrap_or(4096), Ordering::Release);
                let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let mut previous: libc::sigaction = MaybeUninit::zeroed().assume_init();
                libc::sigaction(libc::SIGBUS, &raw const action, &raw mut previous);
                previous
            }
        });
    }

    extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
        // SAFETY: the kernel hands a valid structure to a handler with SA_SIGINFO.
        let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
        let from_kernel = code > 0;
        if from_kernel && put_zeros(address) {
            return;
        }
        let Some(previous) = PREVIOUS.get() else { return };
        // SAFETY: the structure came from the kernel. With the old action back in place, a fault is raised again when
        // this handler returns, and a signal that was sent is sent again; both calls are async-signal-safe.
        unsafe {
            libc::sigaction(signal, previous, null_mut());
            if !from_kernel {
                libc::raise(signal);
            }
        }
    }

    /// Maps a page of zeros over the one that failed, when it belongs to a guarded mapping.
    fn put_zeros(address: usize) -> bool {
        let owner = TABLE.iter().find(|slot| {
            let start = slot.start.load(Ordering::Acquire);
            start != 0 && (start..slot.end.load(Ordering::Acquire)).contains(&address)
        });
        let Some(slot) = owner else { return false };
        let page = PAGE.load(Ordering::Acquire);
        let base = address - address % page;
        // SAFETY: the page lies in a mapping of this process that nobody writes to and that is alive, since it was just read;
        // replacing it changes what its bytes are, which `check` reports, and nothing else. `mmap` is a plain system call.
        let mapped = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            libc::mmap(base as *mut c_void, page, libc::PROT_READ, flags, -1, 0)
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        slot.lost.store(true, Ordering::Release);
        ANY_LOST.store(true, Ordering::Release);
        true
    }
}
