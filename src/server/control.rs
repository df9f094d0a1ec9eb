//! The socket in the data directory by which a command asks the server that runs: one request at a time, answered by a
//! thread that nobody waits for.
//!
//! A request is one line of JSON. An answer is a row of frames: a letter (`o` for the answer itself, `e` for what people
//! want to know meanwhile, `x` for the end, `t` for an end without an answer and why), a length of four octets, and so
//! many octets.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::account::AccountSettings;
use crate::message::PartitionNumber;
use crate::server::accounts_file::AccountsFile;
use crate::server::state::{AtRest, caught};
use crate::server::store_tool::{self, Failure, Opened, Output, Partitions, Request};

/// The name of the socket.
const NAME: &str = "control.sock";
/// A request is no longer than this.
const REQUEST_OCTETS_MAX: u64 = 4_096;
/// How long a client may take to say what it wants, and to take some of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the thread looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stop waits for the thread.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Requests that wait for their turn.
const BACKLOG: i32 = 4;
/// Octets of an answer that go out together.
const FRAME_OCTETS: usize = 64 << 10;
/// A path to a socket has room for so many octets.
const PATH_OCTETS_MAX: usize = 100;
/// How the thread stands behind the cores for time.
const NICENESS: i32 = 10;
/// The version of all this.
const VERSION: u8 = 1;

/// What is said to a server.
#[derive(Serialize, Deserialize)]
struct Question {
    version: u8,
    request: Request,
}

/// The thread that answers.
pub(super) struct Control {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

#[derive(Default)]
struct Shared {
    stops: AtomicBool,
    /// Whoever is being answered.
    client: Mutex<Option<UnixStream>>,
}

/// What the thread reads from.
pub(super) struct Stores {
    /// Where the partitions are.
    pub(super) data_dir: PathBuf,
    /// Their states at rest.
    pub(super) partitions: Vec<(PartitionNumber, AtRest)>,
    /// The file of accounts.
    pub(super) accounts_file: PathBuf,
    /// How long receipts and replies are kept.
    pub(super) parcel_retention: Duration,
}

impl Control {
    /// Makes the socket and answers on it until dropped.
    ///
    /// # Errors
    /// There can be no socket or no thread.
    pub(super) fn start(stores: Stores) -> io::Result<Self> {
        let path = stores.data_dir.join(NAME);
        // Whoever left one has ended: the directory is ours.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        with_short_path(&stores.data_dir, |short| socket.bind(&socket2::SockAddr::unix(short)?))?;
        // Nobody can connect before it listens, and by then only its owner may.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || answer_all(&listener, stores, &of_thread))?;
        Ok(Self { shared, thread: Some(thread), path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        let client = self.shared.client.lock().map(|mut client| client.take());
        if let Ok(Some(client)) = client {
            _ = client.shutdown(Shutdown::Both);
        }
        _ = fs::remove_file(&self.path);
        // Nobody is there any more for an answer that takes long; the process ends without it.
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

fn answer_all(listener: &UnixListener, mut stores: Stores, shared: &Shared) {
    // Of this thread alone: Linux counts niceness by thread.
    _ = rustix::process::setpriority_process(None, NICENESS);
    while !shared.stops.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(LOOK_INTERVAL);
            continue;
        };
        if let (Ok(mut known), Ok(other)) = (shared.client.lock(), client.try_clone()) {
            *known = Some(other);
        }
        // A client that went away is no news, nor is what it wanted.
        _ = answer(&client, &mut stores, shared);
        if let Ok(mut known) = shared.client.lock() {
            *known = None;
        }
    }
}

fn answer(client: &UnixStream, stores: &mut Stores, shared: &Shared) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let question = read_question(client)?;
    let code = match serde_json::from_slice::<Question>(&question) {
        Ok(Question { version: VERSION, request }) => {
            let mut out = Frames { client, kind: b'o', stops: &shared.stops };
            let mut tell = |text: &str| _ = frame(client, b'e', text.as_bytes());
            let mut output = Output { out: &mut out, tell: &mut tell };
            let done = caught(|| Ok(store_tool::perform(&request, stores, &mut output)))
                .unwrap_or_else(|error| Err(Failure::Store(error.to_string())));
            match done {
                Ok(is_well) => u8::from(!is_well),
                Err(Failure::Output(error)) => return Err(error),
                Err(Failure::Trouble(message)) => return frame(client, b't', message.as_bytes()),
                Err(Failure::Store(message)) => {
                    frame(client, b'e', format!("smppd: {message}").as_bytes())?;
                    1
                }
            }
        }
        Ok(_) | Err(_) => {
            frame(client, b'e', b"smppd: the server is of another version than this command")?;
            1
        }
    };
    frame(client, b'x', &[code])
}

/// Reads a line that must come soon and be short.
fn read_question(client: &UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut question = Vec::new();
    let mut octets = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        client.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut client = client;
        let count = client.read(&mut octets)?;
        question.extend_from_slice(&octets[..count]);
        if question.ends_with(b"\n") {
            return Ok(question);
        }
        if count == 0 || left.is_zero() || question.len() as u64 > REQUEST_OCTETS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// An answer on its way, in frames.
struct Frames<'a> {
    client: &'a UnixStream,
    kind: u8,
    stops: &'a AtomicBool,
}

impl Write for Frames<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.stops.load(Ordering::Relaxed) {
            return Err(io::Error::other("the server stops"));
        }
        let octets = &octets[..octets.len().min(FRAME_OCTETS)];
        frame(self.client, self.kind, octets)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frame(mut client: &UnixStream, kind: u8, octets: &[u8]) -> io::Result<()> {
    let [a, b, c, d] = (octets.len() as u32).to_le_bytes();
    client.write_all(&[kind, a, b, c, d])?;
    client.write_all(octets)
}

impl Partitions for Stores {
    fn numbers(&self) -> Vec<PartitionNumber> {
        self.partitions.iter().map(|(number, _)| *number).collect()
    }

