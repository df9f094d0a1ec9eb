//! Answers: to the core of the session that asked, and there onto the wire.

use crate::message::MessageId;
use crate::pdu::receipt::MessageState;
use crate::pdu::{
    CommandId, CommandStatus, MessageIdResp, Pdu, QuerySmResp, SubmitMultiResp, Tlvs, UnsuccessSmes,
};
use crate::shard::mesh::{Answer, MeshMessage, ReplyTo};
use crate::shard::{Lookup, Shard};
use crate::time::{Now, smpp};

/// What an operation that changes a message is told when it comes too late; `None` for one that only asks.
pub(super) fn too_late(command_id: CommandId) -> Option<CommandStatus> {
    match command_id {
        CommandId::CANCEL_SM => Some(CommandStatus::ESME_RCANCELFAIL),
        CommandId::REPLACE_SM => Some(CommandStatus::ESME_RREPLACEFAIL),
        _ => None,
    }
}

impl Shard {
    /// The state at rest cannot be asked now.
    pub(super) fn lookup_failed(&mut self, lookup: &Lookup) {
        let status = too_late(lookup.reply_to.command_id).unwrap_or(CommandStatus::ESME_RQUERYFAIL);
        self.answer(lookup.reply_to, Answer::Status(status));
    }

    /// Sends an answer to wherever its session is.
    pub(super) fn answer(&mut self, reply_to: ReplyTo, answer: Answer) {
        if reply_to.session.shard == self.settings.number && reply_to.gathering == 0 {
            self.write_answer(reply_to, &answer);
        } else {
            self.send(reply_to.session.shard, MeshMessage::Answer { reply_to, answer });
        }
    }

    pub(super) fn handle_answer(&mut self, now: Now, reply_to: ReplyTo, answer: &Answer) {
        if reply_to.gathering != 0 {
            self.gathered(now, reply_to, answer);
        } else {
            self.write_answer(reply_to, answer);
        }
    }

    /// Tells the sender of a message its id: what is done more often than anything else. The sender's session is one of
    /// ours, since a message belongs to the core that accepts it.
    pub(super) fn answer_submitted(&mut self, reply_to: ReplyTo, id: MessageId) {
        let Some(entry) = self.sessions.get_mut(&reply_to.session.connection) else { return };
        let text = id.text();
        let body = MessageIdResp { message_id: text.as_octets(), tlvs: Tlvs::EMPTY };
        let pdu = match reply_to.command_id {
            CommandId::DATA_SM => Pdu::DataSmResp(body),
            _ => Pdu::SubmitSmResp(body),
        };
        let written = entry.session.respond(&pdu, reply_to.sequence_number);
        debug_assert!(written.is_ok(), "an id fits its field");
        if entry.note(self.now, &mut self.outputs.dirty, &mut self.session_timers) {
            self.release(reply_to.session.connection);
        }
    }

    /// Writes the response of a session of ours.
    pub(super) fn write_answer(&mut self, reply_to: ReplyTo, answer: &Answer) {
        let Some(mut entry) = self.sessions.remove(&reply_to.session.connection) else { return };
        let ReplyTo { command_id, sequence_number, .. } = reply_to;
        let written = match *answer {
            Answer::Submitted(id) => {
                let text = id.text();
                let body = MessageIdResp { message_id: text.as_octets(), tlvs: Tlvs::EMPTY };
                let pdu = match command_id {
                    CommandId::DATA_SM => Pdu::DataSmResp(body),
                    _ => Pdu::SubmitSmResp(body),
                };
                entry.session.respond(&pdu, sequence_number)
            }
            Answer::SubmittedMulti { id, no_unsuccess, ref unsuccess_sme } => {
                let unsuccess_sme =
                    UnsuccessSmes::new(no_unsuccess, unsuccess_sme).unwrap_or(UnsuccessSmes::EMPTY);
                let text = id.text();
                let body = SubmitMultiResp { message_id: text.as_octets(), unsuccess_sme, tlvs: Tlvs::EMPTY };
                entry.session.respond(&Pdu::SubmitMultiResp(body), sequence_number)
            }
            Answer::State { id, state, error, final_date } => {
                let text = id.text();
                let final_date = final_date.map(smpp::absolute);
                let v5_only = state == MessageState::SCHEDULED || state == MessageState::SKIPPED;
                let state = match state {
                    _ if !v5_only || entry.session.version().has_v5() => state,
                    MessageState::SCHEDULED => MessageState::ENROUTE,
                    _ => MessageState::UNDELIVERABLE,
                };
                let body = QuerySmResp {
                    message_id: text.as_octets(),
                    final_date: final_date.as_ref().map_or(&[], |date| date.as_slice()),
                    message_state: state.0,
                    error_code: u8::try_from(error).unwrap_or(u8::MAX),
                    tlvs: Tlvs::EMPTY,
                };
                entry.session.respond(&Pdu::QuerySmResp(body), sequence_number)
            }
            Answer::Status(told) => {
                let told = self.told(&entry, command_id, told);
                entry.session.respond_header(command_id, told, sequence_number);
                Ok(())
            }
            // Parts of a gathering never come here.
            Answer::Cancelled(_) | Answer::Newest(_) => Ok(()),
        };
        if written.is_err() {
            entry.session.respond_header(command_id, CommandStatus::ESME_RSYSERR, sequence_number);
        }
        self.put_back(entry);
    }
}
