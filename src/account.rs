//! Accounts: who may bind, send, and how much.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::pdu::{Alphabet, CommandStatus};
use crate::throttle::Throttle;

/// What an operator sets for one account. Durations and counts: 0 = no limit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSettings {
    /// The name in bind requests: 1–15 characters.
    pub system_id: String,
    /// The password as an argon2id hash in PHC form.
    pub password_hash: String,
    /// Sessions bound at one time, over all cores.
    #[serde(default = "default_bind_limit")]
    pub bind_limit: u32,
    /// Messages a second, over all cores; each segment we cut counts as one.
    #[serde(default)]
    pub rate: u32,
    /// Messages that may come at once before `rate` holds; 0 = one second's worth.
    #[serde(default)]
    pub burst: u32,
    /// Segments the account has bought, ever; raising it tops the account up.
    #[serde(default)]
    pub credits: u64,
    /// Its numbers; the first is the default source_addr. Replies to them go to this account.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Whether it may send from numbers and names that are not its own.
    #[serde(default)]
    pub any_source: bool,
    /// What data_coding 0 means for it.
    #[serde(default)]
    pub default_alphabet: DefaultAlphabet,
    /// Whether data_coding 2 and 4 are taken.
    #[serde(default)]
    pub binary: bool,
    /// Whether a short_message over one segment is cut by us rather than refused.
    #[serde(default)]
    pub segment_long: bool,
    /// Whether replace_if_present_flag 1 is taken.
    #[serde(default = "default_true")]
    pub replace_if_present: bool,
    /// Whether receipts also tell that a carrier has accepted the message (stat:ACCEPTD).
    #[serde(default)]
    pub accepted_receipts: bool,
    /// deliver_sm that may wait for their response on one session; 0 = the server's setting.
    #[serde(default)]
    pub deliver_window: u32,
    /// What a bind over `bind_limit` is told.
    #[serde(default = "default_bind_limit_status")]
    pub bind_limit_status: StatusName,
    /// What a submission without credits is told.
    #[serde(default = "default_no_credit_status")]
    pub no_credit_status: StatusName,
    /// Other answers in the place of ours, by name or number: `{ ESME_RINVSRCADR = "0x0D" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status_map: BTreeMap<StatusName, StatusName>,
}

/// The largest `deliver_window`; that of the server's setting too.
const DELIVER_WINDOW_MAX: u32 = 1_000_000;

fn default_bind_limit() -> u32 {
    10
}

fn default_bind_limit_status() -> StatusName {
    StatusName(CommandStatus::ESME_RBINDFAIL)
}

fn default_no_credit_status() -> StatusName {
    StatusName(CommandStatus::ESME_RSUBMITFAIL)
}

fn default_true() -> bool {
    true
}

impl AccountSettings {
    /// An account with the defaults of every other field.
    pub fn new(system_id: &str, password_hash: &str) -> Self {
        Self {
            system_id: system_id.to_owned(),
            password_hash: password_hash.to_owned(),
            bind_limit: default_bind_limit(),
            rate: 0,
            burst: 0,
            credits: 0,
            numbers: Vec::new(),
            any_source: false,
            default_alphabet: DefaultAlphabet::default(),
            binary: false,
            segment_long: false,
            replace_if_present: true,
            accepted_receipts: false,
            deliver_window: 0,
            bind_limit_status: default_bind_limit_status(),
            no_credit_status: default_no_credit_status(),
            status_map: BTreeMap::new(),
        }
    }

    /// Checks what the types do not: the key at fault and the reason.
    ///
    /// # Errors
    /// A system_id that no bind request can carry, a number that is none, a window that is too large, or a
    /// refusal that would say ESME_ROK.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        check_system_id(&self.system_id).map_err(|reason| ("system_id", reason))?;
        if self.deliver_window > DELIVER_WINDOW_MAX {
            let reason = format!("{} is more than {DELIVER_WINDOW_MAX}", self.deliver_window);
            return Err(("deliver_window", reason));
        }
        let is_ok = |status: &StatusName| status.0 == CommandStatus::ESME_ROK;
        let own_words = [
            ("bind_limit_status", is_ok(&self.bind_limit_status)),
            ("no_credit_status", is_ok(&self.no_credit_status)),
            ("status_map", self.status_map.iter().any(|(ours, own)| is_ok(ours) || is_ok(own))),
        ];
        if let Some((key, _)) = own_words.into_iter().find(|(_, says_ok)| *says_ok) {
            return Err((key, "ESME_ROK is no refusal, and no refusal is ESME_ROK".to_owned()));
        }
        for number in &self.numbers {
            let digits = without_plus(number);
            let is_number =
                (1..=20).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
            let is_name =
                (1..=11).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_graphic());
            if !is_number && !is_name {
                return Err((
                    "numbers",
                    format!("\"{number}\" is neither a number nor a name of at most 11 characters"),
                ));
            }
        }
        Ok(())
    }
}

