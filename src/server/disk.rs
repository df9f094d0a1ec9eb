//! The journal's files: zero-filled segments, written through io_uring, used again and again.

use std::any::Any;
use std::cell::RefCell;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::config::Durability;
use crate::journal::{BATCH_ALIGN, Batch, BatchBuffer, Buffers};
use crate::server::descriptors;
use crate::server::durable_file;
use crate::server::fault::{self, Layer, Point};

/// Zeros are written in pieces of this.
const FILL_OCTETS: usize = 1 << 20;
/// After this a file is opened again for which there was no descriptor.
const OPEN_PAUSE: Duration = Duration::from_millis(50);
/// How long the last write of a process that was killed may take, how often it is looked for, and when that is told.
const LATE_PATIENCE: Duration = Duration::from_secs(60);
const LATE_PAUSE: Duration = Duration::from_millis(5);
const LATE_TOLD: Duration = Duration::from_secs(1);

/// The journal of one partition, before its core has it.
pub(super) struct JournalFolder {
    /// Where the segment files are.
    pub(super) folder: PathBuf,
    /// What a write has to survive.
    pub(super) durability: Durability,
    /// How many files there are.
    pub(super) files: u32,
}

/// The journal files of one partition, as its core writes them.
pub(super) struct JournalFiles {
    folder: PathBuf,
    durability: Durability,
    files: RefCell<Vec<Option<Rc<DmaFile>>>>,
}

/// Why a file of the journal is not open.
pub(super) enum Unopened {
    /// There is no descriptor for it now. Nothing was written.
    Shortage,
    /// The disk has failed.
    Failed(io::Error),
}

/// A batch is gathered where the disk reads it from.
struct DmaBatch(DmaBuffer);

