//! The file of accounts: read whole, checked whole, replaced whole.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::account::{AccountSettings, without_plus};
use crate::config::{Config, ConfigError};
use crate::server::{durable_file, password};

/// Where the accounts are kept, and how they are read and written.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccountsFile;

const HEADER: &str = "\
# The accounts of smppd, written by `smppd account`; comments and order of keys do not survive it.
# Edit by hand if you like, then send SIGHUP to smppd. In limits, 0 = none.
";

#[derive(Serialize)]
struct Written<'a> {
    account: &'a [AccountSettings],
}

impl AccountsFile {
    /// The file that the settings name.
    pub(super) fn path(config: &Config) -> PathBuf {
        config.accounts_file.clone().unwrap_or_else(|| config.data_dir.join("accounts.toml"))
    }

    /// Reads and checks all accounts.
    ///
    /// # Errors
    /// The file cannot be read ([`AccountsError::is_missing`] when there is none), or the first thing in it
    /// that makes no sense.
    pub(super) fn load(path: &Path) -> Result<Vec<AccountSettings>, AccountsError> {
        let text = fs::read_to_string(path).map_err(|error| AccountsError::io(path, &error))?;
        parse(&text).map_err(|fault| fault.in_file(path))
    }

    /// Puts these accounts in the place of all others; a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// Accounts that [`load`](Self::load) would refuse, or the file cannot be written; nothing changes then.
    pub(super) fn save(path: &Path, accounts: &[AccountSettings]) -> Result<(), AccountsError> {
        check(accounts).map_err(|fault| fault.in_file(path))?;
        let body = toml::to_string(&Written { account: accounts })
            .map_err(|error| AccountsError::new(path, "", "", error.to_string()))?;
        durable_file::replace(path, &format!("{HEADER}\n{body}"), 0o600)
            .map_err(|error| AccountsError::io(path, &error))
    }

    /// Keeps other writers out until the result is dropped; makes the directory if need be.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub(super) fn lock(path: &Path) -> Result<File, AccountsError> {
        let lock = || {
            let directory = durable_file::folder_of(path);
            durable_file::make_folder(directory)?;
            let directory = File::open(directory)?;
            flock(&directory, FlockOperation::LockExclusive)?;
            Ok(directory)
        };
        lock().map_err(|error: io::Error| AccountsError::io(path, &error))
    }
}

/// What is wrong with an account, before the file is named.
struct Fault {
    system_id: String,
    key: String,
    reason: String,
}

impl Fault {
    fn in_file(self, path: &Path) -> AccountsError {
        AccountsError::new(path, self.system_id, self.key, self.reason)
    }
}

fn parse(text: &str) -> Result<Vec<AccountSettings>, Fault> {
    let whole = |ConfigError { key, reason }| Fault { system_id: String::new(), key, reason };
    let mut file: toml::Table =
        toml::from_str(text).map_err(|error| whole(ConfigError::from_toml(text, &error)))?;
    let tables = match file.remove("account") {
        None => Vec::new(),
        Some(toml::Value::Array(tables)) => tables,
        Some(_) => return Err(whole(ConfigError::new("account", "must be tables: [[account]]"))),
    };
    if let Some((key, _)) = file.into_iter().next() {
        return Err(whole(ConfigError::new(key, "is not known; there is only [[account]]")));
    }
    let accounts = tables.into_iter().map(account).collect::<Result<Vec<_>, _>>()?;
    check(&accounts)?;
    Ok(accounts)
}

fn account(table: toml::Value) -> Result<AccountSettings, Fault> {
    let system_id = table.get("system_id").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    AccountSettings::deserialize(table).map_err(|error| {
        // Without the text at hand, the reader names the key in a line of its own; an unknown or missing key
        // in its message.
        let text = error.to_string();
        let named = text.split_once("\nin `").or_else(|| text.split_once(" field `"));
        let key = named.and_then(|(_, rest)| rest.split('`').next()).unwrap_or_default();
        Fault { system_id, key: key.to_owned(), reason: error.message().to_owned() }
    })
}

fn check(accounts: &[AccountSettings]) -> Result<(), Fault> {
    let mut numbers: HashMap<&str, &str> = HashMap::new();
    for (place, account) in accounts.iter().enumerate() {
        let fault =
            |key: &str, reason| Fault { system_id: account.system_id.clone(), key: key.to_owned(), reason };
        account.check().map_err(|(key, reason)| fault(key, reason))?;
        if accounts[..place].iter().any(|other| other.system_id == account.system_id) {
            return Err(fault("system_id", "is there twice".to_owned()));
        }
        if !password::is_hash(&account.password_hash) {
            return Err(fault("password_hash", "is no argon2id hash".to_owned()));
        }
        for number in &account.numbers {
            let digits = without_plus(number);
            if let Some(owner) = numbers.insert(digits, &account.system_id) {
                return Err(fault("numbers", format!("\"{number}\" belongs to account \"{owner}\" already")));
            }
        }
    }
    Ok(())
}

/// Accounts that cannot be read or written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AccountsError {
    /// The file.
    pub(super) file: PathBuf,
    /// The account at fault; empty when it is none in particular.
    pub(super) system_id: String,
    /// The key at fault; empty when it is none in particular.
    pub(super) key: String,
    /// What is wrong.
    pub(super) reason: String,
    /// What the system said, when it was the system.
    pub(super) io: Option<io::ErrorKind>,
}