/// Checks that a bind request, or the response to one, can carry a system_id.
///
/// # Errors
/// Why it cannot.
pub fn check_system_id(system_id: &str) -> Result<(), String> {
    if (1..=15).contains(&system_id.len()) && system_id.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("\"{system_id}\" is not 1 to 15 printable ASCII characters"))
}

/// A number as it stands in a PDU: TON 1 says what a `+` would.
pub fn without_plus(number: &str) -> &str {
    number.strip_prefix('+').unwrap_or(number)
}

/// What data_coding 0 can mean.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAlphabet {
    /// As the product page says.
    #[default]
    Ascii,
    /// GSM 03.38, one septet an octet.
    Gsm,
    /// ISO 8859-1.
    Latin1,
}

impl From<DefaultAlphabet> for Alphabet {
    fn from(alphabet: DefaultAlphabet) -> Self {
        match alphabet {
            DefaultAlphabet::Ascii => Self::Ascii,
            DefaultAlphabet::Gsm => Self::Gsm7,
            DefaultAlphabet::Latin1 => Self::Latin1,
        }
    }
}

/// A command_status in a settings file: its name, or a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StatusName(pub CommandStatus);

impl Serialize for StatusName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StatusName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.map(CommandStatus).or_else(|| CommandStatus::from_name(&text)).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("\"{text}\" is neither a command_status nor 0x and digits"))
        })
    }
}

/// The place of an account in the table of this process; stays the same when accounts are reloaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountIndex(pub u32);

/// An account as the shards see it.
#[derive(Debug)]
pub struct Account {
    /// Its place in the table.
    pub index: AccountIndex,
    /// What the operator set.
    pub settings: AccountSettings,
    /// What all cores count together.
    pub limits: Arc<Limits>,
    /// Whether it was removed: its messages go on, its sessions do not.
    pub removed: bool,
}

/// What must hold exactly over all cores: the one thing that they share.
#[derive(Debug)]
pub struct Limits {
    /// The rate limit.
    pub throttle: Throttle,
    credits_used: AtomicU64,
}

impl Account {
    /// Takes `segments` credits, all or none.
    ///
    /// # Errors
    /// The account has fewer left.
    pub fn take_credits(&self, segments: u64) -> Result<(), NoCredit> {
        let limit = self.settings.credits;
        let used = &self.limits.credits_used;
        let take = |used: u64| {
            let after = used.saturating_add(segments);
            (limit == 0 || after <= limit).then_some(after)
        };
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map(|_| ()).map_err(|_| NoCredit)
    }

    /// Gives back credits that were taken for something that did not come to be.
    pub fn return_credits(&self, segments: u64) {
        self.limits.credits_used.fetch_sub(segments, Ordering::Relaxed);
    }

    /// Counts credits that a journal says were used before this process began.
    pub fn restore_credits(&self, segments: u64) {
        self.limits.credits_used.fetch_add(segments, Ordering::Relaxed);
    }

    /// Segments taken so far.
    pub fn credits_used(&self) -> u64 {
        self.limits.credits_used.load(Ordering::Relaxed)
    }

    /// The number that stands in for an empty source_addr.
    pub fn default_number(&self) -> Option<&str> {
        self.settings.numbers.first().map(|number| without_plus(number))
    }

    /// Whether it may send from this source_addr, given without a leading `+`.
    pub fn owns_number(&self, digits: &[u8]) -> bool {
        self.settings.numbers.iter().any(|number| without_plus(number).as_bytes() == digits)
    }

    /// What the account is told instead of `status`, if the operator has said so.
    pub fn own_status(&self, status: CommandStatus) -> Option<CommandStatus> {
        self.settings.status_map.get(&StatusName(status)).map(|own| own.0)
    }
}

/// No credits left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCredit;

/// Every account this process has known, in an order that only grows.
#[derive(Clone, Default, Debug)]
pub struct Accounts {
    accounts: Vec<Arc<Account>>,
    by_name: HashMap<Box<[u8]>, AccountIndex, RandomState>,
    by_number: HashMap<Box<[u8]>, AccountIndex, RandomState>,
}

