//! What query_sm tells.

use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{CommandStatus, Pdu, QuerySmResp};
use smppd::time::smpp;

use super::records::End;
use super::{Connection, Fact, Life, Oracle};

/// A query_sm.
#[derive(Clone, Debug)]
pub(super) struct Question {
    account: usize,
    id: MessageId,
    source: Box<[u8]>,
    /// When a core took it in, and of which message it was then.
    taken_in: Option<(u64, Life)>,
}

impl Oracle {
    /// A new question after a message; its number.
    pub fn querying(&mut self, account: usize, id: MessageId, source: &[u8]) -> u32 {
        self.questions.push(Question { account, id, source: source.into(), taken_in: None });
        (self.questions.len() - 1) as u32
    }

    pub(super) fn question_taken_in(&mut self, number: u32) {
        let Some(id) = self.questions.get(number as usize).map(|question| question.id) else { return };
        let taken_in = Some((self.now, self.life(id)));
        if let Some(question) = self.questions.get_mut(number as usize) {
            question.taken_in = taken_in;
        }
    }

    pub(super) fn queried(
        &mut self,
        connection: Connection,
        number: u32,
        status: CommandStatus,
        pdu: &Pdu<'_>,
    ) {
        let Some(question) = self.questions.get(number as usize).cloned() else { return };
        let Some((since, life)) = question.taken_in else { return };
        let id = question.id;
        // Another message has come by the name meanwhile.
        if life != self.life(id) {
            return;
        }
        let name = self.books[question.account].name.as_bytes();
        let Some(fact) = self.facts.get(&life).cloned() else { return };
        let is_theirs = *fact.account == *name && fact.source == question.source;
        match pdu {
            Pdu::QuerySmResp(body) if status == CommandStatus::ESME_ROK => {
                self.require(is_theirs, || format!("query of {life:?}, which is another's, was answered"));
                let is_v5 = self.lines.get(&connection).is_some_and(|line| line.version.has_v5());
                if MessageState(body.message_state).is_final() {
                    self.told_the_end(life, body);
                } else {
                    self.told_no_end(life, &fact, since, body, is_v5);
                }
            }
            _ if status == CommandStatus::ESME_RINVMSGID => {
                self.require(!is_theirs || fact.noted >= since || self.may_be_anothers(id), || {
                    format!("query of {life:?} was answered with {status}")
                });
            }
            _ => {
                let may_fail =
                    status == CommandStatus::ESME_RQUERYFAIL || status == CommandStatus::ESME_RSYSERR;
                let has_failed = self.could_not_ask(Some(id), since);
                self.require(may_fail && has_failed || self.is_leaving(connection), || {
                    format!("query of {life:?} was answered with {status}")
                });
            }
        }
    }

    /// Whether a partition that failed may have given a name away again: it will never be on record.
    fn may_be_anothers(&self, id: MessageId) -> bool {
        id.is_short() && self.failed.contains_key(&id.partition())
    }

    /// The messages that a name stands for: all of a submit_multi, or one. One that was superseded may have left it.
    fn members(&self, life: Life) -> Vec<&Fact> {
        let first = self.facts.get(&life).filter(|fact| fact.batch_offset == 0);
        let count = first.map_or(1, |fact| fact.batch_count);
        (0..count)
            .filter_map(|offset| self.facts.get(&Life { id: life.id.in_batch(offset), ..life }))
            .collect()
    }

    fn told_the_end(&mut self, life: Life, body: &QuerySmResp<'_>) {
        let told = (body.message_state, body.error_code, body.final_date.to_vec());
        let members = self.members(life);
        let of_all: Option<Vec<End>> = members.iter().map(|fact| fact.end).collect();
        let of_batch: Option<Vec<End>> = members
            .iter()
            .filter(|fact| !fact.is_own || fact.batch_offset == 0)
            .map(|fact| fact.end)
            .collect();
        let right: Vec<(u8, u8, Vec<u8>)> =
            [of_all, of_batch].iter().flatten().flat_map(|ends| answers(ends)).collect();
        self.require(right.contains(&told), || {
            format!("query of {life:?} tells {told:?}, on record it is {right:?}")
        });
    }

    fn told_no_end(&mut self, life: Life, fact: &Fact, since: u64, body: &QuerySmResp<'_>, is_v5: bool) {
        let state = MessageState(body.message_state);
        if self.may_be_anothers(life.id) {
            return;
        }
        let was_over = self.members(life).iter().all(|fact| fact.end.is_some_and(|end| end.noted < since));
        self.require(!was_over, || format!("query of {life:?} tells {state:?}, it is over: {fact:?}"));
        let is_known = state == MessageState::ENROUTE || state == MessageState::SCHEDULED && is_v5;
        self.require(is_known && body.final_date.is_empty(), || {
            format!("query of {life:?} tells {state:?} at {:?}", body.final_date)
        });
        let is_scheduled = fact.waits()
            && fact.attempts == 0
            && fact.noted < since
            && fact.changed < since
            // It may have been replaced after the clock was put back.
            && fact.times.deliver_at > fact.accepted_at
            // Its time may have come before the clock was put back: then it waits for a carrier.
            && fact.times.deliver_at > self.wall.latest_since(fact.begun, self.now);
        self.require(!is_v5 || !is_scheduled || state == MessageState::SCHEDULED, || {
            format!("query of {life:?} tells {state:?}, it waits for its time: {fact:?}")
        });
    }
}

/// What may be told of messages that are over: DELIVERED if all were, else what became of one that was not; the error; the
/// date of the last end.
fn answers(ends: &[End]) -> Vec<(u8, u8, Vec<u8>)> {
    let date = ends.iter().map(|end| end.at).max().map(|at| smpp::absolute(at).to_vec()).unwrap_or_default();
    let is_bad = |end: &&End| end.state != MessageState::DELIVERED;
    let bad: Vec<&End> = ends.iter().filter(is_bad).collect();
    let worst = if bad.is_empty() { ends.iter().collect() } else { bad };
    let error = |end: &End| u8::try_from(end.error).unwrap_or(u8::MAX);
    worst.into_iter().map(|end| (end.state.0, error(end), date.clone())).collect()
}
