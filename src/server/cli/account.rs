//! `smppd account …`: changes to the file of accounts, and word of them to the server that runs.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::{AccountSettings, DefaultAlphabet};
use crate::config::Config;
use crate::server::accounts_file::{AccountsError, AccountsFile};
use crate::server::cli::{CliError, PlaceArgs, ServeArgs, effective_config};
use crate::server::password::{self, PasswordError};

#[derive(Subcommand, Debug)]
pub(super) enum AccountCommand {
    /// Add an account; prints its password once when none is given
    #[command(after_help = "\
Examples:
  smppd account add demo --number 12125550100
  smppd account add big --bind-limit 50 --rate 1000 --burst 5000 --any-source --default-alphabet gsm")]
    Add(ChangeArgs),
    /// List the accounts and their limits
    List(PlaceArgs),
    /// Change what is given of an account, and nothing else
    #[command(after_help = "\
Examples:
  smppd account set demo --rate 200
  smppd account set demo --password n3wpass --no-any-source")]
    Set(ChangeArgs),
    /// Remove an account: its sessions end, its messages are still delivered
    Remove(RemoveArgs),
}

#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// The name that the account binds with
    #[arg(value_name = "SYSTEM_ID")]
    system_id: String,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args, Debug)]
pub(super) struct ChangeArgs {
    /// The name that the account binds with: 1 to 15 characters
    #[arg(value_name = "SYSTEM_ID")]
    system_id: String,
    /// Password, 1 to 8 characters, which is what a bind request holds
    ///
    /// Other users of this machine may see it in the list of processes: better let `add` make one up.
    #[arg(long, value_name = "P")]
    password: Option<String>,
    /// Sessions bound at one time; 0 = no limit [default: 10]
    #[arg(long, value_name = "N")]
    bind_limit: Option<u32>,
    /// Messages a second; 0 = no limit [default: 0]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Messages that may come at once before --rate holds; 0 = one second's worth [default: 0]
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Segments the account has bought, ever; 0 = no limit [default: 0]
    ///
    /// Raise it to top the account up; what has been used is counted by the server.
    #[arg(long, value_name = "N")]
    credits: Option<u64>,
    /// A number or name of the account's own; may be repeated
    ///
    /// The first is the sender of messages without one. Replies to them go to this account. All given take the
    /// place of all before.
    #[arg(long = "number", value_name = "N")]
    numbers: Vec<String>,
    /// It has no numbers any more
    #[arg(long, conflicts_with = "numbers")]
    no_numbers: bool,
    /// It may send from numbers and names that are not its own
    #[arg(long, overrides_with = "no_any_source")]
    any_source: bool,
    /// It may send from its own numbers only [default]
    #[arg(long)]
    no_any_source: bool,
    /// It may send binary messages: data_coding 2 and 4
    #[arg(long, overrides_with = "no_binary")]
    binary: bool,
    /// It may not send binary messages [default]
    #[arg(long)]
    no_binary: bool,
    /// We cut a short_message that is too long for one segment
    #[arg(long, overrides_with = "no_segment_long")]
    segment_long: bool,
    /// A short_message that is too long for one segment is refused [default]
    #[arg(long)]
    no_segment_long: bool,
    /// What data_coding 0 means [default: ascii]
    #[arg(long, value_name = "ALPHABET", value_parser = alphabet())]
    default_alphabet: Option<DefaultAlphabet>,
    #[command(flatten)]
    place: PlaceArgs,
}

fn alphabet() -> impl TypedValueParser<Value = DefaultAlphabet> {
    PossibleValuesParser::new(["ascii", "gsm", "latin1"]).map(|text| match &*text {
        "gsm" => DefaultAlphabet::Gsm,
        "latin1" => DefaultAlphabet::Latin1,
        _ => DefaultAlphabet::Ascii,
    })
}

impl AccountCommand {
    /// Does it; the result is what to print.
    pub(super) fn perform(self) -> Result<String, CliError> {
        match self {
            Self::Add(args) => add(&args),
            Self::List(place) => list(&place),
            Self::Set(args) => change(&args),
            Self::Remove(args) => remove(&args),
        }
    }
}

fn add(args: &ChangeArgs) -> Result<String, CliError> {
    let made_up = match args.password {
        Some(_) => None,
        None => Some(password::generate().map_err(|error| CliError::Failed(error.to_string()))?),
    };
    let hash = hash(args.password.as_ref().or(made_up.as_ref()).map_or("", |password| password))?;
    let (file, effect) = edit(&args.place, |accounts| {
        if accounts.iter().any(|account| account.system_id == args.system_id) {
            return Err(CliError::Failed(format!("there is an account \"{}\" already", args.system_id)));
        }
        let mut account = AccountSettings::new(&args.system_id, &hash);
        args.put(&mut account);
        accounts.push(account);
        Ok(())
    })?;
    let password = made_up.map_or(String::new(), |password| {
        format!("password: {password}\nThe password is shown this once; only its hash is kept.\n")
    });
    Ok(format!("account {} added to {file}\n{password}{effect}\n", args.system_id))
}

fn change(args: &ChangeArgs) -> Result<String, CliError> {
    let hash = args.password.as_deref().map(hash).transpose()?;
    let (file, effect) = edit(&args.place, |accounts| {
        let account = accounts.iter_mut().find(|account| account.system_id == args.system_id);
        let account = account.ok_or_else(|| unknown(&args.system_id))?;
        args.put(account);
        if let Some(hash) = hash {
            account.password_hash = hash;
        }
        Ok(())
    })?;
    Ok(format!("account {} changed in {file}\n{effect}\n", args.system_id))
}

