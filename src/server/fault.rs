//! Faults on purpose: what a disk may do to us, when a test says so. None of this is in a release build.
//!
//! `SMPPD_FAULTS` has words with commas between them:
//!
//! | word | what it does |
//! |---|---|
//! | `journal-write=5` | the fifth batch is not written: EIO |
//! | `journal-write=5:short` | half of the fifth batch is written, and no more |
//! | `journal-write=5:late` | the fifth batch is written, and reported as failed |
//! | `state-op=7`, `state-op=7:panic` | the seventh order to the state at rest fails, or panics |
//! | `journal-sync=2` | the second sync of a file of the journal fails, which a start makes of each |
//! | `state-sync=2` | the second sync of the state at rest fails, or panics |
//! | `folder-sync=2` | the second sync of a folder fails, which makes the names in it durable |
//! | `journal-unsynced` | batches are written without waiting for the disk |
//! | `state-unsynced` | the state at rest is never synced, neither by us nor by sled |
//! | `partition=1` | only this partition is struck, and only its writes are counted |

#[cfg(all(test, debug_assertions))]
pub(super) use armed::watch;
#[cfg(debug_assertions)]
pub(super) use armed::{announce, is_unsynced, strike, write};
#[cfg(not(debug_assertions))]
pub(super) use unarmed::{announce, is_unsynced, strike, write};

/// What can be struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Point {
    /// The write of a batch of the journal.
    #[cfg(debug_assertions)]
    JournalWrite,
    /// The sync of a file of the journal.
    JournalSync,
    /// An order to the state at rest.
    StateOp,
    /// A sync of the state at rest.
    StateSync,
    /// A sync of a folder.
    FolderSync,
}

/// What can be left unsynced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    /// The journal's batches.
    Journal,
    /// The state at rest.
    State,
}

/// What becomes of a write.
pub(super) struct Fate {
    /// How much of it reaches the disk.
    pub(super) octets: usize,
    /// What is reported of that, when it is more than how much.
    pub(super) outcome: std::io::Result<()>,
}

#[cfg(not(debug_assertions))]
mod unarmed {
    use std::io;
    use std::path::Path;

    use super::{Fate, Layer, Point};

    pub(in crate::server) const fn announce() -> Result<(), String> {
        Ok(())
    }

    pub(in crate::server) const fn is_unsynced(_: Layer) -> bool {
        false
    }

    pub(in crate::server) const fn strike(_: Point, _: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::server) const fn write(_: &Path, octets: usize) -> Fate {
        Fate { octets, outcome: Ok(()) }
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::io;
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Fate, Layer, Point};

    const VARIABLE: &str = "SMPPD_FAULTS";
    /// The unit of a write that is cut short.
    const SECTOR: usize = 512;

