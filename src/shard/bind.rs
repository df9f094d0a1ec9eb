//! Binding: verify off the core, count at the account's home, answer. Until then nothing else is taken from the session.

use crate::account::AccountIndex;
use crate::pdu::{Bind, BindResp, CommandId, CommandStatus, Header, InterfaceVersion, Pdu, Tag, TlvBuf};
use crate::session::BindMode;
use crate::shard::mesh::{ConnectionId, MeshMessage, SessionAddress};
use crate::shard::{Entry, Event, Shard, VerifyRequest};

/// A bind that is being decided.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    mode: BindMode,
    command_id: CommandId,
    sequence_number: u32,
    version: InterfaceVersion,
    system_id: Box<[u8]>,
}

impl Shard {
    /// A bind request: its password goes to be verified.
    pub(super) fn bind(&mut self, entry: &mut Entry, header: &Header, bind: &Bind<'_>) {
        let Some(mode) = BindMode::of(header.command_id) else { return };
        let account = self.accounts.find(bind.system_id);
        entry.account = account.map(|account| account.index);
        entry.binding = Some(Binding {
            mode,
            command_id: header.command_id,
            sequence_number: header.sequence_number,
            version: bind.interface_version,
            system_id: bind.system_id.into(),
        });
        if self.is_draining {
            self.refuse_bind(entry, CommandStatus::ESME_RBINDFAIL, "the server is stopping");
            return;
        }
        self.outputs.verify.push(VerifyRequest {
            connection: entry.connection,
            system_id: bind.system_id.into(),
            password: bind.password.into(),
            password_hash: account.map(|account| account.settings.password_hash.as_str().into()),
        });
    }

    /// The password is right, or not.
    pub(super) fn verified(&mut self, connection: ConnectionId, is_right: bool) {
        let Some(mut entry) = self.sessions.remove(&connection) else { return };
        let account = entry.account.filter(|index| is_right && !self.accounts.get(*index).removed);
        match (account, &entry.binding) {
            (_, None) => {}
            (None, Some(_)) => {
                self.refuse_bind(&mut entry, CommandStatus::ESME_RBINDFAIL, "wrong system_id or password");
            }
            (Some(_), Some(_)) if self.is_draining => {
                self.refuse_bind(&mut entry, CommandStatus::ESME_RBINDFAIL, "the server is stopping");
            }
            (Some(account), Some(binding)) => {
                let window = match (binding.mode, self.accounts.get(account).settings.deliver_window) {
                    (BindMode::Transmitter, _) => 0,
                    // Its setting is a million at most.
                    (BindMode::Receiver | BindMode::Transceiver, 0) => {
                        self.settings.session.window_out_max as u32
                    }
                    (BindMode::Receiver | BindMode::Transceiver, own) => own,
                };
                self.admitted.insert(connection, account);
                let session = self.address(connection);
                let home = self.home_of(self.accounts.get(account));
                self.send(home, MeshMessage::Admit { account, session, window });
            }
        }
        self.put_back(entry);
    }

    /// At the home: may one more session bind?
    pub(super) fn admit(&mut self, account: AccountIndex, session: SessionAddress, window: u32) {
        let settings = &self.accounts.get(account).settings;
        let admitted = self.homes.entry(account).or_default().admit(session, window, settings.bind_limit);
        let outcome = if admitted { Ok(()) } else { Err(settings.bind_limit_status.0) };
        self.send(session.shard, MeshMessage::Admitted { session, outcome });
    }

    /// The home has decided.
    pub(super) fn admitted(&mut self, session: SessionAddress, outcome: Result<(), CommandStatus>) {
        // A connection that is gone has told the home so already.
        let Some(mut entry) = self.sessions.remove(&session.connection) else { return };
        match (outcome, entry.account, entry.binding.clone()) {
            (Ok(()), Some(account), Some(binding)) => self.accept_bind(&mut entry, account, &binding),
            (Err(status), _, Some(_)) => {
                self.admitted.remove(&session.connection);
                self.refuse_bind(&mut entry, status, "over the bind limit");
            }
            (_, None, _) | (_, _, None) => {}
        }
        self.put_back(entry);
    }

