//! Which operation may come in which state: section 2 of the specification as one table.

use crate::pdu::{CommandId, CommandStatus};
use crate::session::{Side, State};

/// What to do with a request that came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is in its place.
    Allowed,
    /// Its own response says why not.
    Refused(CommandStatus),
    /// It has no response of its own; generic_nack says so.
    Nacked(CommandStatus),
    /// The session is over; nothing is answered.
    Ignored,
}

/// The sort of an operation, as far as states are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bind,
    Link,
    /// From a bound transmitter or transceiver.
    Submission,
    /// To a bound receiver or transceiver.
    Delivery,
    /// data_sm goes both ways.
    Data,
    /// Has no response.
    Outbind,
    /// Has no response.
    Alert,
    /// Not a request of this protocol.
    Unknown,
}

const fn kind(command: CommandId) -> Kind {
    match command {
        CommandId::BIND_RECEIVER | CommandId::BIND_TRANSMITTER | CommandId::BIND_TRANSCEIVER => Kind::Bind,
        CommandId::ENQUIRE_LINK | CommandId::UNBIND => Kind::Link,
        CommandId::SUBMIT_SM
        | CommandId::SUBMIT_MULTI
        | CommandId::QUERY_SM
        | CommandId::CANCEL_SM
        | CommandId::REPLACE_SM
        | CommandId::BROADCAST_SM
        | CommandId::QUERY_BROADCAST_SM
        | CommandId::CANCEL_BROADCAST_SM => Kind::Submission,
        CommandId::DELIVER_SM => Kind::Delivery,
        CommandId::DATA_SM => Kind::Data,
        CommandId::OUTBIND => Kind::Outbind,
        CommandId::ALERT_NOTIFICATION => Kind::Alert,
        _ => Kind::Unknown,
    }
}

