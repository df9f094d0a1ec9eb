//! File systems of a test's own: one that loses its power, one that is full. They need root, and say so.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Dice, PATIENCE, Place, skip};

/// Loop devices are few, so tests take turns.
static DEVICES: Mutex<()> = Mutex::new(());

/// Runs a program; what it printed, or what it complained of.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), complaint.trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Tries until it works: io_uring holds what a process had open for some milliseconds after its end.
fn persist(program: &str, arguments: &[&str]) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match run(program, arguments) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A loop device on a file, detached with it.
struct Device(String);

impl Device {
    fn on(file: &Path) -> Result<Self, String> {
        // Through the page cache of the file system below: that is the volatile cache of this disk.
        run("losetup", &["--find", "--show", "--direct-io=off", text(file)]).map(Self)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = persist("losetup", &["--detach", &self.0]);
    }
}

/// A mounted file system, unmounted with it.
struct Mount(PathBuf);

impl Mount {
    fn of(device: &str, kind: &str, options: &str, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        run("mount", &["-t", kind, "-o", options, device, text(folder)])?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if persist("umount", &[text(&self.0)]).is_err() {
            // Better gone from sight than there for ever.
            let _ = run("umount", &["--lazy", text(&self.0)]);
        }
    }
}

/// Little is written back by itself.
const LAZY: &str = "noatime,commit=600";
/// The kernel's `EXT4_IOC_SHUTDOWN`, and its way to write nothing back first.
const SHUTDOWN: libc::Ioctl = 0x8004_587D;
const NOTHING_FIRST: u32 = 2;

/// A disk with a volatile cache, mounted on a folder, that can lose its power.
///
/// It is a file on an ext4 of its own, with a loop device and another ext4 on it. What is written to the loop
/// device stays in the page cache below until a flush comes, and a flush becomes an fsync: so the page cache
/// below is the cache of the disk. Without power, the file system below is shut down: from that instant
/// nothing reaches it any more, every flush fails, and both page caches are gone.
pub struct Disk {
    // In the order in which they have to go.
    mount: Option<Mount>,
    device: Option<Device>,
    below: Option<Mount>,
    device_below: Device,
    image: PathBuf,
    folder: PathBuf,
    folder_below: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Disk {
    /// A disk on the data directory of a place that has none yet; `None`, and a line that says why, where that
    /// cannot be.
    pub fn new(what: &str, place: &Place, mib: u64) -> Option<Self> {
        if !super::is_root() {
            skip(what, "only root may mount file systems");
            return None;
        }
        let turn = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        Self::make(place, mib, turn).map_err(|error| skip(what, &error)).ok()
    }

    fn make(place: &Place, mib: u64, turn: MutexGuard<'static, ()>) -> Result<Self, String> {
        // Memory will do: its power does not fail.
        let memory = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(memory).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        let name = place.path("disk.img");
        let image = if room > (4 * mib) << 20 {
            memory.join(format!("{}.img", text(&name).replace('/', "-")))
        } else {
            name
        };
        let made = (|| {
            let file = File::create(&image).map_err(|error| format!("{}: {error}", image.display()))?;
            file.set_len((mib + mib / 10 + 16) << 20).map_err(|error| error.to_string())?;
            run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)])?;
            let device_below = Device::on(&image)?;
            let folder_below = place.path("below");
            let below = Mount::of(&device_below.0, "ext4", LAZY, &folder_below)?;
            let disk = folder_below.join("disk");
            // Written, not merely promised: what is written later changes no metadata below.
            let zeros = format!("count={mib}");
            run("dd", &["if=/dev/zero", &format!("of={}", text(&disk)), "bs=1M", &zeros, "conv=fsync"])?;
            run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&disk)])?;
            run("sync", &["--file-system", text(&folder_below)])?;
            Ok((device_below, folder_below, below))
        })();
        let (device_below, folder_below, below) = made.inspect_err(|_: &String| {
            let _ = fs::remove_file(&image);
        })?;
        let folder = place.data();
        let below = Some(below);
        let mut disk =
            Self { mount: None, device: None, below, device_below, image, folder, folder_below, _turn: turn };
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&mut self) -> Result<(), String> {
        let device = Device::on(&self.folder_below.join("disk"))?;
        let mount = Mount::of(&device.0, "ext4", LAZY, &self.folder)?;
        (self.device, self.mount) = (Some(device), Some(mount));
        Ok(())
    }

    /// From now on every write waits, until what this gives back is dropped.
    pub fn stand_still(&self) -> Standstill {
        run("fsfreeze", &["--freeze", text(&self.folder_below)]).expect("a disk that stands still");
        Standstill(self.folder_below.clone())
    }

    /// Writes that the disk has and is not done with.
    pub fn writes_under_way(&self) -> u64 {
        let device = self.device.as_ref().expect("a disk").0.trim_start_matches("/dev/");
        let counts = fs::read_to_string(format!("/sys/block/{device}/inflight")).expect("a block device");
        counts.split_whitespace().nth(1).and_then(|writes| writes.parse().ok()).expect("a count")
    }

    /// Takes the power away. A disk writes back what it likes, when it likes: a random half of what its cache
    /// holds gets through before.
    pub fn cut(&self, dice: &mut Dice) {
        const PIECE: u64 = 64 << 10;
        let disk = File::open(self.folder_below.join("disk")).expect("a disk");
        let length = disk.metadata().expect("a disk").len();
        for offset in (0..length).step_by(PIECE as usize) {
            if dice.below(2) == 0 {
                write_back(&disk, offset, PIECE);
            }
        }
        let below = File::open(&self.folder_below).expect("a folder");
        shut_down(&below);
    }

    /// Gives the power back; whoever used the disk must have ended.
    pub fn restore(&mut self) {
        self.mount = None;
        self.device = None;
        self.below = None;
        self.below = Some(Mount::of(&self.device_below.0, "ext4", LAZY, &self.folder_below).expect("a disk"));
        self.attach().expect("a disk");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mount = None;
        self.device = None;
        self.below = None;
        let _ = fs::remove_file(&self.image);
    }
}

