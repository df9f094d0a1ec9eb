//! Both ends of the lines between customers and cores.

use super::*;

impl World {
    pub(super) fn accepted(&mut self, connection: Connection) {
        let now = self.now();
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.esme_open {
            line.server_open = false;
            return self.network.forget_closed(connection);
        }
        line.is_accepted = true;
        let core = line.core;
        self.oracle.borrow_mut().seated(connection, self.cores[core].partitions[0]);
        self.cores[core].shard.connected(now, ConnectionId(connection), "simulated");
        self.carry_out(core);
        self.look_after_server(connection, 0);
    }

    /// A password was looked at. One that is right may send the session to another core.
    pub(super) fn verified(&mut self, core: usize, connection: Connection, is_right: Option<bool>) {
        let (now, id) = (self.now(), ConnectionId(connection));
        let moves = is_right == Some(true) && self.cores.len() > 1 && self.random.chance(40);
        let shard = &mut self.cores[core].shard;
        if moves && let Some(session) = shard.depart(id) {
            self.moving.insert(connection, session);
            let target = (core + 1 + self.random.place(self.cores.len() - 1)) % self.cores.len();
            let delay = self.random.delay(5, self.mesh_micros) * MICRO;
            if let Some(line) = self.network.get_mut(connection) {
                (line.core, line.is_moving) = (target, true);
            }
            return self.at(delay, Event::Moved(connection));
        }
        match is_right {
            Some(is_right) => shard.handle_verified(now, id, is_right),
            None => shard.handle_unverified(now, id),
        }
        self.carry_out(core);
    }

    /// A session arrives at the core that it was sent to.
    pub(super) fn moved(&mut self, connection: Connection) {
        let now = self.now();
        let Some(session) = self.moving.remove(&connection) else { return };
        let Some(line) = self.network.get_mut(connection) else { return };
        line.is_moving = false;
        let core = line.core;
        {
            let mut oracle = self.oracle.borrow_mut();
            oracle.seen.moves += 1;
            oracle.seated(connection, self.cores[core].partitions[0]);
        }
        self.cores[core].shard.arrive(now, session);
        self.carry_out(core);
        self.look_after_server(connection, 0);
    }

    /// Octets will arrive at the server.
    pub(super) fn look_after_server(&mut self, connection: Connection, delay: u64) {
        let Some(line) = self.network.get_mut(connection) else { return };
        if line.is_server_due || !line.server_open || !line.is_accepted {
            return;
        }
        line.is_server_due = true;
        self.at(delay, Event::ToServer(connection));
    }

    pub(super) fn carry_to_server(&mut self, connection: Connection) {
        let Some(line) = self.network.get_mut(connection) else { return };
        line.is_server_due = false;
        if !line.server_open || line.is_moving {
            return;
        }
        let core = line.core;
        if line.paused_since.is_some() || !self.cores[core].shard.wants_octets(ConnectionId(connection)) {
            // Nothing is read. Whoever takes nothing for too long is cut off.
            let is_stuck = line.paused_since.is_some_and(|since| self.nanos >= since + WRITE_TIMEOUT);
            if is_stuck {
                return self.cut_off(connection, CloseReason::PeerClosed);
            }
            self.serve(connection);
            return self.look_after_server(connection, 20 * MILLI);
        }
        let count = match line.to_server.len() {
            0 => 0,
            some if self.random.chance(20) => self.random.place(some) + 1,
            some => some,
        };
        let Some(line) = self.network.get_mut(connection) else { return };
        let arrived: Vec<u8> = line.to_server.drain(..count).collect();
        line.unread.extend(arrived);
        self.give(connection);
        let more = self.network.get_mut(connection).is_some_and(|line| {
            line.server_open && (!line.to_server.is_empty() || line.paused_since.is_some())
        });
        let is_full = !self.cores[core].shard.wants_octets(ConnectionId(connection));
        let has_unread = self.network.get_mut(connection).is_some_and(|line| !line.unread.is_empty());
        if more || is_full && has_unread {
            let delay = self.random.range(10, 3_000) * MICRO;
            self.look_after_server(connection, delay);
        }
    }

    /// Gives the session what it has not used yet.
    pub(super) fn give(&mut self, connection: Connection) {
        let (now, id) = (self.now(), ConnectionId(connection));
        let Some(line) = self.network.get_mut(connection) else { return };
        let core = line.core;
        if line.unread.is_empty() || !self.cores[core].shard.wants_octets(id) {
            return;
        }
        self.note_full(core);
        let Some(line) = self.network.get_mut(connection) else { return };
        let used = self.cores[core].shard.handle_octets(now, id, &line.unread);
        let taken: Vec<u8> = line.unread.drain(..used).collect();
        self.trace.pdus(self.nanos, connection, "E>", &taken);
        self.oracle.borrow_mut().taken_in(connection, &taken);
        self.carry_out(core);
    }

