//! The accounts, with every setting they had: a core hears of another one in its own time.

use smppd::account::AccountSettings;

use crate::allowance::Allowance;

/// One account.
#[derive(Debug)]
pub(super) struct Book {
    /// Its name.
    pub(super) name: String,
    /// What it may submit.
    pub(super) allowance: Allowance,
    /// When a deliver_sm was last sent to it.
    pub(super) served_at: u64,
    history: Vec<Heard>,
}

/// What an account was set to.
#[derive(Debug)]
struct Heard {
    /// Every core has heard of it then.
    heard_at: u64,
    /// `None` when it was removed.
    settings: Option<AccountSettings>,
}

impl Book {
    /// An account that was never set to anything.
    pub(super) fn new(name: String) -> Self {
        Self { name, allowance: Allowance::default(), served_at: 0, history: Vec::new() }
    }

    /// It is set to this; all cores have heard of it at `heard_at`.
    pub(super) fn set(&mut self, settings: Option<AccountSettings>, heard_at: u64) {
        if let Some(settings) = &settings {
            self.allowance.set(settings, heard_at);
        }
        self.history.push(Heard { heard_at, settings });
    }

    /// Whether it is removed, as far as it was set last.
    pub(super) fn is_removed(&self) -> bool {
        self.history.last().is_some_and(|last| last.settings.is_none())
    }

    /// What some core may have gone by at some time since then; `None` for an account that is removed.
    pub(super) fn in_force(&self, since: u64) -> impl Iterator<Item = Option<&AccountSettings>> {
        self.places_in_force(since).map(|place| self.history[place].settings.as_ref())
    }

    fn places_in_force(&self, since: u64) -> impl Iterator<Item = usize> {
        let replaced = self.history.iter().skip(1).map(|next| Some(next.heard_at)).chain([None]);
        let places = replaced.enumerate();
        places.filter_map(move |(place, at)| at.is_none_or(|heard_at| heard_at >= since).then_some(place))
    }

    /// Whether a home may let `sessions` be bound, for one that bound at some time since then. One that has not heard yet
    /// that the account is back goes by what it was set to before it was removed.
    pub(super) fn may_bind(&self, since: u64, sessions: usize) -> bool {
        self.bind_limits(since).any(|limit| limit == 0 || sessions <= limit as usize)
    }

    /// Whether a home may refuse one more, for the same reasons.
    pub(super) fn may_be_full(&self, since: u64, sessions: usize) -> bool {
        self.bind_limits(since).any(|limit| limit != 0 && sessions >= limit as usize)
    }

    fn bind_limits(&self, since: u64) -> impl Iterator<Item = u32> {
        let last =
            |place: usize| self.history[..=place].iter().rev().find_map(|heard| heard.settings.as_ref());
        self.places_in_force(since).filter_map(last).map(|settings| settings.bind_limit)
    }

    /// Whether something holds for any setting that it may have had since then.
    pub(super) fn may(&self, since: u64, holds: impl Fn(&AccountSettings) -> bool) -> bool {
        self.in_force(since).flatten().any(holds)
    }

    /// Whether its password may have been another one at some time since then.
    pub(super) fn has_other_password(&self, since: u64) -> bool {
        let mut passwords = self.in_force(since).flatten().map(|settings| &settings.password_hash);
        let first = passwords.next();
        passwords.any(|password| Some(password) != first)
    }

    /// Whether it may have been removed at some time since then.
    pub(super) fn may_be_removed(&self, since: u64) -> bool {
        self.in_force(since).any(|settings| settings.is_none())
    }
}
