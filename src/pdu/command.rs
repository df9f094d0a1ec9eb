//! The numbers of the header and the version of a session: command_id, command_status, interface_version.

use std::fmt;

/// Declares the commands once: constant, value and the specification's name.
macro_rules! command_ids {
    ($($constant:ident = $value:literal, $name:literal;)+) => {
        impl CommandId {
            $(#[doc = concat!("`", $name, "`")] pub const $constant: Self = Self($value);)+

            /// The specification's name, such as `submit_sm`, of a known command.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$constant => Some($name),)+
                    Self(_) => None,
                }
            }
        }
    };
}

/// Which operation a PDU is, and whether it asks or answers; any value survives (spec v5.0 §4.7.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u32);

command_ids! {
    BIND_RECEIVER = 0x0000_0001, "bind_receiver";
    BIND_TRANSMITTER = 0x0000_0002, "bind_transmitter";
    QUERY_SM = 0x0000_0003, "query_sm";
    SUBMIT_SM = 0x0000_0004, "submit_sm";
    DELIVER_SM = 0x0000_0005, "deliver_sm";
    UNBIND = 0x0000_0006, "unbind";
    REPLACE_SM = 0x0000_0007, "replace_sm";
    CANCEL_SM = 0x0000_0008, "cancel_sm";
    BIND_TRANSCEIVER = 0x0000_0009, "bind_transceiver";
    OUTBIND = 0x0000_000B, "outbind";
    ENQUIRE_LINK = 0x0000_0015, "enquire_link";
    SUBMIT_MULTI = 0x0000_0021, "submit_multi";
    ALERT_NOTIFICATION = 0x0000_0102, "alert_notification";
    DATA_SM = 0x0000_0103, "data_sm";
    BROADCAST_SM = 0x0000_0111, "broadcast_sm";
    QUERY_BROADCAST_SM = 0x0000_0112, "query_broadcast_sm";
    CANCEL_BROADCAST_SM = 0x0000_0113, "cancel_broadcast_sm";
    GENERIC_NACK = 0x8000_0000, "generic_nack";
    BIND_RECEIVER_RESP = 0x8000_0001, "bind_receiver_resp";
    BIND_TRANSMITTER_RESP = 0x8000_0002, "bind_transmitter_resp";
    QUERY_SM_RESP = 0x8000_0003, "query_sm_resp";
    SUBMIT_SM_RESP = 0x8000_0004, "submit_sm_resp";
    DELIVER_SM_RESP = 0x8000_0005, "deliver_sm_resp";
    UNBIND_RESP = 0x8000_0006, "unbind_resp";
    REPLACE_SM_RESP = 0x8000_0007, "replace_sm_resp";
    CANCEL_SM_RESP = 0x8000_0008, "cancel_sm_resp";
    BIND_TRANSCEIVER_RESP = 0x8000_0009, "bind_transceiver_resp";
    ENQUIRE_LINK_RESP = 0x8000_0015, "enquire_link_resp";
    SUBMIT_MULTI_RESP = 0x8000_0021, "submit_multi_resp";
    DATA_SM_RESP = 0x8000_0103, "data_sm_resp";
    BROADCAST_SM_RESP = 0x8000_0111, "broadcast_sm_resp";
    QUERY_BROADCAST_SM_RESP = 0x8000_0112, "query_broadcast_sm_resp";
    CANCEL_BROADCAST_SM_RESP = 0x8000_0113, "cancel_broadcast_sm_resp";
}

impl CommandId {
    const RESPONSE_BIT: u32 = 0x8000_0000;

    /// Whether this answers a request: bit 31 is set.
    pub const fn is_response(self) -> bool {
        self.0 & Self::RESPONSE_BIT != 0
    }

    /// The command_id that answers this one; a response is its own.
    pub const fn response(self) -> Self {
        Self(self.0 | Self::RESPONSE_BIT)
    }

    /// Whether the specification has a response to this request; alert_notification and outbind have none.
    pub const fn has_response(self) -> bool {
        !self.is_response() && self.response().is_known()
    }

    /// Whether the specification names this command, offered by us or not.
    pub const fn is_known(self) -> bool {
        self.name().is_some()
    }
}

