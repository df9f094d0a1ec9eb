//! What query_sm tells.

use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{CommandStatus, Pdu};

use super::Oracle;

impl Oracle {
    pub(super) fn queried(&mut self, id: MessageId, status: CommandStatus, pdu: &Pdu<'_>) {
        match pdu {
            Pdu::QuerySmResp(body) if status == CommandStatus::ESME_ROK => {
                let state = MessageState(body.message_state);
                if state.is_final() {
                    let members = self.members(id);
                    let all_over = members.iter().all(Option::is_some);
                    let agrees = members.contains(&Some(state));
                    self.require(all_over && agrees, || {
                        format!("query of {id} tells {state:?}, on record it is {members:?}")
                    });
                }
            }
            _ => {
                let is_known = status != CommandStatus::ESME_RINVMSGID;
                self.require(is_known, || format!("query of {id} was answered with {status}"));
            }
        }
    }

    pub(super) fn members(&self, id: MessageId) -> Vec<Option<MessageState>> {
        // The first stands for all of a submit_multi, any other for itself.
        let first = self.facts.get(&id).filter(|fact| fact.batch_offset == 0);
        let count = first.map_or(1, |fact| fact.batch_count);
        (0..count).map(|offset| self.facts.get(&id.in_batch(offset)).and_then(|fact| fact.ended)).collect()
    }
}