impl BatchBuffer for DmaBatch {
    fn octets(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

/// Makes buffers, out of the executor's own memory as long as it has some.
pub(super) fn buffers() -> Buffers {
    Box::new(|octets| Box::new(DmaBatch(glommio::allocate_dma_buffer(octets))))
}

impl JournalFiles {
    /// No file is open yet.
    pub(super) fn new(journal: JournalFolder) -> Self {
        let JournalFolder { folder, durability, .. } = journal;
        Self { folder, durability, files: RefCell::new(Vec::new()) }
    }

    /// Makes a batch durable. A batch is never tried twice: after a failed write nobody knows what the disk holds.
    ///
    /// # Errors
    /// A file could not be opened or written.
    pub(super) async fn write(&self, batch: Batch) -> io::Result<()> {
        let (placement, octets) = (batch.placement(), batch.aligned_octets());
        let file = self.opened(placement.file).await?;
        let buffer: Box<dyn Any> = batch.into_buffer();
        let Ok(buffer) = buffer.downcast::<DmaBatch>() else { unreachable!("all buffers are of our making") };
        let DmaBatch(mut buffer) = *buffer;
        let fate = fault::write(&self.folder, octets);
        buffer.trim_to_size(fate.octets);
        let written = file.write_at(buffer, placement.offset).await;
        let outcome = written.map_err(io::Error::from).and_then(|written| {
            fate.outcome?;
            let short = || io::Error::other(format!("only {written} of {octets} octets were written"));
            (written >= octets).then_some(()).ok_or_else(short)
        });
        let Err(error) = outcome else { return Ok(()) };
        // It may be on the disk all the same, and whoever waits for it is about to be refused.
        let fate = match wipe(&file, placement.offset).await {
            Ok(()) => "its batch is wiped out",
            Err(_) => "its batch cannot be wiped out, so what is refused now may be sent after a restart",
        };
        Err(io::Error::other(format!("{error}; {fate}")))
    }

    /// Opens a file before it is needed: later there may be no descriptor for it.
    ///
    /// # Errors
    /// There is none now, or the file cannot be opened or locked.
    pub(super) async fn open(&self, number: u32) -> Result<(), Unopened> {
        self.file(number).await.map(|_| ())
    }

    async fn file(&self, number: u32) -> Result<Rc<DmaFile>, Unopened> {
        let place = number as usize;
        if let Some(Some(file)) = self.files.borrow().get(place) {
            return Ok(Rc::clone(file));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.durability == Durability::Fsync && !fault::is_unsynced(Layer::Journal) {
            options.custom_flags(libc::O_DSYNC);
        }
        let path = segment_path(&self.folder, number);
        let file = match options.dma_open(&path).await {
            Ok(file) => Rc::new(file),
            Err(error) if descriptors::is_shortage(error.raw_os_error()) => {
                descriptors::note(true, path.display());
                return Err(Unopened::Shortage);
            }
            Err(error) => return Err(Unopened::Failed(error.into())),
        };
        lock(&file).map_err(Unopened::Failed)?;
        descriptors::note(false, path.display());
        let mut files = self.files.borrow_mut();
        if files.len() <= place {
            files.resize(place + 1, None);
        }
        files[place] = Some(Rc::clone(&file));
        Ok(file)
    }

    /// The file, which is open already but for a fault of ours; then whoever waits for the batch waits for a descriptor.
    async fn opened(&self, number: u32) -> io::Result<Rc<DmaFile>> {
        loop {
            match self.file(number).await {
                Ok(file) => return Ok(file),
                Err(Unopened::Failed(error)) => return Err(error),
                Err(Unopened::Shortage) => glommio::timer::sleep(OPEN_PAUSE).await,
            }
        }
    }
}

/// Takes the lock that [`take_over`] waits for.
#[allow(unsafe_code, reason = "glommio's file lends its descriptor only as a number")]
fn lock(file: &DmaFile) -> io::Result<()> {
    // SAFETY: the file is open as long as it is borrowed.
    let descriptor = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    flock(descriptor, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => io::Error::other("another process has locked this file of the journal"),
        error => error.into(),
    })
}

/// Takes a file of the journal over from the process before, so that what is read from it stays as it is: no write of
/// that process is under way any more, and what it wrote is durable though it may have been killed before its sync.
///
/// A write goes on when its process has ended, and so does the lock on its file: the kernel has both until it is over.
///
/// # Errors
/// It cannot be read or synced, or such a write does not end.
pub(super) fn take_over(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= LATE_PATIENCE => {
                return Err(io::Error::other("the disk does not end what an earlier process was writing"));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !is_told && begun.elapsed() >= LATE_TOLD {
            is_told = true;
            log::warn!("{}: waiting for the end of what an earlier process was writing", path.display());
        }
        thread::sleep(LATE_PAUSE);
    }
    fault::strike(Point::JournalSync, path)?;
    if fault::is_unsynced(Layer::Journal) { Ok(()) } else { file.sync_data() }
}

/// Writes zeros over the header of a batch, so that no replay takes it for one. Nothing lies behind it: one batch is
/// written at a time.
async fn wipe(file: &DmaFile, offset: u64) -> io::Result<()> {
    let mut zeros = file.alloc_dma_buffer(BATCH_ALIGN);
    zeros.as_bytes_mut().fill(0);
    let written = file.write_at(zeros, offset).await?;
    if written < BATCH_ALIGN { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// The file of a segment.
pub(super) fn segment_path(folder: &Path, file: u32) -> PathBuf {
    folder.join(format!("segment-{file:03}.log"))
}

/// Makes a segment file: written with zeros, not merely promised, so that a full disk is met now and not by a message.
/// It takes a while; no core may wait for it.
///
/// # Errors
/// There is no room, or the folder cannot be written.
pub(super) fn make_segment(folder: &Path, file: u32, segment_octets: u64) -> io::Result<()> {
    let path = segment_path(folder, file);
    let filled = (|| {
        // Piece by piece to the disk: all at once they would keep the journal waiting.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_DSYNC);
        let mut segment = options.open(&path)?;
        let zeros = vec![0; FILL_OCTETS];
        for _ in 0..segment_octets / FILL_OCTETS as u64 {
            segment.write_all(&zeros)?;
        }
        segment.sync_all()?;
        durable_file::sync_folder(folder)
    })();
    if filled.is_err() {
        // Half a segment is worse than none: it would be taken for a whole one next time.
        _ = std::fs::remove_file(&path);
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    #[test]
    fn what_an_earlier_process_has_under_way_is_waited_for() {
        let path = std::env::temp_dir().join(format!("smppd-take-over-{}", std::process::id()));
        let earlier = File::create(&path).expect("a file");
        earlier.lock().expect("a lock");
        let (sender, taken_over) = channel();
        let next = thread::spawn({
            let path = path.clone();
            move || _ = sender.send(take_over(&path).map_err(|error| error.kind()))
        });
        assert_eq!(taken_over.recv_timeout(10 * LATE_PAUSE), Err(RecvTimeoutError::Timeout));
        drop(earlier);
        assert_eq!(taken_over.recv(), Ok(Ok(())));
        next.join().expect("it ends");
        std::fs::remove_file(&path).expect("the file");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_segment_is_whole_before_its_name_is_durable_and_gone_when_that_fails() {
        let folder = std::env::temp_dir().join(format!("smppd-segment-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = segment_path(&folder, 7);
        let octets = || std::fs::metadata(&path).map_or(0, |file| file.len());
        for fails in [true, false] {
            let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
            let watcher = {
                let (seen, path) = (Rc::clone(&seen), path.clone());
                move |point, synced: &Path| {
                    let length = std::fs::metadata(&path).expect("a file").len();
                    seen.borrow_mut().push((point, synced.to_owned(), length));
                    if fails { Err(io::Error::other("the test says so")) } else { Ok(()) }
                }
            };
            let made = fault::watch(watcher, || make_segment(&folder, 7, 2 * FILL_OCTETS as u64));
            assert_eq!(seen.take(), [(Point::FolderSync, folder.clone(), 2 * FILL_OCTETS as u64)]);
            assert_eq!((made.is_err(), octets() == 0), (fails, fails));
        }
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_file_that_is_taken_over_is_synced_once_and_behind_its_lock() {
        let path = std::env::temp_dir().join(format!("smppd-synced-over-{}", std::process::id()));
        std::fs::write(&path, "what an earlier process wrote").expect("a file");
        let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
        let watcher = {
            let seen = Rc::clone(&seen);
            move |point, file: &Path| {
                let is_locked = matches!(File::open(file)?.try_lock(), Err(TryLockError::WouldBlock));
                seen.borrow_mut().push((point, is_locked));
                Ok(())
            }
        };
        fault::watch(watcher, || take_over(&path)).expect("taken over");
        assert_eq!(seen.take(), [(Point::JournalSync, true)]);
        let failing = |_, _: &Path| Err(io::Error::other("the test says so"));
        assert!(fault::watch(failing, || take_over(&path)).is_err());
        std::fs::remove_file(&path).expect("the file");
    }

    #[test]
    fn a_file_that_cannot_be_synced_is_not_taken_over() {
        // Whatever else can be done with it, the kernel syncs no such file.
        let error = take_over(Path::new("/dev/null")).expect_err("it was not synced");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
}
