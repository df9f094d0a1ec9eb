//! File descriptors: how many connections they are enough for, and what becomes of a lack of them. It is no fault of the
//! disk: nothing was written, and what could not be opened is tried again.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for ourselves: standard streams, signals, listeners, the admin port, libraries, files that are read now and then.
const SPARE: u64 = 128;
/// Kept for each partition, beside its journal: sled's files, the rings of its core.
const SPARE_OF_PARTITION: u64 = 16;
/// A core that takes fewer connections is of no use.
const CONNECTIONS_MIN: u64 = 16;
/// After this a thread that may wait tries again.
const PAUSE: Duration = Duration::from_millis(50);

/// A lack of them in the words of the log and of health. Most often it is the limit of the process that is too low.
pub(super) const LACK: &str =
    "no file descriptor is left (ulimit -n; or fs.file-max, or memory, of the whole machine)";

/// What descriptors are needed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Connections that each core is to take.
    pub(super) connections_max: usize,
    /// Cores.
    pub(super) cores: usize,
    /// Partitions.
    pub(super) partitions: usize,
    /// Files that the journal of each partition may have.
    pub(super) segments_max: usize,
}

impl Needs {
    /// Descriptors that connections must not take.
    const fn spare(self) -> u64 {
        SPARE + (self.segments_max as u64 + SPARE_OF_PARTITION) * self.partitions as u64
    }

    const fn wanted(self) -> u64 {
        self.spare() + (self.connections_max * self.cores) as u64
    }

    /// Connections that each core can take with this limit.
    ///
    /// # Errors
    /// They are too few.
    fn connections(self, limit: u64) -> Result<usize, String> {
        let each = limit.saturating_sub(self.spare()) / self.cores as u64;
        let least = CONNECTIONS_MIN.min(self.connections_max as u64);
        if each < least {
            let needed = self.spare() + least * self.cores as u64;
            let Self { cores, partitions, .. } = self;
            return Err(format!(
                "the limit of open files is {limit}; {cores} cores with {partitions} partitions need {needed} at least \
                 (ulimit -n, LimitNOFILE of systemd)"
            ));
        }
        Ok(self.connections_max.min(each as usize))
    }
}

/// Raises the limit of open files as far as it goes and is needed; how many connections each core can take.
///
/// # Errors
/// The limit is too low for any.
pub(super) fn reserve(needs: Needs) -> Result<usize, String> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = needs.wanted();
    let reachable = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = limit.current.unwrap_or(u64::MAX);
    if current < reachable
        && setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), ..limit }).is_err()
    {
        log::warn!("the limit of open files stays at {current}");
    }
    let open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = needs.connections(open)?;
    if connections < needs.connections_max {
        let set = needs.connections_max;
        log::warn!(
            "with {open} open files allowed each core takes {connections} connections, not limits.connections_max = {set}, \
             for which {wanted} are needed (ulimit -n, LimitNOFILE of systemd)"
        );
    }
    Ok(connections)
}

/// Whether something could not be opened now, and may be later: descriptors or the kernel's memory for them are used up.
pub(super) fn is_shortage(os_error: Option<i32>) -> bool {
    matches!(os_error, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether something could not be opened for want of descriptors when it was tried last.
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// Notes whether there are descriptors, for health and the log; `what` could not be opened.
pub(super) fn note(is_short: bool, what: impl std::fmt::Display) {
    if IS_SHORT.swap(is_short, Ordering::Relaxed) != is_short {
        if is_short {
            log::error!("{what}: {LACK}; it is tried again");
        } else {
            log::info!("there are file descriptors again");
        }
    }
}

/// Whether health has to say so. Whoever found none may not have tried again: nobody connects to a server that is not well.
pub(super) fn are_short() -> bool {
    if IS_SHORT.load(Ordering::Relaxed) && File::open("/dev/null").is_ok() {
        note(false, "health");
    }
    IS_SHORT.load(Ordering::Relaxed)
}

/// Opens something, and waits while there is no descriptor for it: for threads that may wait.
///
/// # Errors
/// That of opening, when it is another.
pub(super) fn patiently<T>(what: &std::path::Path, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match open() {
            Err(error) if is_shortage(error.raw_os_error()) => note(true, what.display()),
            Ok(opened) => {
                note(false, what.display());
                return Ok(opened);
            }
            failed @ Err(_) => return failed,
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NEEDS: Needs = Needs { connections_max: 10_000, cores: 2, partitions: 2, segments_max: 64 };

    #[test]
    fn connections_never_take_what_is_kept_for_the_journal() {
        for (limit, connections) in [
            (319, None),
            (320, Some(16)),
            (321, Some(16)),
            (1_024, Some(368)),
            (20_000, Some(9_856)),
            (20_287, Some(9_999)),
            (20_288, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(NEEDS.connections(limit).ok(), connections, "{limit}");
        }
        assert_eq!(NEEDS.wanted(), 20_288);
        let error = NEEDS.connections(100).expect_err("too few");
        assert!(error.contains("100") && error.contains("320"), "{error}");
        let few = Needs { connections_max: 3, ..NEEDS };
        assert_eq!((few.connections(294).ok(), few.connections(293).ok()), (Some(3), None));
    }

    #[test]
    fn a_shortage_is_over_when_there_is_a_descriptor_though_nobody_else_looks() {
        note(true, "whoever came last");
        assert!(!are_short());
    }

    #[test]
    fn whoever_may_wait_does_until_there_is_a_descriptor() {
        let mut answers = [libc::EMFILE, libc::ENFILE, libc::ENOMEM].into_iter();
        let opened = patiently(Path::new("file"), || match answers.next() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(7),
        });
        assert_eq!(opened.expect("opened"), 7);
        let denied = || Err::<(), _>(io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(
            patiently(Path::new("file"), denied).map_err(|error| error.raw_os_error()),
            Err(Some(libc::EACCES))
        );
    }
}