/// Declares the status codes once: name, value and what it says.
macro_rules! command_statuses {
    ($($name:ident = $value:literal, $meaning:literal;)+) => {
        impl CommandStatus {
            $(#[doc = $meaning] pub const $name: Self = Self($value);)+

            /// The specification's name, such as `ESME_RTHROTTLED`, of a known status.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    Self(_) => None,
                }
            }

            /// The status of that name, in the spelling of v5.0.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

/// How a request went; any value survives, those of carriers included (spec v5.0 §4.7.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CommandStatus(pub u32);

command_statuses! {
    ESME_ROK = 0x0000_0000, "Success.";
    ESME_RINVMSGLEN = 0x0000_0001, "Length of the short_message or message_payload is invalid.";
    ESME_RINVCMDLEN = 0x0000_0002, "command_length does not suit the PDU.";
    ESME_RINVCMDID = 0x0000_0003, "Unknown or unsupported command_id.";
    ESME_RINVBNDSTS = 0x0000_0004, "Not allowed in this session state.";
    ESME_RALYBND = 0x0000_0005, "The session is bound already.";
    ESME_RINVPRTFLG = 0x0000_0006, "Invalid priority_flag.";
    ESME_RINVREGDLVFLG = 0x0000_0007, "Invalid or refused registered_delivery.";
    ESME_RSYSERR = 0x0000_0008, "The MC is partly or fully unavailable; try again later.";
    ESME_RINVSRCADR = 0x0000_000A, "Invalid source address.";
    ESME_RINVDSTADR = 0x0000_000B, "Invalid destination address.";
    ESME_RINVMSGID = 0x0000_000C, "Unknown or malformed message_id.";
    ESME_RBINDFAIL = 0x0000_000D, "Bind failed: credentials, limits or provisioning.";
    ESME_RINVPASWD = 0x0000_000E, "Invalid password field.";
    ESME_RINVSYSID = 0x0000_000F, "Invalid system_id field.";
    ESME_RCANCELFAIL = 0x0000_0011, "cancel_sm failed.";
    ESME_RREPLACEFAIL = 0x0000_0013, "replace_sm failed.";
    ESME_RMSGQFUL = 0x0000_0014, "A message queue is full.";
    ESME_RINVSERTYP = 0x0000_0015, "Invalid service_type.";
    ESME_RINVNUMDESTS = 0x0000_0033, "Invalid number_of_dests.";
    ESME_RINVDLNAME = 0x0000_0034, "Invalid distribution list name.";
    ESME_RINVDESTFLAG = 0x0000_0040, "Invalid dest_flag.";
    ESME_RINVSUBREP = 0x0000_0042, "Submit with replace is not possible.";
    ESME_RINVESMCLASS = 0x0000_0043, "Invalid esm_class.";
    ESME_RCNTSUBDL = 0x0000_0044, "Cannot submit to a distribution list.";
    ESME_RSUBMITFAIL = 0x0000_0045, "submit_sm, data_sm or submit_multi failed.";
    ESME_RINVSRCTON = 0x0000_0048, "Invalid source TON.";
    ESME_RINVSRCNPI = 0x0000_0049, "Invalid source NPI.";
    ESME_RINVDSTTON = 0x0000_0050, "Invalid destination TON.";
    ESME_RINVDSTNPI = 0x0000_0051, "Invalid destination NPI.";
    ESME_RINVSYSTYP = 0x0000_0053, "Invalid system_type field.";
    ESME_RINVREPFLAG = 0x0000_0054, "Invalid replace_if_present_flag.";
    ESME_RINVNUMMSGS = 0x0000_0055, "Invalid number of messages.";
    ESME_RTHROTTLED = 0x0000_0058, "Rate limit exceeded; try again later.";
    ESME_RINVSCHED = 0x0000_0061, "Invalid schedule_delivery_time.";
    ESME_RINVEXPIRY = 0x0000_0062, "Invalid validity_period.";
    ESME_RINVDFTMSGID = 0x0000_0063, "Invalid sm_default_msg_id.";
    ESME_RX_T_APPN = 0x0000_0064, "From an ESME: a temporary error, retry this message.";
    ESME_RX_P_APPN = 0x0000_0065, "From an ESME: a permanent error for this destination.";
    ESME_RX_R_APPN = 0x0000_0066, "From an ESME: this message is rejected.";
    ESME_RQUERYFAIL = 0x0000_0067, "query_sm failed.";
    ESME_RINVTLVSTREAM = 0x0000_00C0, "The TLV area is corrupt (v3.4 ESME_RINVOPTPARSTREAM).";
    ESME_RTLVNOTALLWD = 0x0000_00C1, "TLV not allowed (v3.4 ESME_ROPTPARNOTALLWD).";
    ESME_RINVTLVLEN = 0x0000_00C2, "Invalid TLV length (v3.4 ESME_RINVPARLEN).";
    ESME_RMISSINGTLV = 0x0000_00C3, "A required TLV is missing (v3.4 ESME_RMISSINGOPTPARAM).";
    ESME_RINVTLVVAL = 0x0000_00C4, "Invalid TLV value (v3.4 ESME_RINVOPTPARAMVAL).";
    ESME_RDELIVERYFAILURE = 0x0000_00FE, "Delivery failed, in transaction mode.";
    ESME_RUNKNOWNERR = 0x0000_00FF, "Unknown error.";
    ESME_RSERTYPUNAUTH = 0x0000_0100, "v5.0: service_type not authorised.";
    ESME_RPROHIBITED = 0x0000_0101, "v5.0: the ESME may not use this operation.";
    ESME_RSERTYPUNAVAIL = 0x0000_0102, "v5.0: service_type unavailable.";
    ESME_RSERTYPDENIED = 0x0000_0103, "v5.0: service_type denied.";
    ESME_RINVDCS = 0x0000_0104, "v5.0: invalid data_coding.";
    ESME_RINVSRCADDRSUBUNIT = 0x0000_0105, "v5.0: invalid source_addr_subunit.";
    ESME_RINVDSTADDRSUBUNIT = 0x0000_0106, "v5.0: invalid dest_addr_subunit.";
    ESME_RINVBCASTFREQINT = 0x0000_0107, "v5.0: invalid broadcast_frequency_interval.";
    ESME_RINVBCASTALIAS_NAME = 0x0000_0108, "v5.0: invalid broadcast alias name.";
    ESME_RINVBCASTAREAFMT = 0x0000_0109, "v5.0: invalid broadcast area format.";
    ESME_RINVNUMBCAST_AREAS = 0x0000_010A, "v5.0: invalid number of broadcast areas.";
    ESME_RINVBCASTCNTTYPE = 0x0000_010B, "v5.0: invalid broadcast_content_type.";
    ESME_RINVBCASTMSGCLASS = 0x0000_010C, "v5.0: invalid broadcast_message_class.";
    ESME_RBCASTFAIL = 0x0000_010D, "v5.0: broadcast_sm failed.";
    ESME_RBCASTQUERYFAIL = 0x0000_010E, "v5.0: query_broadcast_sm failed.";
    ESME_RBCASTCANCELFAIL = 0x0000_010F, "v5.0: cancel_broadcast_sm failed.";
    ESME_RINVBCAST_REP = 0x0000_0110, "v5.0: invalid broadcast_rep_num.";
    ESME_RINVBCASTSRVGRP = 0x0000_0111, "v5.0: invalid broadcast_service_group.";
    ESME_RINVBCASTCHANIND = 0x0000_0112, "v5.0: invalid broadcast_channel_indicator.";
}

impl CommandStatus {
    /// This status as a session of `version` can understand it; `command` is the request or its response.
    ///
    /// v3.4 reserved what v5.0 put at 0x100 and above. The vendors' range is left as it is.
    pub const fn toward(self, version: InterfaceVersion, command: CommandId) -> Self {
        if version.has_v5() || !matches!(self.0, 0x100..=0x3FF) {
            return self;
        }
        match self {
            Self::ESME_RSERTYPUNAUTH | Self::ESME_RSERTYPUNAVAIL | Self::ESME_RSERTYPDENIED => {
                Self::ESME_RINVSERTYP
            }
            Self::ESME_RINVDCS => Self::ESME_RSUBMITFAIL,
            Self::ESME_RPROHIBITED => match command.response() {
                CommandId::SUBMIT_SM_RESP
                | CommandId::SUBMIT_MULTI_RESP
                | CommandId::DATA_SM_RESP
                | CommandId::BROADCAST_SM_RESP => Self::ESME_RSUBMITFAIL,
                CommandId::QUERY_SM_RESP => Self::ESME_RQUERYFAIL,
                CommandId::CANCEL_SM_RESP => Self::ESME_RCANCELFAIL,
                CommandId::REPLACE_SM_RESP => Self::ESME_RREPLACEFAIL,
                _ => Self::ESME_RSYSERR,
            },
            _ => Self::ESME_RUNKNOWNERR,
        }
    }
}

/// The protocol version a peer speaks: the major number in the upper half of the octet, the minor below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceVersion(pub u8);

impl InterfaceVersion {
    /// v3.3 and everything older.
    pub const V3_3: Self = Self(0x33);
    /// v3.4, the first with TLVs.
    pub const V3_4: Self = Self(0x34);
    /// v5.0, the newest.
    pub const V5_0: Self = Self(0x50);

    /// The version of a session whose ESME asked for this one. No value is a reason to refuse a bind.
    pub const fn negotiate(self) -> Self {
        match self.0 {
            0x00..=0x33 => Self::V3_3,
            0x34..=0x4F => Self::V3_4,
            0x50..=0xFF => Self::V5_0,
        }
    }

    /// Whether a TLV may be sent to such a peer.
    pub const fn has_tlvs(self) -> bool {
        self.0 >= Self::V3_4.0
    }

    /// Whether the commands, TLVs and statuses of v5.0 may be sent to such a peer.
    pub const fn has_v5(self) -> bool {
        self.0 >= Self::V5_0.0
    }
}

/// The name, or the number in hex where there is none.
fn fmt_named(name: Option<&str>, number: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match name {
        Some(name) => f.pad(name),
        None => write!(f, "{number:#010x}"),
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_named(self.name(), self.0, f)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CommandStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_named(self.name(), self.0, f)
    }
}

impl fmt::Debug for CommandStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InterfaceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 4, self.0 & 0x0F)
    }
}

