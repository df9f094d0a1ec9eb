//! The limits and timers of a session.

use std::time::Duration;

/// The limits and timers of a session (§2.7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionSettings {
    /// From the connection to a successful bind.
    pub session_init_timeout: Duration,
    /// Silence after which we send enquire_link.
    pub enquire_link_interval: Duration,
    /// enquire_links in a row without an answer before the peer counts as gone; 0 = never.
    pub enquire_link_unanswered_max: u8,
    /// No PDU received for so long ends a bound session.
    pub inactivity_timeout: Duration,
    /// How long our own requests wait for their response.
    pub response_timeout: Duration,
    /// How long a PDU that has begun to arrive may take to be whole.
    pub pdu_timeout: Duration,
    /// The longest PDU, once bound.
    pub pdu_octets_max: usize,
    /// The longest PDU before that.
    pub pdu_octets_max_unbound: usize,
    /// Requests of the peer that may wait for our answer; at the limit we stop reading.
    pub window_in_max: usize,
    /// Our requests that may wait for the peer's answer.
    pub window_out_max: usize,
    /// Failed binds before the connection is closed.
    pub bind_attempts_max: u8,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            session_init_timeout: Duration::from_secs(10),
            enquire_link_interval: Duration::from_secs(30),
            enquire_link_unanswered_max: 2,
            inactivity_timeout: Duration::from_secs(120),
            response_timeout: Duration::from_secs(10),
            pdu_timeout: Duration::from_secs(30),
            pdu_octets_max: 81_920,
            pdu_octets_max_unbound: 1_024,
            window_in_max: 1_000,
            window_out_max: 10,
            bind_attempts_max: 3,
        }
    }
}