    fn open(&mut self, number: PartitionNumber) -> Result<Opened, Failure> {
        let at_rest = self.partitions.iter().find(|(known, _)| *known == number).map(|(_, at_rest)| at_rest);
        let at_rest = at_rest.ok_or_else(|| format!("there is no partition {number}"))?.clone();
        let folder = self.data_dir.join(format!("partition-{number}"));
        Ok(Opened { number, folder, at_rest, is_live: true, _copy: None })
    }

    fn accounts(&self) -> Vec<AccountSettings> {
        AccountsFile::load(&self.accounts_file).unwrap_or_default()
    }

    fn parcel_retention(&self) -> Duration {
        self.parcel_retention
    }
}

/// Asks the server that uses `data_dir`; whether all is well.
///
/// # Errors
/// It cannot be asked, or its answer ends too early.
pub(super) fn ask(data_dir: &Path, request: &Request, output: &mut Output<'_>) -> Result<bool, Failure> {
    let shown = data_dir.join(NAME).display().to_string();
    let mut server = with_short_path(data_dir, |short| UnixStream::connect(short)).map_err(|error| {
        let used = format!("{}: a server uses this directory, but cannot be asked", data_dir.display());
        format!("{used}; it may still be starting: {shown}: {error}")
    })?;
    let question = Question { version: VERSION, request: request.clone() };
    let mut line = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let failed = |error: io::Error| {
        let has_ended = error.kind() == io::ErrorKind::UnexpectedEof;
        let ended = || "the server ended before its answer did".to_owned();
        Failure::Store(if has_ended { ended() } else { format!("{shown}: {error}") })
    };
    server.write_all(&line).map_err(failed)?;
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head).map_err(failed)?;
        let [kind, a, b, c, d] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > FRAME_OCTETS {
            return Err(Failure::Store(format!("{shown}: whoever answers is no smppd")));
        }
        let mut octets = vec![0; length];
        server.read_exact(&mut octets).map_err(failed)?;
        match kind {
            b'o' => output.out.write_all(&octets)?,
            b'e' => (output.tell)(&String::from_utf8_lossy(&octets)),
            b't' => return Err(Failure::Trouble(String::from_utf8_lossy(&octets).into_owned())),
            _ => {
                output.out.flush()?;
                return Ok(octets == [0]);
            }
        }
    }
}

/// Does something with the path of the socket, however long that of the directory is: a socket's path has little room.
fn with_short_path<T>(data_dir: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = data_dir.join(NAME);
    if path.as_os_str().len() < PATH_OCTETS_MAX {
        return act(&path);
    }
    let folder = File::open(data_dir)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(NAME))
}