    /// Takes what the session has to say, unless the line is full, and closes it when that was all.
    pub(super) fn serve(&mut self, connection: Connection) {
        let (now, id) = (self.now(), ConnectionId(connection));
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open || !line.is_accepted || line.is_moving {
            return;
        }
        let core = line.core;
        if self.cores[core].shard.close_reason(id).is_some() {
            // Over, whether or not the ESME takes the last words.
            self.oracle.borrow_mut().released(connection);
        }
        let is_full = line.to_esme.len() > LINE_OCTETS_MAX;
        if is_full != line.paused_since.is_some() {
            line.paused_since = is_full.then_some(self.nanos);
            self.trace.note(self.nanos, format_args!("{connection} paused {is_full}"));
            self.oracle.borrow_mut().paused(connection, is_full);
            self.cores[core].shard.pause(now, id, is_full);
            if is_full {
                self.look_after_server(connection, 20 * MILLI);
            }
        }
        if is_full {
            return;
        }
        let mut octets = Vec::new();
        self.cores[core].shard.take_output(id, &mut octets);
        self.trace.pdus(self.nanos, connection, "M>", &octets);
        self.oracle.borrow_mut().handed_out(connection, &octets);
        let reason = self.cores[core].shard.close_reason(id);
        let Some(line) = self.network.get_mut(connection) else { return };
        let has_news = !octets.is_empty() || reason.is_some();
        line.to_esme.extend(octets);
        if let Some(reason) = reason {
            line.server_open = false;
            self.oracle.borrow_mut().disconnected(connection);
            self.cores[core].shard.disconnected(now, id, reason);
            self.carry_out(core);
        } else if !line.unread.is_empty() && self.cores[core].shard.wants_octets(id) {
            let delay = self.random.range(1, 50) * MICRO;
            self.look_after_server(connection, delay);
        }
        if has_news {
            let delay = self.random.delay(20, 2_000) * MICRO;
            self.look_after_esme(connection, delay);
        }
    }

    pub(super) fn cut_off(&mut self, connection: Connection, reason: CloseReason) {
        let now = self.now();
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open {
            return;
        }
        line.server_open = false;
        let core = line.core;
        self.oracle.borrow_mut().disconnected(connection);
        self.cores[core].shard.disconnected(now, ConnectionId(connection), reason);
        self.carry_out(core);
        self.look_after_esme(connection, MILLI);
        self.network.forget_closed(connection);
    }

    pub(super) fn server_sees_close(&mut self, connection: Connection) {
        let nanos = self.nanos;
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open || !line.is_accepted {
            line.server_open = false;
            return self.network.forget_closed(connection);
        }
        if line.is_moving {
            return self.at(MILLI, Event::ServerSeesClose(connection));
        }
        let core = line.core;
        let since = *line.closed_since.get_or_insert(nanos);
        let waits = nanos < since + WRITE_TIMEOUT
            && (!line.to_server.is_empty()
                || !line.unread.is_empty() && self.cores[core].shard.wants_octets(ConnectionId(connection))
                || self.cores[core].shard.has_unanswered(ConnectionId(connection)));
        if line.to_server.is_empty() && line.unread.is_empty() && !line.is_end_read {
            line.is_end_read = true;
            let now = self.now();
            self.cores[core].shard.peer_closed(now, ConnectionId(connection));
            self.oracle.borrow_mut().peer_closed(connection);
            self.carry_out(core);
        }
        if waits {
            return self.at(50 * MILLI, Event::ServerSeesClose(connection));
        }
        self.cut_off(connection, CloseReason::PeerClosed);
    }

    // The ESMEs' end.

    pub(super) fn look_after_esme(&mut self, connection: Connection, delay: u64) {
        let Some(line) = self.network.get_mut(connection) else { return };
        if line.is_esme_due || !line.esme_open {
            return;
        }
        line.is_esme_due = true;
        self.at(delay, Event::ToEsme(connection));
    }

    pub(super) fn carry_to_esme(&mut self, connection: Connection) {
        let (now, nanos) = (self.now(), self.nanos);
        let Some(line) = self.network.get_mut(connection) else { return };
        line.is_esme_due = false;
        if !line.esme_open {
            return;
        }
        if line.slow_until > nanos && line.server_open {
            let delay = line.slow_until - nanos;
            return self.look_after_esme(connection, delay);
        }
        let esme = line.esme;
        let count = match line.to_esme.len() {
            0 => 0,
            some if self.random.chance(20) => self.random.place(some) + 1,
            some => some,
        };
        let octets: Vec<u8> = line.to_esme.drain(..count).collect();
        let (has_more, server_open) = (!line.to_esme.is_empty(), line.server_open);
        if !octets.is_empty() {
            let mut oracle = self.oracle.borrow_mut();
            self.esmes[esme].take_in(now, nanos, &octets, &mut self.random, &mut oracle);
        }
        if has_more {
            let delay = self.random.range(10, 3_000) * MICRO;
            self.look_after_esme(connection, delay);
        } else if !server_open {
            return self.hang_up(esme, connection, true);
        }
        if server_open {
            self.serve(connection);
        }
        self.esmes[esme].tick(now, nanos);
        self.send(esme);
    }

