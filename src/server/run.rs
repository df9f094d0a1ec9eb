//! Starting and stopping: everything that happens before the cores run, beside them, and after.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use glommio::{LocalExecutorBuilder, Placement};
use rustls::ServerConfig;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

use crate::account::{AccountSettings, Accounts};
use crate::carrier::{Carrier, Simulator};
use crate::config::{CarrierSettings, Config, Durability};
use crate::message::PartitionNumber;
use crate::route::Routes;
use crate::server::accounts_file::AccountsFile;
use crate::server::balance::Balance;
use crate::server::clock::Clock;
use crate::server::connection::ConnectionSettings;
use crate::server::control::{Control, Stores};
use crate::server::core::Pulse;
use crate::server::descriptors::Needs;
use crate::server::executor::{self, Listen, Parts};
use crate::server::mesh::{Inbound, MailSender, mailbox};
use crate::server::password::{self, Verifier};
use crate::server::recovery::{self, Found, Opened};
use crate::server::state::{self, Order, StateThread};
use crate::server::{admin, certificate, descriptors, disk, durable_file, fault, watch};
use crate::shard::{Partition, PartitionMap, Shard, ShardNumber, ShardSettings};

/// What glommio asks for its own buffers; batches of the journal are taken from it.
pub(super) const IO_MEMORY: usize = 8 << 20;
/// A task that does not yield is interrupted after this; shorter makes glommio's lost wake-ups likely.
pub(super) const PREEMPT: Duration = Duration::from_millis(20);
/// Things of one kind that a core deals with in one turn: a millisecond's work, about.
const PORTION: usize = 1_024;
/// Threads that verify passwords.
const VERIFIERS: usize = 1;
/// Binds that may wait for them, of customers and of strangers; more are refused, and may try again.
const BINDS_MAX: usize = 1_024;
/// How long a port may stay in use before that is an error.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long the thread of a partition may take to finish what it was ordered, and how often it is looked at.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PAUSE: Duration = Duration::from_millis(5);
/// How often a start says that a partition is still being opened.
const OPENING_INTERVAL: Duration = Duration::from_secs(10);
/// How long another process may keep the data directory before that is an error, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Free disk space, in journal segments of each partition, below which no message is accepted.
const LOW_WATER_SEGMENTS: u64 = 2;

/// Why the server did not start, and what it exits with.
struct Failure(String);

impl<T: Into<String>> From<T> for Failure {
    fn from(message: T) -> Self {
        Self(message.into())
    }
}