    /// How a strike looks.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Manner {
        Error,
        Short,
        Late,
        Panic,
    }

    /// One strike: the `number`-th time that `point` is passed.
    #[derive(Debug)]
    struct Strike {
        point: Point,
        number: u64,
        manner: Manner,
        passed: AtomicU64,
    }

    /// Everything that is to go wrong.
    #[derive(Default, Debug)]
    struct Plan {
        strikes: Vec<Strike>,
        unsynced: Vec<Layer>,
        partition: Option<u8>,
    }

    impl Plan {
        fn parse(text: &str) -> Result<Self, String> {
            let mut plan = Self::default();
            for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                let unknown = || format!("{VARIABLE}: {word:?} is no fault");
                let (name, value) = word.split_once('=').unwrap_or((word, ""));
                let (value, manner) = value.split_once(':').unwrap_or((value, ""));
                let number = value.parse().ok();
                let point = match (name, number) {
                    ("journal-unsynced", None) => {
                        plan.unsynced.push(Layer::Journal);
                        continue;
                    }
                    ("state-unsynced", None) => {
                        plan.unsynced.push(Layer::State);
                        continue;
                    }
                    ("partition", Some(number)) => {
                        plan.partition = Some(u8::try_from(number).map_err(|_| unknown())?);
                        continue;
                    }
                    ("journal-write", Some(_)) => Point::JournalWrite,
                    ("journal-sync", Some(_)) => Point::JournalSync,
                    ("state-op", Some(_)) => Point::StateOp,
                    ("state-sync", Some(_)) => Point::StateSync,
                    ("folder-sync", Some(_)) => Point::FolderSync,
                    _ => return Err(unknown()),
                };
                let manner = match (manner, point) {
                    ("", _) => Manner::Error,
                    ("short", Point::JournalWrite) => Manner::Short,
                    ("late", Point::JournalWrite) => Manner::Late,
                    ("panic", Point::StateOp | Point::StateSync) => Manner::Panic,
                    _ => return Err(unknown()),
                };
                let number: u64 = number.unwrap_or_default();
                plan.strikes.push(Strike { point, number, manner, passed: AtomicU64::new(0) });
            }
            Ok(plan)
        }

        /// Counts that a folder of a partition passes a point; what is to happen there.
        fn pass(&self, point: Point, folder: &Path) -> Option<Manner> {
            if let Some(partition) = self.partition {
                let name = format!("partition-{partition:03}");
                if !folder.components().any(|component| component.as_os_str() == name.as_str()) {
                    return None;
                }
            }
            let mut manner = None;
            for strike in self.strikes.iter().filter(|strike| strike.point == point) {
                if strike.passed.fetch_add(1, Ordering::Relaxed) + 1 == strike.number {
                    manner = Some(strike.manner);
                }
            }
            manner
        }
    }

    fn plan() -> Result<&'static Plan, String> {
        static PLAN: OnceLock<Result<Plan, String>> = OnceLock::new();
        PLAN.get_or_init(|| Plan::parse(&std::env::var(VARIABLE).unwrap_or_default()))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn pass(point: Point, folder: &Path) -> Option<Manner> {
        plan().ok()?.pass(point, folder)
    }

    fn error() -> io::Error {
        io::Error::from_raw_os_error(libc::EIO)
    }

    /// Says what is to go wrong, if anything is.
    ///
    /// # Errors
    /// Something else than faults is asked for.
    pub(in crate::server) fn announce() -> Result<(), String> {
        let plan = plan()?;
        if !plan.strikes.is_empty() || !plan.unsynced.is_empty() {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            log::error!("{VARIABLE}={text}: faults on purpose; this server is for a test, not for messages");
        }
        Ok(())
    }

    /// Whether syncing is left out.
    pub(in crate::server) fn is_unsynced(layer: Layer) -> bool {
        plan().is_ok_and(|plan| plan.unsynced.contains(&layer))
    }

    /// Fails when it is time to.
    ///
    /// # Errors
    /// EIO.
    ///
    /// # Panics
    /// When that is asked for.
    pub(in crate::server) fn strike(point: Point, folder: &Path) -> io::Result<()> {
        #[cfg(test)]
        watched(point, folder)?;
        match pass(point, folder) {
            None => Ok(()),
            Some(Manner::Panic) => panic!("a fault on purpose: {point:?}"),
            Some(Manner::Error | Manner::Short | Manner::Late) => Err(error()),
        }
    }

    /// Whoever looks on while a point is passed, and may have it fail.
    #[cfg(test)]
    type Watcher = Box<dyn FnMut(Point, &Path) -> io::Result<()>>;

    #[cfg(test)]
    thread_local! {
        static WATCHER: std::cell::RefCell<Option<Watcher>> = const { std::cell::RefCell::new(None) };
    }

    /// Does something, and has `watcher` called at each point that this thread passes meanwhile, where it may fail. A unit
    /// test sees there what is durable before what.
    #[cfg(test)]
    pub(in crate::server) fn watch<R>(
        watcher: impl FnMut(Point, &Path) -> io::Result<()> + 'static,
        what: impl FnOnce() -> R,
    ) -> R {
        WATCHER.set(Some(Box::new(watcher)));
        let result = what();
        WATCHER.set(None);
        result
    }

    #[cfg(test)]
    fn watched(point: Point, folder: &Path) -> io::Result<()> {
        // It may pass points itself, unseen.
        let Some(mut watcher) = WATCHER.take() else { return Ok(()) };
        let outcome = watcher(point, folder);
        WATCHER.set(Some(watcher));
        outcome
    }

    /// What becomes of a write of `octets` to the journal in `folder`.
    pub(in crate::server) fn write(folder: &Path, octets: usize) -> Fate {
        match pass(Point::JournalWrite, folder) {
            None => Fate { octets, outcome: Ok(()) },
            // Whoever writes has to notice.
            Some(Manner::Short) => Fate { octets: (octets / 2).next_multiple_of(SECTOR), outcome: Ok(()) },
            Some(Manner::Late) => Fate { octets, outcome: Err(error()) },
            Some(Manner::Error | Manner::Panic) => Fate { octets: 0, outcome: Err(error()) },
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_nth_pass_of_the_named_partition_is_struck_and_no_other() {
            let plan = Plan::parse("journal-write=2:short, state-op=1,partition=1,journal-unsynced");
            let plan = plan.expect("a plan");
            let [zero, one] = ["data/partition-000/journal", "data/partition-001/journal"].map(Path::new);
            let seen = [zero, zero, one, zero, one, one].map(|folder| plan.pass(Point::JournalWrite, folder));
            assert_eq!(seen, [None, None, None, None, Some(Manner::Short), None]);
            assert_eq!(plan.pass(Point::StateSync, one), None);
            assert_eq!(plan.pass(Point::StateOp, one), Some(Manner::Error));
            assert_eq!(plan.unsynced, [Layer::Journal]);
        }

        #[test]
        fn what_is_no_fault_is_named() {
            for word in ["journal", "journal-write", "state-op=x", "state-op=1:late", "partition=300"] {
                assert!(Plan::parse(word).expect_err("no plan").contains(word), "{word}");
            }
        }
    }
}