impl Accounts {
    /// The next table: `settings` are the accounts there are now; those that left stay as removed.
    pub fn reload(&self, settings: Vec<AccountSettings>) -> Self {
        let mut next = Self {
            accounts: self
                .accounts
                .iter()
                .map(|account| {
                    Arc::new(Account {
                        index: account.index,
                        settings: account.settings.clone(),
                        limits: Arc::clone(&account.limits),
                        removed: true,
                    })
                })
                .collect(),
            by_name: self.by_name.clone(),
            by_number: HashMap::default(),
        };
        for settings in settings {
            let index = next.index_or_new(settings.system_id.as_bytes());
            for number in &settings.numbers {
                let digits = without_plus(number);
                next.by_number.entry(digits.as_bytes().into()).or_insert(index);
            }
            let limits = match next.accounts.get(index.0 as usize) {
                Some(known) => Arc::clone(&known.limits),
                None => Arc::new(Limits {
                    throttle: Throttle::new(settings.rate, settings.burst),
                    credits_used: AtomicU64::new(0),
                }),
            };
            limits.throttle.configure(settings.rate, settings.burst);
            let account = Arc::new(Account { index, settings, limits, removed: false });
            match next.accounts.get_mut(index.0 as usize) {
                Some(known) => *known = account,
                None => next.accounts.push(account),
            }
        }
        next
    }