/// Runs the server until it is told to stop. 0 after a clean stop, 1 when it could not start or failed.
/// `read_again` gives the configuration as it is by then, at each SIGHUP.
pub fn serve(config: &Config, read_again: impl Fn() -> Result<Config, String>) -> ExitCode {
    let outcome = run(config, &read_again);
    watch::flush_log();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("smppd: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, read_again: &dyn Fn() -> Result<Config, String>) -> Result<(), Failure> {
    watch::start_log(&config.log_level).map_err(|error| format!("no thread for the log: {error}"))?;
    fault::announce()?;
    // Until the cores start, and once they stop, nobody listens to signals: then they end the process at once.
    // Whatever was answered is durable.
    let is_deaf = Arc::new(AtomicBool::new(true));
    let cannot = |error: std::io::Error| format!("signals cannot be caught: {error}");
    for signal in [SIGTERM, SIGINT] {
        register_conditional_shutdown(signal, 1, Arc::clone(&is_deaf)).map_err(cannot)?;
    }
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(cannot)?;
    probe_io_uring()?;
    let cores = core_count(config)?;
    let _lock = lock(&config.data_dir)?;
    let is_demo = ensure_demo_account(config)?;
    if certificate::ensure(config)? {
        let (path, _) = certificate::paths(config);
        log::info!("made a self-signed certificate: {}", path.display());
    }
    let tls = Arc::new(RwLock::new(certificate::load(config)?));
    let (listen, reserved) = reserve(config)?;
    if config.durability == Durability::Memory {
        log::warn!("--durability memory: messages are NOT written to disk; a stop loses all of them");
    }

    let clock = Clock::new();
    let settings = load_accounts(config)?;
    let partitions = recovery::partitions(&config.data_dir, cores)
        .map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    let connections_max = descriptors::reserve(Needs {
        connections_max: config.connections_max,
        cores,
        partitions: partitions.len(),
        segments_max: config.partition.segments_max,
    })?;
    let found = open_all(config, &partitions, clock)?;
    let names: BTreeSet<&[u8]> =
        found.iter().flat_map(|found| &found.system_ids).map(|name| &**name).collect();
    let accounts = Arc::new(Accounts::default().reload(settings).with_unknown(names));
    let opened = recover_all(config, found, &accounts)?;
    let names: Vec<&str> = config.carriers.iter().map(|(name, _)| &**name).collect();
    recovery::keep_carriers(&config.data_dir, &names, &opened)?;
    for Opened { partition, .. } in &opened {
        for (system_id, used) in partition.credits_used() {
            if let Some(index) = accounts.index_of(system_id) {
                accounts.get(index).restore_credits(used);
            }
        }
    }

    let at_rest = opened.iter().map(|opened| (opened.partition.number(), opened.state.reader())).collect();
    let stores = Stores {
        data_dir: config.data_dir.clone(),
        partitions: at_rest,
        accounts_file: AccountsFile::path(config),
        parcel_retention: config.partition.parcel_retention,
    };
    // Before any core is pinned: a thread goes where its maker is.
    let _control = Control::start(stores)
        .map_err(|error| log::warn!("no command can ask this server: no control socket: {error}"));
    // Whoever is served, or reads that the server listens, may send a signal at once: it waits until all is ready.
    is_deaf.store(false, Ordering::Relaxed);
    let server = Server::start(config, (cores, connections_max), clock, &accounts, opened, &listen, &tls)?;
    drop(reserved);
    for Listen { address, is_tls } in &listen {
        println!("listening on {address} ({})", if *is_tls { "TLS" } else { "plain TCP" });
    }
    if let Some(address) = config.admin {
        let bound = admin::start(address, server.pulses.clone(), Arc::clone(&server.balance))
            .map_err(|error| format!("listen.admin = {address}: {error}"))?;
        println!("metrics and health on http://{bound}");
    }
    if let Some(password) = is_demo {
        greet(config, &listen, &password);
    }
    println!("ready: {cores} cores, data in {}", config.data_dir.display());
    // The greeting is for whoever started us; a closed pipe is no reason to stop.
    _ = std::io::stdout().flush();

    server.wait(signals, &is_deaf, read_again, accounts, &tls)
}

/// What a thread ended with; `None` when it does not end.
fn end_of<T>(thread: JoinHandle<T>) -> Option<std::thread::Result<T>> {
    let until = Instant::now() + STOP_PATIENCE;
    while !thread.is_finished() {
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(STOP_PAUSE);
    }
    Some(thread.join())
}

/// What the main thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    /// A signal has come.
    Signal(i32),
    /// The thread of a core has ended, and nobody had told it to.
    CoreLost(usize),
}

/// Lives in the thread of a core: when that thread ends before its core has, by a panic in whatever task, the
/// main thread is told. The other cores would go on, with one listener in so many deaf.
struct CoreGuard {
    core: usize,
    pulse: Arc<Pulse>,
    news: Sender<News>,
}

impl Drop for CoreGuard {
    fn drop(&mut self) {
        if !self.pulse.has_ended.load(Ordering::Relaxed) {
            // A main thread that listens no more is stopping already.
            _ = self.news.send(News::CoreLost(self.core));
        }
    }
}

/// The running server, as the main thread sees it.
struct Server {
    mail: Vec<MailSender>,
    pulses: Vec<Arc<Pulse>>,
    executors: Vec<JoinHandle<()>>,
    states: Vec<(PartitionNumber, Sender<Order>, StateThread)>,
    balance: Arc<Balance>,
    /// Those of the start: routes name them by place.
    carriers: Vec<(String, CarrierSettings)>,
    news: (Sender<News>, Receiver<News>),
}