impl fmt::Debug for InterfaceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_its_request_with_bit_31() {
        assert_eq!(CommandId::SUBMIT_SM.response(), CommandId::SUBMIT_SM_RESP);
        assert!(CommandId::SUBMIT_SM_RESP.is_response() && !CommandId::SUBMIT_SM.is_response());
        assert_eq!(CommandId::SUBMIT_SM_RESP.response(), CommandId::SUBMIT_SM_RESP);
        assert!(CommandId::SUBMIT_SM.has_response() && !CommandId::SUBMIT_SM_RESP.has_response());
        assert!(!CommandId::OUTBIND.has_response() && !CommandId::ALERT_NOTIFICATION.has_response());
    }

    #[test]
    fn names_and_numbers_print() {
        assert_eq!(CommandId::SUBMIT_MULTI.to_string(), "submit_multi");
        assert_eq!(CommandId(0x0001_0200).to_string(), "0x00010200");
        assert_eq!(CommandStatus::ESME_RTHROTTLED.to_string(), "ESME_RTHROTTLED");
        assert_eq!(CommandStatus(0x400).to_string(), "0x00000400");
        assert_eq!(CommandStatus::from_name("ESME_RINVDCS"), Some(CommandStatus::ESME_RINVDCS));
        assert_eq!(CommandStatus::from_name("ESME_RSOMETHING"), None);
        assert_eq!(InterfaceVersion::V3_4.to_string(), "3.4");
    }

    #[test]
    fn versions_negotiate_down_to_what_both_know() {
        for (asked, session) in [
            (0x00, InterfaceVersion::V3_3),
            (0x33, InterfaceVersion::V3_3),
            (0x34, InterfaceVersion::V3_4),
            (0x4F, InterfaceVersion::V3_4),
            (0x50, InterfaceVersion::V5_0),
            (0xFF, InterfaceVersion::V5_0),
        ] {
            assert_eq!(InterfaceVersion(asked).negotiate(), session, "{asked:#x}");
        }
    }

    #[test]
    fn v5_statuses_are_mapped_for_older_sessions() {
        for (status, command, mapped) in [
            (CommandStatus::ESME_RSERTYPDENIED, CommandId::SUBMIT_SM, CommandStatus::ESME_RINVSERTYP),
            (CommandStatus::ESME_RPROHIBITED, CommandId::SUBMIT_SM, CommandStatus::ESME_RSUBMITFAIL),
            (CommandStatus::ESME_RPROHIBITED, CommandId::CANCEL_SM_RESP, CommandStatus::ESME_RCANCELFAIL),
            (CommandStatus::ESME_RPROHIBITED, CommandId::REPLACE_SM, CommandStatus::ESME_RREPLACEFAIL),
            (CommandStatus::ESME_RPROHIBITED, CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL),
            (CommandStatus::ESME_RPROHIBITED, CommandId::ENQUIRE_LINK, CommandStatus::ESME_RSYSERR),
            (CommandStatus::ESME_RINVDCS, CommandId::SUBMIT_SM, CommandStatus::ESME_RSUBMITFAIL),
            (CommandStatus::ESME_RBCASTFAIL, CommandId::BROADCAST_SM, CommandStatus::ESME_RUNKNOWNERR),
            (CommandStatus::ESME_RTHROTTLED, CommandId::SUBMIT_SM, CommandStatus::ESME_RTHROTTLED),
            (CommandStatus(0x412), CommandId::SUBMIT_SM, CommandStatus(0x412)),
        ] {
            assert_eq!(status.toward(InterfaceVersion::V3_4, command), mapped, "{status} {command}");
            assert_eq!(status.toward(InterfaceVersion::V5_0, command), status);
        }
    }
}
