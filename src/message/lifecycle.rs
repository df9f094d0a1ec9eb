//! The life of a short message as one table.

use crate::pdu::receipt::MessageState;

/// Where an accepted message stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Waits for its schedule_delivery_time.
    Scheduled,
    /// Waits for a carrier: not offered yet, or to be offered again.
    Queued,
    /// An attempt is on record and the carrier has not answered it.
    Attempting,
    /// The carrier has taken it and will report what became of it.
    Forwarded,
    /// Over.
    Final(MessageState),
}

impl State {
    /// What query_sm and receipts call this state.
    pub const fn message_state(self) -> MessageState {
        match self {
            Self::Scheduled => MessageState::SCHEDULED,
            Self::Queued | Self::Attempting | Self::Forwarded => MessageState::ENROUTE,
            Self::Final(state) => state,
        }
    }

    /// Whether no carrier has the message, nor may have it: its sender can still change it or take it back.
    pub const fn is_waiting(self) -> bool {
        match self {
            Self::Scheduled | Self::Queued => true,
            Self::Attempting | Self::Forwarded | Self::Final(_) => false,
        }
    }

    /// Whether the message has come to its end.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Final(_) => true,
            Self::Scheduled | Self::Queued | Self::Attempting | Self::Forwarded => false,
        }
    }
}

/// What can happen to a message once it is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An attempt to hand it to a carrier begins.
    Attempt,
    /// The carrier took it.
    Forwarded,
    /// The carrier did not take it; it is to be offered again later.
    Deferred,
    /// The carrier says what became of it, or refuses it for good.
    Reported(MessageState),
    /// Its validity period ran out.
    Expired,
    /// Its sender took it back.
    Cancelled,
    /// Its sender changed it; `scheduled` when the new version waits for a time.
    Replaced {
        /// Whether the new version has a schedule_delivery_time ahead.
        scheduled: bool,
    },
}

/// Why an event does not apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The message is already final; a second final state is never made.
    Over,
    /// The carrier has it, or may have it.
    InTransit,
    /// No attempt is open that this could answer.
    NotAttempted,
}

/// What follows from an event once it is on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing but the new state.
    Nothing,
    /// The carrier of the attempt is offered the message.
    HandOver,
    /// A sender who asked for notifications is told of it.
    Notify,
    /// The message is over; a sender who asked for a receipt is told this.
    End(MessageState),
}

/// The table: what `event` makes of a message in `state`, and what follows.
///
/// A report may overtake the carrier's own answer to the attempt, so `Attempting` takes it as well. A
/// carrier that takes a message twice (after a restart in the middle of an attempt) changes nothing.
///
/// # Errors
/// The event does not apply: nothing changes, and nothing follows.
pub fn next(state: State, event: Event) -> Result<(State, Effect), Refused> {
    const fn end(state: MessageState) -> (State, Effect) {
        (State::Final(state), Effect::End(state))
    }
    match (state, event) {
        (State::Final(_), _) => Err(Refused::Over),

        (State::Scheduled | State::Queued, Event::Attempt) => Ok((State::Attempting, Effect::HandOver)),
        (State::Attempting | State::Forwarded, Event::Attempt) => Err(Refused::InTransit),

        (State::Attempting | State::Forwarded, Event::Forwarded) => Ok((State::Forwarded, Effect::Nothing)),
        (State::Attempting, Event::Deferred) => Ok((State::Queued, Effect::Nothing)),
        (State::Forwarded, Event::Deferred) => Err(Refused::InTransit),
        (State::Scheduled | State::Queued, Event::Forwarded | Event::Deferred) => Err(Refused::NotAttempted),

        (State::Attempting | State::Forwarded, Event::Reported(report)) => {
            if report.is_final() {
                Ok(end(report))
            } else {
                Ok((State::Forwarded, Effect::Notify))
            }
        }
        (State::Scheduled | State::Queued, Event::Reported(report)) => {
            // Only our own refusal (no route, retries used up) ends a message nobody was offered.
            if report.is_final() { Ok(end(report)) } else { Err(Refused::NotAttempted) }
        }

        (State::Scheduled | State::Queued | State::Attempting | State::Forwarded, Event::Expired) => {
            Ok(end(MessageState::EXPIRED))
        }

        (State::Scheduled | State::Queued, Event::Cancelled) => Ok(end(MessageState::DELETED)),
        (State::Scheduled | State::Queued, Event::Replaced { scheduled: true }) => {
            Ok((State::Scheduled, Effect::Nothing))
        }
        (State::Scheduled | State::Queued, Event::Replaced { scheduled: false }) => {
            Ok((State::Queued, Effect::Nothing))
        }
        (State::Attempting | State::Forwarded, Event::Cancelled | Event::Replaced { .. }) => {
            Err(Refused::InTransit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] = [
        State::Scheduled,
        State::Queued,
        State::Attempting,
        State::Forwarded,
        State::Final(MessageState::DELIVERED),
    ];

    #[test]
    fn a_final_state_is_the_last() {
        let events = [
            Event::Attempt,
            Event::Forwarded,
            Event::Deferred,
            Event::Reported(MessageState::UNDELIVERABLE),
            Event::Expired,
            Event::Cancelled,
            Event::Replaced { scheduled: true },
        ];
        for event in events {
            assert_eq!(next(State::Final(MessageState::DELIVERED), event), Err(Refused::Over), "{event:?}");
        }
    }

    #[test]
    fn cancel_and_replace_stop_where_the_carrier_begins() {
        for state in STATES {
            let open = matches!(state, State::Scheduled | State::Queued);
            assert_eq!(next(state, Event::Cancelled).is_ok(), open, "{state:?}");
            assert_eq!(next(state, Event::Replaced { scheduled: false }).is_ok(), open, "{state:?}");
        }
    }

    #[test]
    fn only_a_carrier_that_has_not_answered_an_attempt_can_turn_it_down() {
        for state in STATES {
            let deferred = match state {
                State::Scheduled | State::Queued => Err(Refused::NotAttempted),
                State::Attempting => Ok((State::Queued, Effect::Nothing)),
                State::Forwarded => Err(Refused::InTransit),
                State::Final(_) => Err(Refused::Over),
            };
            assert_eq!(next(state, Event::Deferred), deferred, "{state:?}");
        }
    }

    #[test]
    fn an_interim_report_does_not_end_a_message() {
        for state in [State::Attempting, State::Forwarded] {
            for told in [MessageState::ACCEPTED, MessageState::ENROUTE] {
                assert_eq!(next(state, Event::Reported(told)), Ok((State::Forwarded, Effect::Notify)));
            }
        }
    }

    #[test]
    fn validity_ends_every_open_message() {
        for state in STATES.into_iter().filter(|state| !state.is_final()) {
            let expired = MessageState::EXPIRED;
            let ended = Ok((State::Final(expired), Effect::End(expired)));
            assert_eq!(next(state, Event::Expired), ended, "{state:?}");
        }
    }
}