impl Server {
    fn start(
        config: &Config,
        (cores, connections_max): (usize, usize),
        clock: Clock,
        accounts: &Arc<Accounts>,
        opened: Vec<Opened>,
        listen: &[Listen],
        tls: &Arc<RwLock<Arc<ServerConfig>>>,
    ) -> Result<Self, Failure> {
        let shard_of = |partition: PartitionNumber| ShardNumber((usize::from(partition.0) % cores) as u8);
        let map = PartitionMap::new(opened.iter().map(|opened| {
            let number = opened.partition.number();
            (number, shard_of(number))
        }));
        let verifier = Verifier::start(VERIFIERS, BINDS_MAX)
            .map_err(|error| format!("no thread to verify passwords: {error}"))?;
        // From every core (its own slot is for the verifier), from the partitions' threads, and from us.
        let (senders, mailboxes): (Vec<Vec<MailSender>>, Vec<_>) =
            (0..cores).map(|_| mailbox(cores, 2)).unzip();
        let balance = Arc::new(Balance::new(cores, connections_max));
        let pulses: Vec<Arc<Pulse>> = (0..cores).map(|_| Arc::new(Pulse::default())).collect();
        let low_water = LOW_WATER_SEGMENTS * config.journal_segment_octets * opened.len() as u64;
        watch::watch(pulses.clone(), config.data_dir.clone(), low_water)
            .map_err(|error| format!("no thread for the watchdog: {error}"))?;

        let mut by_core: Vec<Vec<Opened>> = (0..cores).map(|_| Vec::new()).collect();
        for opened in opened {
            by_core[usize::from(shard_of(opened.partition.number()).0)].push(opened);
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut server = Self {
            mail: senders.iter().map(|senders| senders[cores + 1].clone()).collect(),
            pulses,
            executors: Vec::new(),
            states: Vec::new(),
            balance: Arc::clone(&balance),
            carriers: config.carriers.clone(),
            news: unbounded(),
        };
        let (ready, readiness) = bounded(cores);
        for (number, (partitions, mailbox)) in by_core.into_iter().zip(mailboxes).enumerate() {
            let mut parts = (Vec::new(), Vec::new(), Vec::new());
            for Opened { partition, journal, state } in partitions {
                let mail = senders[number][cores].clone();
                let (orders, thread) =
                    state::start(partition.number(), state, mail, clock, config.final_retention).map_err(
                        |error| format!("no thread for partition {}: {error}", partition.number()),
                    )?;
                server.states.push((partition.number(), orders.clone(), thread));
                parts.0.push(partition);
                parts.1.push(journal);
                parts.2.push(orders);
            }
            let (partitions, journals, states) = parts;
            let settings = ShardSettings {
                number: ShardNumber(number as u8),
                shards: cores as u8,
                system_id: config.system_id.as_bytes().into(),
                session: config.session.clone(),
                validity: config.validity,
                retry: config.retry,
                deliver_retry: config.deliver_retry,
                portion: PORTION,
                is_durable: config.durability != Durability::Memory,
            };
            let (accounts, routes) = (Arc::clone(accounts), routes(config));
            let carriers = config.carriers.clone();
            let map = map.clone();
            let rest = (
                tls.clone(),
                senders.iter().map(|senders| senders[number].clone()).collect::<Vec<_>>(),
                senders[number][number].clone(),
                verifier.clone(),
                Arc::clone(&server.pulses[number]),
                Arc::clone(&balance),
                listen.to_vec(),
                ready.clone(),
            );
            let limits = (connection_settings(config), connections_max, config.handshakes_max);
            let placement =
                if cores <= cpus && cores > 1 { Placement::Fixed(number) } else { Placement::Unbound };
            let guard = CoreGuard {
                core: number,
                pulse: Arc::clone(&server.pulses[number]),
                news: server.news.0.clone(),
            };
            let executor = std::thread::Builder::new().name(format!("core-{number}")).spawn(move || {
                let _guard = guard;
                let (tls, mesh, own_mail, verifier, pulse, balance, listen, ready) = rest;
                let (connection, connections_max, handshakes_max) = limits;
                let executor = LocalExecutorBuilder::new(placement)
                    .name(&format!("core-{number}"))
                    .io_memory(IO_MEMORY)
                    .preempt_timer(PREEMPT)
                    .make();
                let executor = match executor {
                    Ok(executor) => executor,
                    Err(error) => {
                        _ = ready.send(Err(format!("core {number}: no executor: {error}")));
                        return;
                    }
                };
                // Nothing of a shard may cross threads, so it is made where it stays.
                let accounts = Rc::new(Accounts::clone(&accounts));
                let shard = move || {
                    let partitions = partitions.into_iter();
                    let partitions = partitions.map(|partition| Partition::open(partition, disk::buffers()));
                    Shard::new(settings, accounts, routes, carriers_of(&carriers), partitions.collect(), map)
                };
                executor.run(executor::run(Parts {
                    shard: Box::new(shard),
                    clock,
                    tls,
                    mesh,
                    own_mail,
                    mailbox,
                    states,
                    journals,
                    verifier,
                    pulse,
                    listen,
                    connection,
                    connections_max,
                    handshakes_max,
                    core_number: number as u8,
                    balance,
                    ready,
                }));
            });
            server.executors.push(executor.map_err(|error| format!("no thread for core {number}: {error}"))?);
        }
        drop(ready);
        for _ in 0..cores {
            match readiness.recv() {
                Ok(Ok(())) => {}
                Ok(Err(message)) => return Err(message.into()),
                Err(_) => return Err("a core ended while it started; the log says why".into()),
            }
        }
        Ok(server)
    }

    /// Serves signals until one says to stop, then stops. A core that is lost ends the process: what is durable
    /// is recovered at the next start.
    fn wait(
        self,
        mut signals: Signals,
        is_deaf: &AtomicBool,
        read_again: &dyn Fn() -> Result<Config, String>,
        mut accounts: Arc<Accounts>,
        tls: &RwLock<Arc<ServerConfig>>,
    ) -> Result<(), Failure> {
        let (sender, news) = self.news.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().try_for_each(|signal| sender.send(News::Signal(signal))))
            .map_err(|error| format!("no thread for signals: {error}"))?;
        for news in news {
            match news {
                News::Signal(SIGHUP) => {}
                News::Signal(_) => break,
                News::CoreLost(core) => {
                    log::error!("core {core} has ended by a fault of ours; the server ends with it");
                    return Err("a core failed; the log says why".into());
                }
            }
            match read_again().and_then(|config| self.reload(&config, &accounts, tls)) {
                Ok(next) => {
                    accounts = next;
                    log::info!("accounts, routes and certificates are reloaded");
                }
                Err(message) => log::error!("nothing was reloaded: {message}"),
            }
        }
        // A second signal does not wait.
        is_deaf.store(true, Ordering::Relaxed);
        log::info!("stopping: sessions are unbound, what is in flight is finished");
        self.mail.iter().for_each(|mail| mail.send(Inbound::Drain));
        let mut panicked = false;
        for executor in self.executors {
            panicked |= executor.join().is_err();
        }
        let mut unsynced = Vec::new();
        for (partition, orders, thread) in self.states {
            _ = orders.send(Order::Stop);
            match end_of(thread) {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => unsynced.push(format!("partition {partition}: {error}")),
                Some(Err(_)) => panicked = true,
                None => unsynced.push(format!("partition {partition}: the state at rest does not answer")),
            }
        }
        if panicked {
            return Err("a core failed; the log says why".into());
        }
        if !unsynced.is_empty() {
            let reasons = unsynced.join("; ");
            return Err(format!("{reasons}; nothing is lost: the next start reads the journal again").into());
        }
        log::info!("stopped");
        Ok(())
    }