    /// Puts what an ESME has to say on its line.
    pub(super) fn send(&mut self, esme: usize) {
        let octets = self.esmes[esme].take_output();
        let Some(link) = &self.esmes[esme].link else { return };
        let (connection, is_over) = (link.connection, link.session.close_reason().is_some());
        let Some(line) = self.network.get_mut(connection) else { return };
        if !octets.is_empty() {
            line.to_server.extend(octets);
            let delay = self.random.delay(20, 2_000) * MICRO;
            self.look_after_server(connection, delay);
        }
        if is_over {
            self.hang_up(esme, connection, false);
        }
    }

    /// The ESME closes its end; a reset loses what is under way.
    pub(super) fn hang_up(&mut self, esme: usize, connection: Connection, is_reset: bool) {
        if self.esmes[esme].link.as_ref().is_some_and(|link| link.connection == connection) {
            self.esmes[esme].link = None;
        }
        let kept = self.random.number();
        let Some(line) = self.network.get_mut(connection) else { return };
        line.esme_open = false;
        line.to_esme.clear();
        if is_reset {
            let length = line.to_server.len();
            line.to_server.truncate((kept % (length as u64 + 1)) as usize);
            line.closed_since = Some(0);
        }
        if line.server_open {
            let delay = self.random.delay(1, 50) * MILLI;
            self.at(delay, Event::ServerSeesClose(connection));
        }
        self.network.forget_closed(connection);
    }

    pub(super) fn esme_acts(&mut self, esme: usize) {
        let (now, nanos) = (self.now(), self.nanos);
        if self.esmes[esme].has_left {
            return;
        }
        let delay = if self.is_calm { self.random.range(20, 100) } else { self.random.delay(4, 120) };
        self.at(delay * MILLI, Event::EsmeActs(esme));
        let Some(link) = &self.esmes[esme].link else {
            if !self.cores.is_empty()
                && !self.is_stopping
                && self.random.chance(if self.is_calm { 100 } else { 30 })
            {
                self.connect(esme);
            }
            return;
        };
        let connection = link.connection;
        let has_asked = link.is_binding;
        if has_asked && !self.is_calm && self.random.chance(8) {
            // It has no patience with whoever looks at its password.
            return self.hang_up(esme, connection, true);
        }
        if !self.esmes[esme].is_bound() {
            let is_open = link.session.state() == smppd::session::State::Open;
            if is_open && !has_asked {
                self.bind(esme);
            }
        } else if !self.is_calm {
            self.misbehave(esme, connection);
        }
        self.esmes[esme].tick(now, nanos);
        self.send(esme);
    }

    pub(super) fn connect(&mut self, esme: usize) {
        let core = self.random.place(self.cores.len());
        let connection = self.network.connect(core, esme);
        let account = self.esmes[esme].account;
        self.oracle.borrow_mut().connected(connection, account);
        let now = self.now();
        self.esmes[esme].connected(now, connection);
        let delay = self.random.delay(20, 2_000) * MICRO;
        self.at(delay, Event::Accepted(connection));
    }

    pub(super) fn bind(&mut self, esme: usize) {
        let now = self.now();
        let name = self.settings[self.esmes[esme].account].system_id.clone();
        let is_wrong = !self.is_calm && self.random.chance(5);
        let password = if is_wrong {
            "guess".to_owned()
        } else {
            self.settings[self.esmes[esme].account].password_hash.clone()
        };
        self.esmes[esme].bind(now, &name, (&password, !is_wrong), &mut self.oracle.borrow_mut());
    }

    pub(super) fn misbehave(&mut self, esme: usize, connection: Connection) {
        let (now, nanos) = (self.now(), self.nanos);
        match self.random.range(0, 999) {
            0..=9 => return self.hang_up(esme, connection, true),
            10..=14 => return self.hang_up(esme, connection, false),
            15..=22 => {
                if let Some(link) = &mut self.esmes[esme].link {
                    link.session.unbind(now.instant);
                }
                return;
            }
            23..=27 => {
                // Reads nothing for a while.
                let until = nanos + self.random.range(100, 5_000) * MILLI;
                if let Some(line) = self.network.get_mut(connection) {
                    line.slow_until = until;
                }
            }
            28..=31 => {
                // Half a PDU, and then the line goes.
                if let Some(line) = self.network.get_mut(connection) {
                    line.to_server.extend([0, 0, 0, 40, 0, 0]);
                }
                self.look_after_server(connection, 0);
                return self.hang_up(esme, connection, false);
            }
            _ => {}
        }
        let settings = self.settings[self.esmes[esme].account].clone();
        let can_come = self.esmes[esme].can_submit() && self.esmes[esme].version.has_tlvs();
        if can_come && std::mem::take(&mut self.crowd_comes) {
            self.trace.note(nanos, format_args!("esme {esme} brings a crowd"));
            let mut oracle = self.oracle.borrow_mut();
            return workload::crowd(&mut self.esmes[esme], now, &settings, &mut self.random, &mut oracle);
        }
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 4]) {
            let mut oracle = self.oracle.borrow_mut();
            let what = workload::act(
                &mut self.esmes[esme],
                now,
                &settings,
                self.habits,
                &mut self.random,
                &mut oracle,
            );
            self.trace.note(nanos, format_args!("esme {esme} {what}"));
        }
    }
}
