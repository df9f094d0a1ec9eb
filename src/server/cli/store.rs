//! `smppd store …`: a look into what is kept, of a server that runs or of one that does not.

use std::fmt;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write, stderr, stdout};
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::account::AccountSettings;
use crate::config::{Config, Durability};
use crate::message::PartitionNumber;
use crate::server::accounts_file::AccountsFile;
use crate::server::cli::{CliError, PlaceArgs, ServeArgs, durability, effective_config};
use crate::server::state::{self, AtRest, caught};
use crate::server::store_bench::{self, Plan};
use crate::server::store_tool::{self, Action, Failure, Opened, Output, Partitions, Request, What};
use crate::server::{control, recovery};

#[derive(Subcommand, Debug)]
pub(super) enum StoreCommand {
    /// Say in numbers what is kept: files, messages by state, receipts by account, credits
    #[command(after_help = "\
Examples:
  smppd store inspect
  smppd store inspect --data-dir /var/lib/smppd --partition 0 --json")]
    Inspect(ReportArgs),
    /// Look for damage: every checksum, every block, and whether they agree with one another
    ///
    /// Exits with 0 when all is well, with 1 and a list of what is not, and with 3 when it could not look: there was no room
    /// in TMPDIR for a copy, or the directory may not be read. Changes nothing.
    #[command(after_help = "\
Examples:
  smppd store verify
  smppd store verify --data-dir /backup/smppd-data")]
    Verify(ReportArgs),
    /// Write out everything that is kept, one JSON object a line
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Tell the life of one message: its events, where they are, and what is at rest
    ///
    /// Exits with 1 when nothing is known of it.
    #[command(after_help = "\
Examples:
  smppd store dump 383361347590553600
  smppd store dump 80000100 --json")]
    Dump(DumpArgs),
    /// Measure what the store does on this disk, without a network in front of it
    ///
    /// One partition on one core takes messages, each with four events, as fast as they become durable. Use a directory
    /// that no server has.
    #[command(after_help = "\
Examples:
  smppd store bench --data-dir /var/tmp/bench
  smppd store bench --data-dir /var/tmp/bench --seconds 60 --durability os")]
    Bench(BenchArgs),
}

const EXPORT_HELP: &str = "\
Every object has kind, id, partition, system_id, and kept: \"rest\" with its block and slot, or \"journal\".
  message                      a message that is not over: state (SCHEDULED, QUEUED, ATTEMPTING, FORWARDED), due_at,
                               carrier, deferrals, error, notifications, accepted_at, deliver_at, expires_at, segments,
                               and the fields of its submit_sm under the specification's names
  receipt notification reply   a deliver_sm that is not confirmed: part, created_at, expires_at, and its fields
  final                        a message that is over: state, error, final_date, source_addr
message_id is what the customer knows; it differs from id in a submit_multi. Dates are UTC. Octets that are no printable
ASCII are in hexadecimal, under a name that ends in _hex; user_data is a text or user_data_hex.

Examples:
  smppd store export --what final > final.jsonl
  smppd store export --what receipts | grep '\"system_id\":\"demo\"'";

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// This partition only
    #[arg(long, value_name = "N")]
    partition: Option<u8>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// This partition only
    #[arg(long, value_name = "N")]
    partition: Option<u8>,
    /// What to write out [default: all]
    #[arg(long, value_name = "WHAT", value_parser = what())]
    what: Option<What>,
}

#[derive(Args, Debug)]
pub(super) struct DumpArgs {
    /// As the customer knows it: decimal, or eight hexadecimal digits
    #[arg(value_name = "MESSAGE_ID")]
    message_id: String,
    #[command(flatten)]
    report: ReportArgs,
}

/// What `store bench` takes.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// When a record counts as stored [default: fsync]
    #[arg(long, value_name = "LEVEL", value_parser = durability())]
    durability: Option<Durability>,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "count")]
    seconds: u64,
    /// Until so many messages are over, however long that takes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Messages under way at one time
    #[arg(long, value_name = "N", default_value_t = 8_000)]
    in_flight: u64,
    /// Octets of the record of each message
    #[arg(long, value_name = "N", default_value_t = 300)]
    octets: usize,
    /// Leave so many messages unfinished at the end
    #[arg(long, value_name = "N", default_value_t = 0)]
    leave: u64,
}