impl AccountsError {
    fn new(
        file: &Path,
        system_id: impl Into<String>,
        key: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let (system_id, key, reason) = (system_id.into(), key.into(), reason.into());
        Self { file: file.to_owned(), system_id, key, reason, io: None }
    }

    fn io(file: &Path, error: &io::Error) -> Self {
        Self { io: Some(error.kind()), ..Self::new(file, "", "", error.to_string()) }
    }

    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        self.io == Some(io::ErrorKind::NotFound)
    }
}

impl fmt::Display for AccountsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if !self.system_id.is_empty() {
            write!(f, "account \"{}\": ", self.system_id)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl Error for AccountsError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::account::{DefaultAlphabet, StatusName};
    use crate::pdu::CommandStatus;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$bG9jYWxzYWx0$Vo6rGTPfb8GeZRwfIzHkGuRtqWsO7d0z9Tfi0pHfpPM";

    /// A directory of its own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("smppd-accounts-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self, text: &str) -> PathBuf {
            let path = self.0.join("accounts.toml");
            fs::write(&path, text).expect("a file");
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn account(system_id: &str, numbers: &[&str]) -> AccountSettings {
        let numbers = numbers.iter().map(|&number| number.to_owned()).collect();
        AccountSettings { numbers, ..AccountSettings::new(system_id, HASH) }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let scratch = Scratch::new("saved");
        let path = scratch.0.join("deeper/accounts.toml");
        let mut full = account("full", &["12125550100", "+4420", "Brand"]);
        full.rate = 100;
        full.credits = 1 << 40;
        full.any_source = true;
        full.default_alphabet = DefaultAlphabet::Gsm;
        full.no_credit_status = StatusName(CommandStatus(0x0000_0401));
        full.status_map =
            [(StatusName(CommandStatus::ESME_RINVSRCADR), StatusName(CommandStatus::ESME_RBINDFAIL))].into();
        for accounts in [vec![], vec![account("demo", &[]), full.clone()], vec![full]] {
            AccountsFile::save(&path, &accounts).expect("saved");
            assert_eq!(AccountsFile::load(&path).as_ref(), Ok(&accounts));
            assert!(fs::read_to_string(&path).expect("text").starts_with("# The accounts of smppd"));
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
        let names = fs::read_dir(path.parent().expect("a directory")).expect("entries").count();
        assert_eq!(names, 1, "no draft is left");
    }

    #[test]
    fn what_load_would_refuse_is_not_saved() {
        let scratch = Scratch::new("unsaved");
        let path = scratch.0.join("accounts.toml");
        AccountsFile::save(&path, &[account("demo", &[])]).expect("saved");
        let before = fs::read_to_string(&path).expect("text");
        let error =
            AccountsFile::save(&path, &[account("a", &["1"]), account("b", &["+1"])]).expect_err("refused");
        assert_eq!((&*error.system_id, &*error.key), ("b", "numbers"));
        assert_eq!(fs::read_to_string(&path).expect("text"), before);
    }

    #[test]
    fn a_link_stays_a_link() {
        let scratch = Scratch::new("link");
        let target = scratch.file("");
        let link = scratch.0.join("link.toml");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        AccountsFile::save(&link, &[account("demo", &[])]).expect("saved");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(AccountsFile::load(&target).expect("loaded").len(), 1);
    }

    #[test]
    fn bad_files_are_refused_by_file_account_and_key() {
        let scratch = Scratch::new("bad");
        let head = |system_id: &str| {
            format!("[[account]]\nsystem_id = \"{system_id}\"\npassword_hash = \"{HASH}\"\n")
        };
        let table = [
            ("account = ".to_owned(), "", "account", "(line 1)"),
            ("account = 1".to_owned(), "", "account", "must be tables"),
            ("[acount]".to_owned(), "", "acount", "is not known"),
            (
                "[[account]]\nsystem_id = \"a\"".to_owned(),
                "a",
                "password_hash",
                "missing field `password_hash`",
            ),
            (head("a") + "rate = -1", "a", "rate", "invalid value"),
            (head("a") + "colour = 1", "a", "colour", "unknown field `colour`"),
            (head("a") + "default_alphabet = \"ebcdic\"", "a", "default_alphabet", "unknown variant"),
            (
                head("a") + "bind_limit_status = \"ESME_X\"",
                "a",
                "bind_limit_status",
                "neither a command_status",
            ),
            (head("a b"), "a b", "system_id", "printable"),
            (head("a") + &head("a"), "a", "system_id", "twice"),
            (
                head("a") + "numbers = [\"1\"]\n" + &head("b") + "numbers = [\"+1\"]",
                "b",
                "numbers",
                "account \"a\" already",
            ),
            (head("a") + "numbers = [\"1\", \"1\"]", "a", "numbers", "account \"a\" already"),
            (head("a") + "numbers = [\"much too long a name\"]", "a", "numbers", "neither a number"),
            (
                "[[account]]\nsystem_id = \"a\"\npassword_hash = \"secret\"".to_owned(),
                "a",
                "password_hash",
                "argon2id",
            ),
        ];
        for (text, system_id, key, reason) in table {
            let path = scratch.file(&text);
            let error = AccountsFile::load(&path).expect_err(&text);
            assert_eq!((&*error.system_id, &*error.key), (system_id, key), "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
        }
        let error = AccountsFile::load(&scratch.0.join("none.toml")).expect_err("no file");
        assert!(error.is_missing(), "{error}");
    }
}