/// Whether `receiver`, in `state`, takes the request `command`. Known commands only; the rest is nacked.
pub const fn verdict(receiver: Side, state: State, command: CommandId) -> Verdict {
    const BAD_STATE: Verdict = Verdict::Refused(CommandStatus::ESME_RINVBNDSTS);
    match kind(command) {
        Kind::Unknown => Verdict::Nacked(CommandStatus::ESME_RINVCMDID),
        // unbind has no place before the bind, but whoever asks is let go; the session sees to that.
        Kind::Link => match state {
            State::Open | State::Outbound | State::BoundTx | State::BoundRx | State::BoundTrx => {
                Verdict::Allowed
            }
            State::Unbinding => Verdict::Allowed,
            State::Closed => Verdict::Ignored,
        },
        Kind::Bind => match (receiver, state) {
            (Side::Mc, State::Open | State::Outbound) => Verdict::Allowed,
            (Side::Mc, State::BoundTx | State::BoundRx | State::BoundTrx) => {
                Verdict::Refused(CommandStatus::ESME_RALYBND)
            }
            (
                Side::Esme,
                State::Open | State::Outbound | State::BoundTx | State::BoundRx | State::BoundTrx,
            ) => BAD_STATE,
            (_, State::Unbinding) => BAD_STATE,
            (_, State::Closed) => Verdict::Ignored,
        },
        Kind::Submission => match (receiver, state) {
            (Side::Mc, State::BoundTx | State::BoundTrx) => Verdict::Allowed,
            (Side::Mc, State::Open | State::Outbound | State::BoundRx | State::Unbinding) => BAD_STATE,
            (Side::Esme, State::Open | State::Outbound | State::BoundTx | State::BoundRx) => BAD_STATE,
            (Side::Esme, State::BoundTrx | State::Unbinding) => BAD_STATE,
            (_, State::Closed) => Verdict::Ignored,
        },
        Kind::Delivery => match (receiver, state) {
            // While the ESME unbinds it may still be sent what was under way.
            (Side::Esme, State::BoundRx | State::BoundTrx | State::Unbinding) => Verdict::Allowed,
            (Side::Esme, State::Open | State::Outbound | State::BoundTx) => BAD_STATE,
            (Side::Mc, State::Open | State::Outbound | State::BoundTx | State::BoundRx) => BAD_STATE,
            (Side::Mc, State::BoundTrx | State::Unbinding) => BAD_STATE,
            (_, State::Closed) => Verdict::Ignored,
        },
        Kind::Data => match (receiver, state) {
            (Side::Mc, State::BoundTx | State::BoundTrx) => Verdict::Allowed,
            (Side::Esme, State::BoundRx | State::BoundTrx | State::Unbinding) => Verdict::Allowed,
            (Side::Mc, State::Open | State::Outbound | State::BoundRx | State::Unbinding) => BAD_STATE,
            (Side::Esme, State::Open | State::Outbound | State::BoundTx) => BAD_STATE,
            (_, State::Closed) => Verdict::Ignored,
        },
        Kind::Outbind => match (receiver, state) {
            (Side::Esme, State::Open) => Verdict::Allowed,
            (_, State::Closed) => Verdict::Ignored,
            (Side::Mc, State::Open)
            | (
                Side::Mc | Side::Esme,
                State::Outbound | State::BoundTx | State::BoundRx | State::BoundTrx | State::Unbinding,
            ) => Verdict::Nacked(CommandStatus::ESME_RINVCMDID),
        },
        Kind::Alert => match (receiver, state) {
            (Side::Esme, State::BoundRx | State::BoundTrx | State::Unbinding) => Verdict::Allowed,
            (_, State::Closed) => Verdict::Ignored,
            (Side::Esme, State::Open | State::Outbound | State::BoundTx)
            | (
                Side::Mc,
                State::Open
                | State::Outbound
                | State::BoundTx
                | State::BoundRx
                | State::BoundTrx
                | State::Unbinding,
            ) => Verdict::Nacked(CommandStatus::ESME_RINVCMDID),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 6] =
        [State::Open, State::BoundTx, State::BoundRx, State::BoundTrx, State::Unbinding, State::Closed];

    /// One letter a state: a allowed, s RINVBNDSTS, b RALYBND, n nacked, i ignored.
    fn row(side: Side, command: CommandId) -> String {
        STATES
            .map(|state| match verdict(side, state, command) {
                Verdict::Allowed => 'a',
                Verdict::Refused(CommandStatus::ESME_RALYBND) => 'b',
                Verdict::Refused(_) => 's',
                Verdict::Nacked(_) => 'n',
                Verdict::Ignored => 'i',
            })
            .into_iter()
            .collect()
    }

    #[test]
    fn the_message_centre_takes_what_the_specification_allows() {
        //                                        O T R X U -
        let table = [
            (CommandId::BIND_TRANSCEIVER, /*   */ "abbbsi"),
            (CommandId::SUBMIT_SM, /*          */ "sasasi"),
            (CommandId::SUBMIT_MULTI, /*       */ "sasasi"),
            (CommandId::REPLACE_SM, /*         */ "sasasi"),
            (CommandId::DATA_SM, /*            */ "sasasi"),
            (CommandId::DELIVER_SM, /*         */ "sssssi"),
            (CommandId::ENQUIRE_LINK, /*       */ "aaaaai"),
            (CommandId::UNBIND, /*             */ "aaaaai"),
            (CommandId::OUTBIND, /*            */ "nnnnni"),
            (CommandId::ALERT_NOTIFICATION, /* */ "nnnnni"),
            (CommandId(0x0000_000A), /*        */ "nnnnnn"),
        ];
        for (command, expected) in table {
            assert_eq!(row(Side::Mc, command), expected, "{command}");
        }
    }

    #[test]
    fn the_esme_takes_what_the_specification_allows() {
        let table = [
            (CommandId::DELIVER_SM, "ssaaai"),
            (CommandId::DATA_SM, "ssaaai"),
            (CommandId::ALERT_NOTIFICATION, "nnaaai"),
            (CommandId::OUTBIND, "annnni"),
            (CommandId::SUBMIT_SM, "sssssi"),
            (CommandId::BIND_RECEIVER, "sssssi"),
        ];
        for (command, expected) in table {
            assert_eq!(row(Side::Esme, command), expected, "{command}");
        }
    }
}