impl BenchArgs {
    fn perform(self) -> Result<ExitCode, CliError> {
        let Self { place, durability, seconds, count, in_flight, octets, leave } = self;
        let config = effective_config(&ServeArgs { place, durability, ..ServeArgs::default() })?;
        let plan = Plan { seconds, count, in_flight, octets, leave };
        store_bench::run(&config, &plan).map_err(CliError::Failed)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn what() -> impl TypedValueParser<Value = What> {
    PossibleValuesParser::new(["unfinished", "receipts", "final", "all"]).map(|text| match &*text {
        "unfinished" => What::Unfinished,
        "receipts" => What::Receipts,
        "final" => What::Final,
        _ => What::All,
    })
}

impl StoreCommand {
    /// Does it, and prints; what to exit with.
    pub(super) fn perform(self) -> Result<ExitCode, CliError> {
        let (place, request) = match self.request() {
            Ok(request) => request,
            Err(bench) => return bench.perform(),
        };
        let config = effective_config(&ServeArgs { place, ..ServeArgs::default() })?;
        let mut out = stdout().lock();
        let mut tell = |text: &str| _ = writeln!(stderr(), "{text}");
        let mut output = Output { out: &mut out, tell: &mut tell };
        match perform(&config, &request, &mut output) {
            Ok(true) => Ok(ExitCode::SUCCESS),
            Ok(false) => Ok(ExitCode::FAILURE),
            // A reader that has seen enough, such as `head`.
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(Failure::Trouble(message)) => Err(CliError::Unanswered(message)),
            Err(failure) => Err(CliError::Failed(failure.to_string())),
        }
    }

    /// The look that is asked for, and where; or what is to be measured.
    fn request(self) -> Result<(PlaceArgs, Request), BenchArgs> {
        let request =
            |ReportArgs { place, partition, json }, action| Ok((place, Request { action, partition, json }));
        match self {
            Self::Inspect(report) => request(report, Action::Inspect),
            Self::Verify(report) => request(report, Action::Verify),
            Self::Export(ExportArgs { place, partition, what }) => {
                let report = ReportArgs { place, partition, json: true };
                request(report, Action::Export(what.unwrap_or(What::All)))
            }
            Self::Dump(DumpArgs { message_id, report }) => request(report, Action::Dump(message_id)),
            Self::Bench(bench) => Err(bench),
        }
    }
}

fn perform(config: &Config, request: &Request, output: &mut Output<'_>) -> Result<bool, Failure> {
    let data_dir = &config.data_dir;
    let shown = data_dir.display();
    let numbers = recovery::partitions(data_dir, 0).map_err(|error| format!("data_dir {shown}: {error}"))?;
    let Some(lock) = lock(data_dir)? else { return control::ask(data_dir, request, output) };
    recovery::has_format(data_dir)?;
    if numbers.is_empty() {
        return Err(Failure::Store(format!("data_dir {shown}: no server has kept anything here yet")));
    }
    remove_copy_on_signals().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let mut stopped = Stopped { config, numbers: numbers.into_iter().collect() };
    let done = caught(|| Ok(store_tool::perform(request, &mut stopped, output)))
        .unwrap_or_else(|_| Err(Failure::Trouble("a panic, which was told above".to_owned())))?;
    if !lock.is_held() && is_in_use(data_dir) {
        let message = "a server was started meanwhile: what was read may not fit together; ask again";
        return Err(Failure::Store(format!("data_dir {shown}: {message}")));
    }
    Ok(done)
}

/// What keeps servers from starting.
enum Lock {
    Held(#[expect(dead_code, reason = "it is held")] File),
    /// There is none, and making one would change the directory.
    Missing,
}

impl Lock {
    const fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

/// Keeps servers from using the directory; `None` when one does. Nothing is written, so it may be a backup.
fn lock(data_dir: &Path) -> Result<Option<Lock>, String> {
    let path = data_dir.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Lock::Missing)),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(Lock::Held(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

fn is_in_use(data_dir: &Path) -> bool {
    matches!(lock(data_dir), Ok(None))
}

/// A data directory that no server uses.
struct Stopped<'a> {
    config: &'a Config,
    numbers: Vec<PartitionNumber>,
}

impl Partitions for Stopped<'_> {
    fn numbers(&self) -> Vec<PartitionNumber> {
        self.numbers.clone()
    }

    fn open(&mut self, number: PartitionNumber) -> Result<Opened, Failure> {
        let folder = self.config.data_dir.join(format!("partition-{number}"));
        let state = folder.join("state");
        let copy = Copy::of(&state)?;
        let at_rest = quietly(|| AtRest::open(&copy.0)).map_err(|error| {
            let told = state::told(&state, &error);
            // sled wrote to the copy.
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if is_full { Failure::Trouble(told) } else { Failure::Store(told) }
        })?;
        Ok(Opened { number, folder, at_rest, is_live: false, _copy: Some(Box::new(copy)) })
    }

    fn accounts(&self) -> Vec<AccountSettings> {
        AccountsFile::load(&AccountsFile::path(self.config)).unwrap_or_default()
    }

    fn parcel_retention(&self) -> Duration {
        self.config.partition.parcel_retention
    }
}

/// Opens a database. sled panics at some kinds of damage: that is news of the store, and not of us.
fn quietly(open: impl FnOnce() -> io::Result<AtRest>) -> io::Result<AtRest> {
    let panicked = Arc::new(AtomicBool::new(false));
    let of_hook = Arc::clone(&panicked);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |_| of_hook.store(true, Ordering::Relaxed)));
    let opened = open();
    panic::set_hook(hook);
    opened.map_err(|error| match panicked.load(Ordering::Relaxed) {
        true => state::panicked(),
        false => error,
    })
}

/// Room that must be left beside a copy.
const ROOM_SPARE: u64 = 16 << 20;

/// A copy of a state at rest, removed with this: sled writes to what it opens.
struct Copy(PathBuf);

/// The copy there is now, for whoever has to remove it in a hurry.
static COPY: Mutex<Option<PathBuf>> = Mutex::new(None);

impl Copy {
    fn of(state: &Path) -> Result<Self, Failure> {
        let octets = octets_of(state).map_err(|error| unread(state, &error))?;
        let temporary = std::env::temp_dir();
        let cannot = |what: &dyn fmt::Display| {
            Failure::Trouble(format!(
                "{} cannot be copied to {} to be read: {what}; set TMPDIR to another folder",
                state.display(),
                temporary.display()
            ))
        };
        let free = rustix::fs::statvfs(&temporary).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free.is_ok_and(|free| free < octets + ROOM_SPARE) {
            let mib = (octets + ROOM_SPARE).div_ceil(1 << 20);
            return Err(cannot(&format!("that needs {mib} MiB, and less is free")));
        }
        let path = temporary.join(format!("smppd-store-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| cannot(&error))?;
        if let Ok(mut copy) = COPY.lock() {
            *copy = Some(path.clone());
        }
        let copy = Self(path);
        fs::set_permissions(&copy.0, Permissions::from_mode(0o700)).map_err(|error| cannot(&error))?;
        copy_folder(state, &copy.0).map_err(|error| match unreadable_in(state) {
            // The copy is not to blame.
            Some((path, error)) => unread(&path, &error),
            None => cannot(&error),
        })?;
        Ok(copy)
    }
}

/// What is not there, or what the disk does not give, is a fault of the store; that we may not read it is none.
fn unread(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{}: {error}", path.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Failure::Trouble(message);
    }
    Failure::Store(message)
}

/// What in a folder cannot be read.
fn unreadable_in(folder: &Path) -> Option<(PathBuf, io::Error)> {
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => return Some((folder.to_owned(), error)),
    };
    entries.iter().map(fs::DirEntry::path).find_map(|path| match path.is_dir() {
        true => unreadable_in(&path),
        false => {
            let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.err().map(|error| (path, error))
        }
    })
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Ok(mut copy) = COPY.lock() {
            *copy = None;
        }
        _ = fs::remove_dir_all(&self.0);
    }
}

fn octets_of(folder: &Path) -> io::Result<u64> {
    let mut octets = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        octets += if metadata.is_dir() { octets_of(&entry.path())? } else { metadata.len() };
    }
    Ok(octets)
}

/// Copies what is in a folder; whatever it allows, the copy may be written.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Removes the copy when somebody loses patience.
fn remove_copy_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Ok(mut copy) = COPY.lock()
                && let Some(path) = copy.take()
            {
                _ = fs::remove_dir_all(path);
            }
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
