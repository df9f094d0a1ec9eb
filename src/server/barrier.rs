//! A barrier where sled believes that there is one.
//!
//! sled writes over a segment of its log as soon as the last page of it lies elsewhere as well and is "stable". On
//! Linux it takes sync_file_range(2) for that, which waits until the disk has the pages, and does not flush the disk's
//! cache. If the power goes in between, the new place is lost and the old one is written over, and with it pages that
//! a checkpoint stands on. sled lets nobody in between itself and its file; but it calls the C library by name, and
//! names that a program has itself come first. So this is the `sync_file_range` of whatever is linked with this crate.

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::server::fault::{self, Layer};

/// Write, and wait for what was on its way before and for all of it: nobody who asks for less means a barrier.
const WRITE_AND_WAIT: c_uint =
    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// sled has asked for a barrier and got this one.
static IS_IN_USE: AtomicBool = AtomicBool::new(false);

/// sync_file_range(2), except that who waits for the disk waits for fdatasync(2).
#[allow(unsafe_code, reason = "it takes the place of a call of the C library")]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(
    file: c_int,
    offset: libc::off64_t,
    octets: libc::off64_t,
    flags: c_uint,
) -> c_int {
    if flags == WRITE_AND_WAIT {
        IS_IN_USE.store(true, Ordering::Relaxed);
        if !fault::is_unsynced(Layer::State) {
            // SAFETY: no memory is involved.
            return unsafe { libc::fdatasync(file) };
        }
    }
    // SAFETY: no memory is involved.
    let outcome = unsafe { libc::syscall(libc::SYS_sync_file_range, file, offset, octets, flags) };
    outcome as c_int
}

/// Whether sled has come here when it wrote something: a program may be linked in a way that it does not.
pub(super) fn is_in_use() -> bool {
    IS_IN_USE.load(Ordering::Relaxed)
}
