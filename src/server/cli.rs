//! The command line: flags over the settings file over the defaults, and the commands that need no server.

mod account;
mod store;

use std::error::Error;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use self::account::AccountCommand;
use self::store::StoreCommand;
use crate::config::{Config, ConfigError, Durability};
use crate::server::accounts_file::{AccountsError, AccountsFile};

/// An SMPP v5.0 message centre.
///
/// Without arguments it runs a server that works at once: TLS on port 2776 with a certificate of its own
/// making, everything it keeps in ./smppd-data, and a simulated carrier.
#[derive(Parser, Debug)]
#[command(name = "smppd", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  smppd                                            a server to try things out with
  smppd --listen-plain 127.0.0.1:2775              the same, also without TLS for programs on this machine
  smppd account add demo --number 12125550100      an account; its password is printed once
  smppd check-config --config /etc/smppd.toml      whether a settings file can be used
  smppd store inspect                              what is kept, in numbers
  smppd --config /etc/smppd.toml --cores 8         a server with settings of yours, on eight cores

Flags win over the settings file, and the file over the defaults. SIGTERM drains and stops the server;
SIGHUP makes it read accounts, routes and certificates again.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server; what happens without a command, too.
    #[command(after_help = EXAMPLES)]
    Serve(ServeArgs),
    /// Check a settings file, and the accounts it leads to, without starting anything.
    ///
    /// Prints "FILE: ok" and a summary, and exits with 0; or prints what is wrong, and exits with 2.
    CheckConfig(CheckArgs),
    /// Manage the accounts that may bind. A running server is told of each change.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Look into what is kept, whether a server runs or not. Nothing is changed.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// What `serve` takes.
#[derive(Args, Clone, Default, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// CPU cores to use; 0 = all
    ///
    /// Each core has its own executor, listener and part of the message store. A data directory can be opened
    /// with any number of cores.
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Listen here for SMPP over TLS; may be repeated [default: 0.0.0.0:2776]
    ///
    /// Takes the place of all addresses in the settings file.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Listen here for SMPP without encryption; may be repeated [default: nowhere]
    ///
    /// Passwords and messages can be read on the way: use it on this machine or inside a private network.
    #[arg(long, value_name = "ADDR:PORT")]
    listen_plain: Vec<SocketAddr>,
    /// Certificate with its chain, PEM
    ///
    /// Without one, the server makes a self-signed certificate at its first start and keeps it.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// When a message counts as stored, and submit_sm is answered [default: fsync]
    ///
    /// fsync: when it would survive a power cut. os: when it would survive the end of this process. memory: at
    /// once, and a restart loses everything.
    #[arg(long, value_name = "LEVEL", value_parser = durability())]
    durability: Option<Durability>,
    /// Serve metrics and health over HTTP here [default: nowhere]
    ///
    /// Must be an address of this machine only, such as 127.0.0.1:9776, unless the settings file has
    /// admin_allow_remote = true.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,
    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the default settings, each with its explanation: a start for a file of your own
    #[arg(long)]
    print_default: bool,
}