    fn accept_bind(&mut self, entry: &mut Entry, account: AccountIndex, binding: &Binding) {
        let version = binding.version.negotiate();
        let mut tlvs = TlvBuf::default();
        if version.has_tlvs() && tlvs.put(Tag::SC_INTERFACE_VERSION, &[InterfaceVersion::V5_0.0]).is_err() {
            unreachable!("one octet fits a TLV");
        }
        let body = BindResp { system_id: &self.settings.system_id, tlvs: tlvs.as_tlvs() };
        let response = match binding.mode {
            BindMode::Transmitter => Pdu::BindTransmitterResp(body),
            BindMode::Receiver => Pdu::BindReceiverResp(body),
            BindMode::Transceiver => Pdu::BindTransceiverResp(body),
        };
        entry.binding = None;
        let accepted =
            entry.session.accept_bind(binding.mode, binding.version, &response, binding.sequence_number);
        if accepted.is_err() {
            unreachable!("our own system_id was checked when it was configured");
        }
        self.counters.binds += 1;
        self.outputs.events.push(Event::Bound {
            system_id: String::from_utf8_lossy(&binding.system_id).into(),
            mode: binding.mode,
            version: binding.version,
            peer: entry.peer.clone(),
        });
        let session = self.address(entry.connection);
        let home = self.home_of(self.accounts.get(account));
        self.send(home, MeshMessage::Ready { account, session });
        if entry.has_closed {
            // While the home decided.
            self.release(entry.connection);
        }
    }

    /// The password could not be verified.
    pub(super) fn unverified(&mut self, connection: ConnectionId) {
        let Some(mut entry) = self.sessions.remove(&connection) else { return };
        if let Some(binding) = entry.binding.take() {
            let status = CommandStatus::ESME_RSYSERR;
            entry.session.respond_header(binding.command_id, status, binding.sequence_number);
            self.note_refused(&mut entry, &binding, status, "too many binds at once");
        }
        self.put_back(entry);
    }

    fn refuse_bind(&mut self, entry: &mut Entry, status: CommandStatus, reason: &'static str) {
        let Some(binding) = entry.binding.take() else { return };
        // The refusal of a name is in nobody's words: it must not tell whether the account exists.
        entry.session.refuse_bind(binding.command_id, status, binding.sequence_number);
        self.note_refused(entry, &binding, status, reason);
    }

    fn note_refused(
        &mut self,
        entry: &mut Entry,
        binding: &Binding,
        status: CommandStatus,
        reason: &'static str,
    ) {
        entry.account = None;
        self.counters.binds_refused += 1;
        self.outputs.events.push(Event::BindRefused {
            system_id: String::from_utf8_lossy(&binding.system_id).into(),
            status,
            reason,
            peer: entry.peer.clone(),
        });
    }

    /// The session binds no more: its place at the home is free, once.
    pub(super) fn release(&mut self, connection: ConnectionId) {
        self.release_for(connection, false);
    }

    /// Whether the session was counted until now.
    fn release_for(&mut self, connection: ConnectionId, unbinds: bool) -> bool {
        let Some(account) = self.admitted.remove(&connection) else { return false };
        let session = self.address(connection);
        let home = self.home_of(self.accounts.get(account));
        self.send(home, MeshMessage::Released { account, session, unbinds });
        true
    }

    /// The peer unbinds. Whoever has the answer may bind again at once, on another core perhaps, and must find its place free.
    pub(super) fn unbound(&mut self, entry: &mut Entry) {
        if !self.release_for(entry.connection, true) {
            entry.session.let_go();
        }
    }

    /// The home counts the session no more: its unbind is answered.
    pub(super) fn let_go(&mut self, session: SessionAddress) {
        if let Some(mut entry) = self.sessions.remove(&session.connection) {
            entry.session.let_go();
            self.put_back(entry);
        }
    }

    /// At the home: the session can be sent to.
    pub(super) fn ready(&mut self, account: AccountIndex, session: SessionAddress) {
        if self.homes.get_mut(&account).is_some_and(|home| home.ready(session)) {
            self.grant(account);
            // What is here already found no room with the others.
            self.to_dispatch.insert(account);
        }
    }

    /// At the home: the session is gone.
    pub(super) fn released(&mut self, account: AccountIndex, session: SessionAddress, unbinds: bool) {
        if unbinds {
            self.send(session.shard, MeshMessage::Unbound { session });
        }
        let Some(home) = self.homes.get_mut(&account) else { return };
        let changes = home.release(session);
        if changes {
            self.grant(account);
        }
        self.to_dispatch.insert(account);
    }

    /// At the home: tells every owner how many parcels it may have here.
    fn grant(&mut self, account: AccountIndex) {
        let shards = usize::from(self.settings.shards);
        let room = self.homes.get(&account).map_or(0, |home| home.room(shards));
        for shard in self.all_shards() {
            self.send(shard, MeshMessage::Grant { account, room });
        }
    }
}