    /// Makes room for accounts that only a journal knows: their messages go on without settings.
    pub fn with_unknown<'a>(&self, system_ids: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut next = self.clone();
        for system_id in system_ids {
            if next.by_name.contains_key(system_id) {
                continue;
            }
            let index = next.index_or_new(system_id);
            next.accounts.push(Arc::new(Account {
                index,
                settings: AccountSettings::new(&String::from_utf8_lossy(system_id), ""),
                limits: Arc::new(Limits { throttle: Throttle::new(0, 0), credits_used: AtomicU64::new(0) }),
                removed: true,
            }));
        }
        next
    }

    /// The account at a place given out by this table.
    pub fn get(&self, index: AccountIndex) -> &Arc<Account> {
        &self.accounts[index.0 as usize]
    }

    /// The account at a place that another core gave out, if this table has it already.
    pub fn try_get(&self, index: AccountIndex) -> Option<&Arc<Account>> {
        self.accounts.get(index.0 as usize)
    }

    /// The place of the account with this name, removed or not.
    pub fn index_of(&self, system_id: &[u8]) -> Option<AccountIndex> {
        self.by_name.get(system_id).copied()
    }

    /// The account that this name may bind as.
    pub fn find(&self, system_id: &[u8]) -> Option<&Arc<Account>> {
        self.index_of(system_id).map(|index| self.get(index)).filter(|account| !account.removed)
    }

    /// The account whose number this is, given without a leading `+`.
    pub fn owner_of(&self, digits: &[u8]) -> Option<&Arc<Account>> {
        self.by_number.get(digits).map(|index| self.get(*index)).filter(|account| !account.removed)
    }

    /// All of them, removed ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.iter()
    }

    fn index_or_new(&mut self, system_id: &[u8]) -> AccountIndex {
        let next = AccountIndex(self.accounts.len() as u32);
        *self.by_name.entry(system_id.into()).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(settings: &[(&str, u64)]) -> Vec<AccountSettings> {
        settings
            .iter()
            .map(|(system_id, credits)| AccountSettings {
                credits: *credits,
                ..AccountSettings::new(system_id, "hash")
            })
            .collect()
    }

    #[test]
    fn credits_are_taken_all_or_none_and_survive_a_reload() {
        let table = Accounts::default().reload(accounts(&[("demo", 5)]));
        let demo = table.find(b"demo").expect("demo");
        assert_eq!(demo.take_credits(4), Ok(()));
        assert_eq!(demo.take_credits(2), Err(NoCredit));
        assert_eq!(demo.take_credits(1), Ok(()));
        let table = table.reload(accounts(&[("demo", 7)]));
        let demo = table.find(b"demo").expect("demo");
        assert_eq!(demo.credits_used(), 5);
        assert_eq!(demo.take_credits(2), Ok(()));
        assert_eq!(demo.take_credits(1), Err(NoCredit));
    }

    #[test]
    fn places_stay_when_accounts_come_and_go() {
        let first = Accounts::default().reload(accounts(&[("a", 0), ("b", 0)]));
        let b = first.index_of(b"b");
        let second = first.reload(accounts(&[("c", 0), ("b", 0)]));
        assert_eq!(second.index_of(b"b"), b);
        assert!(second.find(b"a").is_none());
        assert!(second.get(AccountIndex(0)).removed);
        assert!(second.find(b"c").is_some());
        let third = second.reload(accounts(&[("a", 0)]));
        assert_eq!(third.find(b"a").map(|account| account.index), Some(AccountIndex(0)));
    }

    #[test]
    fn numbers_find_their_account_with_and_without_plus() {
        let settings =
            AccountSettings { numbers: vec!["+12125550100".into()], ..AccountSettings::new("demo", "") };
        let table = Accounts::default().reload(vec![settings]);
        let demo = table.owner_of(b"12125550100").expect("demo");
        assert!(demo.owns_number(b"12125550100"));
        assert_eq!(demo.default_number(), Some("12125550100"));
    }

    #[test]
    fn names_that_no_bind_can_carry_are_refused() {
        for system_id in ["", "sixteen-letters-", "with space", "ümlaut"] {
            assert!(AccountSettings::new(system_id, "").check().is_err(), "{system_id}");
        }
        assert!(AccountSettings::new("fifteen-letters", "").check().is_ok());
    }

    #[test]
    fn a_number_belongs_to_the_first_who_has_it_and_to_nobody_when_that_is_gone() {
        let with = |system_id: &str, numbers: &[&str]| AccountSettings {
            numbers: numbers.iter().map(|number| (*number).to_owned()).collect(),
            ..AccountSettings::new(system_id, "hash")
        };
        let name = |table: &Accounts, digits: &[u8]| {
            table.owner_of(digits).map(|account| account.settings.system_id.clone())
        };
        let table = Accounts::default().reload(vec![with("a", &["1", "+2"]), with("b", &["2", "3"])]);
        let owners = [&b"1"[..], b"2", b"3", b"4", b""].map(|digits| name(&table, digits));
        assert_eq!(owners, [Some("a".to_owned()), Some("a".to_owned()), Some("b".to_owned()), None, None]);
        let table = table.reload(vec![with("b", &["3"])]);
        assert_eq!(name(&table, b"1"), None, "its account was removed");
        assert_eq!(name(&table, b"2"), None, "its account was removed, and the other has given it up");
        assert!(table.find(b"a").is_none() && table.index_of(b"a").is_some());
        let table = table.reload(vec![with("a", &[]), with("b", &["1"])]);
        assert_eq!(name(&table, b"1").as_deref(), Some("b"));
        assert_eq!(table.find(b"a").and_then(|account| account.default_number()), None);
    }

    #[test]
    fn a_new_rate_holds_from_the_reload_on_and_what_was_taken_stays_taken() {
        let with =
            |rate, burst| vec![AccountSettings { rate, burst, ..AccountSettings::new("demo", "hash") }];
        let table = Accounts::default().reload(with(1, 2));
        let admits = |table: &Accounts| {
            let demo = table.find(b"demo").expect("demo");
            // No time passes.
            (0..10).filter(|_| demo.limits.throttle.admit(Default::default(), 1)).count()
        };
        assert_eq!(admits(&table), 2);
        let table = table.reload(with(1, 5));
        assert_eq!(admits(&table), 3, "two of five were taken");
        assert_eq!(admits(&table.reload(with(0, 0))), 10, "no limit");
    }

    #[test]
    fn what_no_setting_may_be_is_told_by_its_key() {
        let ok = StatusName(CommandStatus::ESME_ROK);
        let other = StatusName(CommandStatus::ESME_RSYSERR);
        let numbers = |number: &str| {
            let numbers = vec![number.to_owned()];
            AccountSettings { numbers, ..AccountSettings::new("demo", "") }
        };
        let new = || AccountSettings::new("demo", "");
        for (settings, key) in [
            (new(), None),
            (AccountSettings { deliver_window: DELIVER_WINDOW_MAX, ..new() }, None),
            (AccountSettings { deliver_window: DELIVER_WINDOW_MAX + 1, ..new() }, Some("deliver_window")),
            (AccountSettings { bind_limit_status: ok, ..new() }, Some("bind_limit_status")),
            (AccountSettings { no_credit_status: ok, ..new() }, Some("no_credit_status")),
            (AccountSettings { status_map: [(other, other)].into(), ..new() }, None),
            (AccountSettings { status_map: [(other, ok)].into(), ..new() }, Some("status_map")),
            (AccountSettings { status_map: [(ok, other)].into(), ..new() }, Some("status_map")),
            (numbers("1"), None),
            (numbers("+1"), None),
            (numbers("12345678901234567890"), None),
            (numbers("+12345678901234567890"), None),
            (numbers("123456789012345678901"), Some("numbers")),
            (numbers("eleven-char"), None),
            (numbers("twelve-chars"), Some("numbers")),
            (numbers("a name"), Some("numbers")),
            (numbers(""), Some("numbers")),
            (numbers("+"), Some("numbers")),
        ] {
            let said = settings.check().err();
            assert_eq!(said.as_ref().map(|(key, _)| *key), key, "{settings:?}: {said:?}");
        }
        for (octets, is_good) in [(0, false), (1, true), (15, true), (16, false)] {
            assert_eq!(check_system_id(&"x".repeat(octets)).is_ok(), is_good, "{octets}");
        }
    }
}