    /// All or nothing: a mistake in one file leaves everything as it was.
    fn reload(
        &self,
        config: &Config,
        accounts: &Accounts,
        tls: &RwLock<Arc<ServerConfig>>,
    ) -> Result<Arc<Accounts>, String> {
        if config.carriers != self.carriers {
            return Err("the carriers are not those of the start; a restart is needed for them".into());
        }
        let settings = load_accounts(config)?;
        let certificate = certificate::load(config)?;
        let accounts = Arc::new(accounts.reload(settings));
        if let Ok(mut tls) = tls.write() {
            *tls = certificate;
        }
        for mail in &self.mail {
            mail.send(Inbound::Reload(Arc::clone(&accounts), routes(config)));
        }
        Ok(accounts)
    }
}

fn routes(config: &Config) -> Routes {
    Routes::new(config.routes.iter().cloned())
}

fn carriers_of(carriers: &[(String, CarrierSettings)]) -> Vec<Box<dyn Carrier>> {
    carriers
        .iter()
        .map(|(_, settings)| match settings {
            CarrierSettings::Simulator(settings) => {
                Box::new(Simulator::new(settings.clone())) as Box<dyn Carrier>
            }
        })
        .collect()
}

fn connection_settings(config: &Config) -> ConnectionSettings {
    ConnectionSettings {
        handshake_timeout: config.tls_handshake_timeout,
        write_timeout: config.write_timeout,
        output_octets_max: config.output_octets_max,
    }
}

