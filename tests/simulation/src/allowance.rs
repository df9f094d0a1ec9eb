//! What an account may submit: how much, and how fast, over all cores.

use smppd::account::AccountSettings;

use crate::oracle::Token;

/// A second's worth of a message, in messages a second times nanoseconds.
const MESSAGE: u64 = 1_000_000_000;

/// How long ago something may have been asked that is dealt with now.
const UNDATED: u64 = 10_000_000_000;

/// What an account was allowed at any time.
#[derive(Debug, Default)]
pub struct Allowance {
    /// Every rate and burst it had in any process, in order; each begins with the whole burst, which is more than a
    /// reload gives.
    rates: Vec<(u32, u32)>,
    /// Its limit, if it has one, and from when on every core obeys it.
    credits: Option<(u64, u64)>,
    /// What it asked, in order.
    requests: Vec<Request>,
    /// What it asked and nobody knows when it was dealt with.
    undated: Vec<(Token, u64)>,
}

/// A request for which the account pays.
#[derive(Debug)]
struct Request {
    token: Token,
    at: u64,
    /// Its place in `rates`.
    rate: usize,
}

impl Allowance {
    /// Other settings: the rate holds at once, the limit when every core has heard.
    pub fn set(&mut self, settings: &AccountSettings, heard_at: u64) {
        self.rates.push((settings.rate, settings.burst));
        self.credits = match (settings.credits, self.credits) {
            (0, _) => None,
            (limit, Some((since, before))) if limit >= before => Some((since, limit)),
            (limit, _) => Some((heard_at, limit)),
        };
    }

    /// A core takes in a request.
    pub fn requested(&mut self, token: Token, at: u64) {
        self.requests.push(Request { token, at, rate: self.rates.len().saturating_sub(1) });
    }

    /// A core takes in a request that waits for others.
    pub fn requested_some_time(&mut self, token: Token, at: u64) {
        self.undated.push((token, at));
    }

    /// Whether a request of so many messages may find that too many were taken before it. `cost` tells how many a request
    /// was at most, 0 when it was refused.
    pub fn may_be_too_fast(&self, token: Token, messages: u64, cost: impl Fn(Token) -> u64) -> bool {
        let Some(place) = self.requests.iter().position(|request| request.token == token) else {
            return true;
        };
        let Some(&(per_second, burst)) = self.rates.get(self.requests[place].rate) else { return false };
        if per_second == 0 {
            return false;
        }
        let (mut level, mut last) = (0_u64, 0);
        let now = self.requests[place].at;
        for request in &self.requests[..place] {
            // Another rate begins with the whole burst.
            if self.rates.get(request.rate).is_none_or(|(rate, _)| *rate != per_second) {
                level = 0;
                continue;
            }
            let elapsed = request.at - std::mem::replace(&mut last, request.at);
            level = level.saturating_sub(elapsed.saturating_mul(per_second.into()));
            level += cost(request.token) * MESSAGE;
        }
        level = level.saturating_sub((now - last).saturating_mul(per_second.into()));
        let undated = self.undated.iter().filter(|(_, at)| *at + UNDATED >= now);
        level += undated.map(|(token, _)| cost(*token) * MESSAGE).sum::<u64>();
        let burst = u64::from(if burst == 0 { per_second } else { burst });
        // One message for rounding.
        level > 0 && level + (messages + 1) * MESSAGE > burst * MESSAGE
    }

    /// Why there cannot be so many credits on record behind something that was asked then.
    pub fn check_credits(&self, used: u64, asked_at: u64) -> Option<String> {
        let (since, limit) = self.credits?;
        (asked_at > since && used > limit).then(|| format!("{used} credits on record, {limit} are allowed"))
    }

    /// Why what was admitted is too much for its time. `cost` tells how many messages a request was at least, 0 when
    /// it was refused.
    pub fn check_rate(&self, cost: impl Fn(Token) -> u64) -> Option<String> {
        let (mut level, mut last, mut rate) = (0_u64, 0, usize::MAX);
        for request in &self.requests {
            let Some(&(per_second, burst)) = self.rates.get(request.rate) else { continue };
            let cost = cost(request.token);
            if per_second == 0 || cost == 0 {
                continue;
            }
            if std::mem::replace(&mut rate, request.rate) != request.rate {
                level = 0;
            }
            let elapsed = request.at - std::mem::replace(&mut last, request.at);
            let before = level.saturating_sub(elapsed.saturating_mul(per_second.into()));
            level = before + cost * MESSAGE;
            // One message for rounding. More than the burst at once passes when the whole burst is there.
            let burst = u64::from(if burst == 0 { per_second } else { burst });
            if level > (burst + 1) * MESSAGE && before > MESSAGE {
                let above = level / MESSAGE;
                return Some(format!("{above} messages at once, {per_second}/s and {burst} are allowed"));
            }
        }
        None
    }
}