/// A disk that stands still.
pub struct Standstill(PathBuf);

impl Drop for Standstill {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", text(&self.0)]).expect("a disk that goes on");
    }
}

#[allow(unsafe_code, reason = "no crate has these calls; they take plain numbers and a file that is open")]
fn write_back(file: &File, offset: u64, octets: u64) {
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: no memory is involved.
    let outcome =
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset.cast_signed(), octets.cast_signed(), flags) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[allow(unsafe_code, reason = "no crate has this call; it reads one number")]
fn shut_down(file_system: &File) {
    let how: u32 = NOTHING_FIRST;
    // SAFETY: the kernel reads an u32 there.
    let outcome = unsafe { libc::ioctl(file_system.as_raw_fd(), SHUTDOWN, &raw const how) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// A small file system on the data directory of a place.
pub struct SmallDisk {
    _mount: Mount,
    folder: PathBuf,
}

impl SmallDisk {
    /// Of this kind and size; `None`, and a line that says why, where that cannot be.
    pub fn new(what: &str, place: &Place, mib: u64) -> Option<Self> {
        if !super::is_root() {
            skip(what, "only root may mount file systems");
            return None;
        }
        let folder = place.data();
        match Mount::of("tmpfs", "tmpfs", &format!("size={mib}m"), &folder) {
            Ok(mount) => Some(Self { _mount: mount, folder }),
            Err(error) => {
                skip(what, &error);
                None
            }
        }
    }

    /// Takes room until only this much is left.
    pub fn fill(&self, mib_left: u64) {
        let disk = rustix::fs::statvfs(&self.folder).expect("a disk");
        let octets = (disk.f_bavail * disk.f_frsize).saturating_sub(mib_left << 20);
        let filler = File::create(self.folder.join("filler")).expect("a file");
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, octets).expect("room");
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.folder.join("filler")).expect("the filler");
    }
}