/// One small ring, to hear the kernel's answer before an executor panics on it.
fn probe_io_uring() -> Result<(), Failure> {
    match io_uring::IoUring::new(2) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "io_uring is not available: {error}\n\
             smppd needs Linux 5.8 or newer with io_uring allowed. In a container, allow the io_uring_* system\n\
             calls (the default seccomp profile of many denies them); else look at kernel.io_uring_disabled."
        )
        .into()),
    }
}

fn core_count(config: &Config) -> Result<usize, Failure> {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = if config.cores == 0 { available } else { config.cores };
    if cores > 128 {
        return Err(format!("cores = {cores}: at most 128").into());
    }
    Ok(cores)
}

/// Takes the data directory for this process.
fn lock(data_dir: &Path) -> Result<File, Failure> {
    let shown = data_dir.display();
    durable_file::make_folder(data_dir).map_err(|error| format!("data_dir {shown}: {error}"))?;
    let path = data_dir.join("LOCK");
    let mut file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(
            |error| {
                let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                let hint = if is_denied { " (is the data directory another user's?)" } else { "" };
                format!("{}: {error}{hint}", path.display())
            },
        )?;
    // A process that was killed with much in memory takes a while to let go.
    let until = Instant::now() + LOCK_PATIENCE;
    while file.try_lock().is_err() {
        if Instant::now() < until {
            std::thread::sleep(LOCK_PAUSE);
            continue;
        }
        let mut pid = String::new();
        _ = file.read_to_string(&mut pid);
        let pid = pid.trim();
        if pid.is_empty() {
            return Err(format!("data_dir {shown} is in use by another process").into());
        }
        if !Path::new("/proc").join(pid).exists() {
            // Whoever wrote it has ended: it is a command that only reads.
            return Err(format!("data_dir {shown} is being read by \"smppd store\": wait for its end").into());
        }
        return Err(format!("data_dir {shown} is in use by smppd process {pid}").into());
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| file.sync_all());
    written.map_err(|error| format!("{}: {error}", path.display()))?;

    if !recovery::has_format(data_dir)? {
        let path = data_dir.join(recovery::FORMAT_FILE);
        durable_file::replace(&path, recovery::FORMAT, 0o644)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(file)
}

/// Finds out now whether the addresses are free, and which ports "any port" means: each core listens for
/// itself on a shared port, which would not complain about a stranger that shares it too.
fn reserve(config: &Config) -> Result<(Vec<Listen>, Vec<socket2::Socket>), Failure> {
    let mut listen = Vec::new();
    let mut reserved = Vec::new();
    let wanted = config.listen.iter().map(|address| (*address, true));
    for (address, is_tls) in wanted.chain(config.listen_plain.iter().map(|address| (*address, false))) {
        let bound = reserve_one(address).map_err(|error| format!("listen {address}: {error}"))?;
        let port =
            bound.local_addr().ok().and_then(|local| local.as_socket()).map_or(0, |local| local.port());
        listen.push(Listen { address: SocketAddr::new(address.ip(), port), is_tls });
        reserved.push(bound);
    }
    Ok((listen, reserved))
}

/// Tries for a while: the kernel keeps what an io_uring held for some milliseconds after its process has ended,
/// listening sockets too.
fn reserve_one(address: SocketAddr) -> std::io::Result<socket2::Socket> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match try_reserve(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn try_reserve(address: SocketAddr) -> std::io::Result<socket2::Socket> {
    // First: an address that is not ours is not to be asked.
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    // A stranger that shares the port as well (another smppd of this user) is not in the way of that;
    // it would take half of the connections. One that answers is there.
    let local = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let host: IpAddr = if address.ip().is_unspecified() { local } else { address.ip() };
    let probe = SocketAddr::new(host, address.port());
    if address.port() != 0 {
        match TcpStream::connect_timeout(&probe, Duration::from_secs(1)) {
            Ok(_) => return Err(std::io::ErrorKind::AddrInUse.into()),
            // Whoever is there has too much to do for another connection.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(std::io::ErrorKind::AddrInUse.into());
            }
            Err(_) => {}
        }
    }
    Ok(socket)
}

fn load_accounts(config: &Config) -> Result<Vec<AccountSettings>, String> {
    AccountsFile::load(&AccountsFile::path(config)).map_err(|error| error.to_string())
}

/// A data directory without accounts gets one to try things with; its password, if it was made now.
fn ensure_demo_account(config: &Config) -> Result<Option<String>, Failure> {
    let path = AccountsFile::path(config);
    if path.exists() || config.accounts_file.is_some() {
        return Ok(None);
    }
    let password = password::generate().map_err(|error| format!("no password could be made: {error}"))?;
    let hash = password::hash(&password).map_err(|error| error.to_string())?;
    let account = AccountSettings {
        numbers: vec!["12125550100".to_owned()],
        any_source: true,
        ..AccountSettings::new("demo", &hash)
    };
    AccountsFile::save(&path, &[account]).map_err(|error| error.to_string())?;
    Ok(Some(password))
}

/// What a newcomer needs to send a first message.
fn greet(config: &Config, listen: &[Listen], password: &str) {
    let port = listen.iter().find(|listen| listen.is_tls).map_or(2776, |listen| listen.address.port());
    let (certificate, _) = certificate::paths(config);
    let certificate = certificate.display();
    println!(
        "\nA demo account was made. Its password is printed only now:\n\n    \
         system_id  demo\n    password   {password}\n    number     12125550100\n\n\
         Try it from the source folder, in another terminal (needs python3):\n\n    \
         python3 -m venv target/tour && target/tour/bin/pip install -q smpplib\n    \
         target/tour/bin/python scripts/tour.py --port {port} --ca {certificate} --password {password}\n\n\
         or use any SMPP client with TLS on port {port} that trusts {certificate}.\n\
         More accounts: smppd account add NAME --number NUMBER --data-dir {}\n",
        config.data_dir.display()
    );
}

fn open_all(
    config: &Config,
    partitions: &BTreeSet<PartitionNumber>,
    clock: Clock,
) -> Result<Vec<Found>, Failure> {
    let partitions = partitions.iter().map(|number| (*number, *number));
    side_by_side(config, partitions, |number| Found::open(config, number, clock.now()))
}

fn recover_all(config: &Config, found: Vec<Found>, accounts: &Accounts) -> Result<Vec<Opened>, Failure> {
    let found = found.into_iter().map(|found| (found.number, found));
    side_by_side(config, found, |found| found.recover(config, accounts))
}

/// Does something for every partition, each in a thread of its own.
fn side_by_side<P: Send, R: Send>(
    config: &Config,
    partitions: impl IntoIterator<Item = (PartitionNumber, P)>,
    work: impl Fn(P) -> Result<R, String> + Sync,
) -> Result<Vec<R>, Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let partitions = partitions.into_iter();
        // Each holds a sender to its end, however it ends.
        let (sender, ends) = bounded::<()>(0);
        let spawn = |(number, partition)| {
            let until_the_end = sender.clone();
            let thread = scope.spawn(move || {
                let _until_the_end = until_the_end;
                work(partition)
            });
            (number, thread)
        };
        let threads: Vec<_> = partitions.map(spawn).collect();
        drop(sender);
        while ends.recv_timeout(OPENING_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            for (number, _) in threads.iter().filter(|(_, thread)| !thread.is_finished()) {
                log::warn!("partition {number} is still being opened");
            }
        }
        let threads = threads.into_iter().map(|(number, thread)| match thread.join() {
            Ok(done) => done.map_err(Failure),
            // Some damage sled answers with a panic; whoever restores a folder has to know which.
            Err(_) => {
                let state = config.data_dir.join(format!("partition-{number}/state"));
                Err(Failure(state::damaged(
                    &state,
                    &"reading it ended in a panic, of which the log says more",
                )))
            }
        });
        threads.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the main thread hears of a core whose thread does this.
    fn news_of(thread: impl FnOnce(&Pulse) + Send + 'static) -> Option<News> {
        let pulse = Arc::new(Pulse::default());
        let (sender, news) = unbounded();
        let guard = CoreGuard { core: 7, pulse: Arc::clone(&pulse), news: sender };
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            thread(&pulse);
        });
        _ = thread.join();
        news.try_recv().ok()
    }

    #[test]
    fn a_core_that_ends_before_its_time_is_missed() {
        let lost = Some(News::CoreLost(7));
        assert_eq!(news_of(|_| {}), lost);
        let with_a_task_that_panics = |_: &Pulse| {
            let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).make();
            executor.expect("an executor").run(async {
                glommio::spawn_local(async { panic!("this panic is a part of the test") }).detach();
                std::future::pending::<()>().await;
            });
        };
        assert_eq!(news_of(with_a_task_that_panics), lost);
        assert_eq!(news_of(|pulse| pulse.has_ended.store(true, Ordering::Relaxed)), None);
    }
}