/// Where settings and data are.
#[derive(Args, Clone, Default, Debug)]
struct PlaceArgs {
    /// Settings file, TOML
    ///
    /// It needs to name only what differs from the defaults, which `smppd check-config --print-default` explains.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep messages, accounts and certificates here [default: smppd-data]
    ///
    /// One server at a time can use a directory. It is made when it does not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

fn durability() -> impl TypedValueParser<Value = Durability> {
    PossibleValuesParser::new(["fsync", "os", "memory"]).try_map(|text| text.parse::<Durability>())
}

/// What is left to do once the command line is read.
#[derive(Debug)]
pub enum Task {
    /// Run the server with these settings, made from these flags.
    Serve(Box<Config>, Box<ServeArgs>),
    /// Print this; everything is done.
    Print(String),
    /// Exit with this; everything is done and printed.
    Exit(ExitCode),
}

impl Cli {
    /// Does what was asked for, except running a server.
    ///
    /// # Errors
    /// Settings that cannot be used, or a command that failed.
    pub fn perform(self) -> Result<Task, CliError> {
        match self.command {
            None => serve(self.serve),
            Some(Command::Serve(args)) => serve(args),
            Some(Command::CheckConfig(CheckArgs { print_default: true, .. })) => {
                Ok(Task::Print(Config::DEFAULT_TEXT.to_owned()))
            }
            Some(Command::CheckConfig(CheckArgs { place, .. })) => check_config(place).map(Task::Print),
            Some(Command::Account(command)) => command.perform().map(Task::Print),
            Some(Command::Store(command)) => command.perform().map(Task::Exit),
        }
    }
}

fn serve(args: ServeArgs) -> Result<Task, CliError> {
    Ok(Task::Serve(Box::new(effective_config(&args)?), Box::new(args)))
}

/// The settings that hold: flags over file over defaults, as the file is now.
///
/// # Errors
/// The file cannot be read, or a value makes no sense; the message names the file or the flag.
pub fn effective_config(args: &ServeArgs) -> Result<Config, CliError> {
    let mut config = match &args.place.config {
        None => Config::default(),
        Some(file) => read_config(file)?,
    };
    set(&mut config.data_dir, args.place.data_dir.clone());
    set(&mut config.cores, args.cores);
    set(&mut config.durability, args.durability);
    set(&mut config.log_level, args.log_level.clone());
    set(&mut config.listen, Some(args.listen.clone()).filter(|addresses| !addresses.is_empty()));
    set(&mut config.listen_plain, Some(args.listen_plain.clone()).filter(|addresses| !addresses.is_empty()));
    set(&mut config.admin, args.admin.map(Some));
    set(&mut config.tls_certificate, args.tls_cert.clone().map(Some));
    set(&mut config.tls_key, args.tls_key.clone().map(Some));
    // The file made sense by itself, so what does not is due to a flag.
    config
        .check()
        .map_err(|ConfigError { key, reason }| CliError::Usage(format!("{}: {reason}", flag(&key))))?;
    Ok(config)
}

fn read_config(file: &Path) -> Result<Config, CliError> {
    let fault = |reason: &dyn fmt::Display| CliError::Usage(format!("{}: {reason}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| fault(&error))?;
    Config::parse(&text).map_err(|error| fault(&error))
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// The flag that sets what `key` does.
fn flag(key: &str) -> &str {
    match key {
        "cores" => "--cores",
        "data_dir" => "--data-dir",
        "durability" => "--durability",
        "log_level" => "--log-level",
        "listen.tls" => "--listen",
        "listen.plain" => "--listen-plain",
        "listen.admin" => "--admin",
        "tls.certificate" => "--tls-cert",
        "tls.key" => "--tls-key",
        key => key,
    }
}

fn check_config(place: PlaceArgs) -> Result<String, CliError> {
    let name = place.config.as_ref().map_or("defaults".to_owned(), |file| file.display().to_string());
    let config = effective_config(&ServeArgs { place, ..ServeArgs::default() })?;
    let accounts = match AccountsFile::load(&AccountsFile::path(&config)) {
        Ok(accounts) => count(accounts.len(), "account"),
        Err(error) if error.is_missing() => "no accounts yet".to_owned(),
        Err(error) => return Err(error.into()),
    };
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "none".to_owned(),
        addresses => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
    };
    Ok(format!(
        "{name}: ok\n{}, durability {}, data in {}, TLS {}, plain {}, admin {}, {}, {}, {accounts}\n",
        if config.cores == 0 { "all cores".to_owned() } else { count(config.cores, "core") },
        config.durability,
        config.data_dir.display(),
        list(&config.listen),
        list(&config.listen_plain),
        list(config.admin.as_slice()),
        count(config.routes.len(), "route"),
        count(config.carriers.len(), "carrier"),
    ))
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Why a command line came to nothing.
#[derive(Debug)]
pub enum CliError {
    /// A flag or a file of settings or accounts that cannot be used.
    Usage(String),
    /// Something that went wrong while doing it.
    Failed(String),
    /// A question about a store that has no answer, good or bad, for want of something else: room for a copy.
    Unanswered(String),
}

impl CliError {
    /// 2 for what the operator has to put right in flags or files, 3 for a question that has no answer, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
            Self::Unanswered(_) => ExitCode::from(3),
        }
    }
}

impl From<AccountsError> for CliError {
    fn from(error: AccountsError) -> Self {
        match error.io {
            None => Self::Usage(error.to_string()),
            Some(_) => Self::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::Unanswered(message) => f.write_str(message),
        }
    }
}

impl Error for CliError {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn perform(line: &str) -> Result<Config, String> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match cli.perform().map_err(|error| error.to_string())? {
            Task::Serve(config, _) => Ok(*config),
            Task::Print(text) => Err(text),
            Task::Exit(code) => Err(format!("{code:?}")),
        }
    }

    #[test]
    fn the_commands_hang_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_explained() {
        fn visit(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            for command in command.get_subcommands() {
                assert!(command.get_about().is_some(), "{}", command.get_name());
                visit(command);
            }
        }
        visit(&Cli::command());
    }

    #[test]
    fn no_arguments_are_the_defaults() {
        assert_eq!(perform("smppd"), Ok(Config::default()));
        assert_eq!(perform("smppd serve"), Ok(Config::default()));
    }

    #[test]
    fn every_flag_has_its_place() {
        let flags = "--data-dir d --cores 3 --listen 127.0.0.1:1 --listen [::1]:2 --listen-plain 127.0.0.1:3 \
                     --tls-cert c --tls-key k --durability os --admin 127.0.0.1:4 --log-level debug";
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        let expected = Config {
            data_dir: "d".into(),
            cores: 3,
            listen: addresses(&["127.0.0.1:1", "[::1]:2"]),
            listen_plain: addresses(&["127.0.0.1:3"]),
            tls_certificate: Some("c".into()),
            tls_key: Some("k".into()),
            durability: Durability::Os,
            admin: "127.0.0.1:4".parse().ok(),
            log_level: "debug".to_owned(),
            ..Config::default()
        };
        assert_eq!(perform(&format!("smppd {flags}")).as_ref(), Ok(&expected));
        assert_eq!(perform(&format!("smppd serve {flags}")), Ok(expected));
    }

    #[test]
    fn bad_flags_are_named() {
        for (line, reason) in [
            ("smppd --cores 129", "--cores: 129 is not within 0 to 128"),
            ("smppd --cores x", "'--cores <N>'"),
            ("smppd --listen 2776", "'--listen <ADDR:PORT>'"),
            ("smppd --listen-plain 0.0.0.0:2776", "--listen-plain: 0.0.0.0:2776 is there already"),
            ("smppd --admin 0.0.0.0:80", "--admin: 0.0.0.0:80 is no loopback address"),
            ("smppd --tls-cert c", "--tls-key <FILE>"),
            ("smppd --durability disk", "possible values: fsync, os, memory"),
            ("smppd --log-level loud", "possible values: off, error"),
            ("smppd --config /nonexistent/smppd.toml", "/nonexistent/smppd.toml: No such file"),
            ("smppd --cores 1 account list", "cannot be used"),
            ("smppd dance", "unrecognized subcommand"),
        ] {
            let error = perform(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