fn remove(args: &RemoveArgs) -> Result<String, CliError> {
    let (file, effect) = edit(&args.place, |accounts| {
        let place = accounts.iter().position(|account| account.system_id == args.system_id);
        accounts.remove(place.ok_or_else(|| unknown(&args.system_id))?);
        Ok(())
    })?;
    Ok(format!("account {} removed from {file}\n{effect}\n", args.system_id))
}

fn list(place: &PlaceArgs) -> Result<String, CliError> {
    let config = config(place)?;
    let accounts = load(&AccountsFile::path(&config))?;
    let columns = ["SYSTEM_ID", "BIND_LIMIT", "RATE", "BURST", "CREDITS", "ALPHABET", "OPTIONS", "NUMBERS"];
    let mut rows = vec![columns.map(str::to_owned)];
    rows.extend(accounts.iter().map(row));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    Ok(text)
}

fn row(account: &AccountSettings) -> [String; 8] {
    let limit = |limit: u64| if limit == 0 { "-".to_owned() } else { limit.to_string() };
    let options = [
        ("any-source", account.any_source),
        ("binary", account.binary),
        ("segment-long", account.segment_long),
    ];
    let options: Vec<&str> = options.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let words = |words: String| if words.is_empty() { "-".to_owned() } else { words };
    [
        account.system_id.clone(),
        limit(account.bind_limit.into()),
        limit(account.rate.into()),
        limit(account.burst.into()),
        limit(account.credits),
        match account.default_alphabet {
            DefaultAlphabet::Ascii => "ascii",
            DefaultAlphabet::Gsm => "gsm",
            DefaultAlphabet::Latin1 => "latin1",
        }
        .to_owned(),
        words(options.join(",")),
        words(account.numbers.join(",")),
    ]
}

impl ChangeArgs {
    /// Puts everything that was given, but the password, into an account.
    fn put(&self, account: &mut AccountSettings) {
        account.bind_limit = self.bind_limit.unwrap_or(account.bind_limit);
        account.rate = self.rate.unwrap_or(account.rate);
        account.burst = self.burst.unwrap_or(account.burst);
        account.credits = self.credits.unwrap_or(account.credits);
        account.default_alphabet = self.default_alphabet.unwrap_or(account.default_alphabet);
        if self.no_numbers || !self.numbers.is_empty() {
            account.numbers.clone_from(&self.numbers);
        }
        for (option, on, off) in [
            (&mut account.any_source, self.any_source, self.no_any_source),
            (&mut account.binary, self.binary, self.no_binary),
            (&mut account.segment_long, self.segment_long, self.no_segment_long),
        ] {
            *option = on || (*option && !off);
        }
    }
}

fn hash(password: &str) -> Result<String, CliError> {
    password::hash(password).map_err(|error| match error {
        PasswordError::Empty | PasswordError::TooLong | PasswordError::NotPrintable => {
            CliError::Usage(format!("--password: {error}"))
        }
        PasswordError::System(_) => CliError::Failed(error.to_string()),
    })
}

fn unknown(system_id: &str) -> CliError {
    CliError::Failed(format!("there is no account \"{system_id}\""))
}

fn config(place: &PlaceArgs) -> Result<Config, CliError> {
    effective_config(&ServeArgs { place: place.clone(), ..ServeArgs::default() })
}

fn load(path: &Path) -> Result<Vec<AccountSettings>, AccountsError> {
    match AccountsFile::load(path) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        loaded => loaded,
    }
}

/// Changes the accounts and tells the server; the file's name, and when the change takes effect.
fn edit(
    place: &PlaceArgs,
    change: impl FnOnce(&mut Vec<AccountSettings>) -> Result<(), CliError>,
) -> Result<(String, String), CliError> {
    let config = config(place)?;
    let path = AccountsFile::path(&config);
    let _lock = AccountsFile::lock(&path)?;
    let mut accounts = load(&path)?;
    change(&mut accounts)?;
    AccountsFile::save(&path, &accounts)?;
    Ok((path.display().to_string(), tell_server(&config.data_dir)))
}

/// Has the server that uses this directory, if any, read its accounts again; says so.
fn tell_server(data_dir: &Path) -> String {
    match running_server(data_dir).map(|pid| (pid, kill_process(pid, Signal::HUP))) {
        Some((pid, Ok(()))) => {
            format!("smppd (pid {}) was told to read its accounts again", pid.as_raw_nonzero())
        }
        Some((pid, Err(error))) => {
            let pid = pid.as_raw_nonzero();
            format!("smppd (pid {pid}) could not be told: {error}; send it SIGHUP for this to take effect")
        }
        None => "takes effect when smppd starts".to_owned(),
    }
}

/// The process that holds `DATA/LOCK`.
fn running_server(data_dir: &Path) -> Option<Pid> {
    let file = File::open(data_dir.join("LOCK")).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {}
        // Whoever wrote it is gone; the number may be somebody else's by now.
        Ok(()) | Err(_) => return None,
    }
    let pid = fs::read_to_string(data_dir.join("LOCK")).ok()?.trim().parse().ok()?;
    Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 1)
}
