//! The end of a run: peace, questions, farewells.

use smppd::pdu::CommandStatus;

use super::*;

impl World {
    /// No more faults; everybody is on his best behaviour.
    pub(super) fn calm_down(&mut self) {
        // A process that goes on keeps whatever it has leaked.
        let goes_on = !self.oracle.borrow().has_failed_disk() && self.random.chance(40);
        if goes_on {
            for esme in 0..self.esmes.len() {
                let connection = self.esmes[esme].link.as_ref().map(|link| link.connection);
                connection.into_iter().for_each(|connection| self.hang_up(esme, connection, true));
            }
        } else if self.random.chance(50) {
            self.crash();
        } else {
            self.stop();
        }
        if self.has_failed() {
            return;
        }
        self.is_calm = true;
        self.set_clock(clock::BEGIN_MILLIS);
        self.set_disk_space(false, false);
        self.land.borrow_mut().is_calm = true;
        self.trace.note(self.nanos, format_args!("calm"));
        let disk_settings = DiskSettings {
            failing_writes: 0,
            no_room: 0,
            failing_lookups: 0,
            failing_orders: 0,
            write_micros: 200,
            order_micros: 200,
            orders_max: 64,
            ..self.disk_settings
        };
        self.disk_settings = disk_settings;
        self.disks.values_mut().for_each(|disk| disk.behave(disk_settings));
        self.partition_settings.messages_max = 10_000;
        for account in &mut self.settings {
            account.rate = 0;
            account.credits = 0;
        }
        for esme in &mut self.esmes {
            esme.is_calm = true;
            esme.mode = BindMode::Transceiver;
        }
        if !goes_on {
            self.start();
        }
        self.reload();
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.cores.iter().flat_map(|core| core.shard.partitions())
    }

    /// Lets time pass until nothing is missing.
    pub(super) fn wait_for(&mut self, what: &str, patience: u64, missing: fn(&Self) -> Option<String>) {
        let begun = self.nanos;
        let deadline = begun + patience;
        while !self.has_failed() {
            self.help_along(begun);
            let Some(reason) = missing(self) else { return };
            if self.nanos >= deadline {
                return self.oracle.borrow_mut().violate(format!("no {what}: {reason}"));
            }
            let next = self.nanos + SECOND / 2;
            while self.nanos < next && self.step() {}
        }
    }

    pub(super) fn unfinished(&self) -> Option<String> {
        if let Some(missing) = self.oracle.borrow().missing() {
            return Some(missing);
        }
        if let Some(waiting) = self.unanswered() {
            return Some(waiting);
        }
        // Who has hung up may have asked for something that the server has not read yet.
        if let Some((connection, octets)) = self.network.unread() {
            return Some(format!("{octets} octets of connection {connection} are not read yet"));
        }
        let (messages, parcels) =
            self.partitions().map(Partition::unfinished).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        (messages + parcels > 0).then(|| format!("{messages} messages and {parcels} parcels are unfinished"))
    }

    pub(super) fn unbound(&self) -> Option<String> {
        let is_bound =
            |account: &usize| self.esmes.iter().any(|esme| esme.account == *account && esme.is_bound());
        let unbound = (0..self.settings.len()).find(|account| !is_bound(account));
        unbound.map(|account| format!("nobody of account {account} can bind"))
    }

    pub(super) fn unanswered(&self) -> Option<String> {
        self.esmes.iter().enumerate().find_map(|(number, esme)| {
            let link = esme.link.as_ref().filter(|_| esme.is_bound())?;
            (link.waiting() > 0)
                .then(|| format!("{} requests of ESME {number} are unanswered", link.waiting()))
        })
    }

    /// A message of every account is accepted, whatever was refused before: nothing is left of the reasons.
    pub(super) fn serve_all(&mut self) {
        let deadline = self.nanos + PATIENCE;
        for account in 0..self.settings.len() {
            let settings = self.settings[account].clone();
            let mut told = None;
            while told != Some(CommandStatus::ESME_ROK) && !self.has_failed() {
                if self.nanos >= deadline {
                    let name = settings.system_id;
                    return self.require(false, || format!("no message of {name} is accepted: {told:?}"));
                }
                let now = self.now();
                let asks = |esme: &Esme| esme.account == account && esme.can_submit();
                if let Some(esme) = self.esmes.iter().position(asks) {
                    let mut oracle = self.oracle.borrow_mut();
                    let submits = &mut self.esmes[esme];
                    let token = workload::plain(submits, now, &settings, &mut self.random, &mut oracle);
                    drop(oracle);
                    self.send(esme);
                    self.pass(SECOND);
                    told = token.and_then(|token| self.oracle.borrow().outcome(token));
                } else {
                    self.pass(SECOND);
                }
            }
        }
    }

    /// Everybody asks after every message of his, and after one of another's.
    pub(super) fn ask_after_all(&mut self) {
        let now = self.now();
        for account in 0..self.settings.len() {
            let name = self.settings[account].system_id.clone();
            let messages = self.oracle.borrow().messages_of(name.as_bytes());
            let asks = |esme: &Esme| esme.account == account && esme.is_bound();
            let Some(esme) = self.esmes.iter().position(asks) else {
                self.require(false, || format!("nobody of {name} can bind"));
                return;
            };
            let foreign = (account + 1) % self.settings.len();
            let foreign_name = self.settings[foreign].system_id.clone();
            let others = self.oracle.borrow().messages_of(foreign_name.as_bytes());
            let others = others.into_iter().take(if foreign == account { 0 } else { 1 });
            let questions = messages.into_iter().map(|(id, source)| (id, source, true));
            let others = others.map(|(id, source)| (id, source, false));
            for (id, source, is_own) in questions.chain(others) {
                let mut oracle = self.oracle.borrow_mut();
                let asked = match is_own {
                    true => Asked::Query(oracle.querying(account, id, &source)),
                    false => Asked::QueryForeign,
                };
                workload::ask_after(&mut self.esmes[esme], now, id, &source, asked, &mut oracle);
            }
            self.send(esme);
        }
    }

    pub(super) fn check_credits(&self) {
        let mut oracle = self.oracle.borrow_mut();
        for account in self.accounts.iter() {
            let name = account.settings.system_id.as_bytes();
            let of_partitions: u64 = self
                .partitions()
                .flat_map(Partition::credits_used)
                .filter(|(system_id, _)| *system_id == name)
                .map(|(_, used)| used)
                .sum();
            let (expected, used) = (oracle.credits_used(name), account.credits_used());
            if used != expected || of_partitions != expected {
                oracle.violate(format!(
                    "{}: {expected} credits on record, {used} counted, {of_partitions} in the partitions",
                    account.settings.system_id
                ));
            }
        }
    }

    /// Everybody leaves, one way or the other.
    pub(super) fn leave(&mut self) {
        let now = self.now();
        for esme in 0..self.esmes.len() {
            self.esmes[esme].has_left = true;
            let Some(link) = &mut self.esmes[esme].link else { continue };
            let connection = link.connection;
            if self.random.chance(50) {
                link.session.unbind(now.instant);
                self.send(esme);
            } else {
                self.hang_up(esme, connection, true);
            }
        }
        self.pass(12 * SECOND);
        let sessions: usize = self.cores.iter().map(|core| core.shard.sessions()).sum();
        self.require(sessions == 0, || format!("{sessions} sessions are left though everybody has gone"));
    }

    pub(super) fn pass(&mut self, nanos: u64) {
        let until = self.nanos + nanos;
        while self.nanos < until && self.step() {}
    }

    /// As many binds as are allowed work again, on whatever core.
    pub(super) fn bind_all(&mut self) {
        for account in 0..self.settings.len() {
            let limit = self.settings[account].bind_limit as usize;
            let first = self.esmes.len();
            for _ in 0..limit {
                let mut esme = Esme::new(account, self.habits.is_old, &mut self.random);
                (esme.is_calm, esme.mode) = (true, BindMode::Transceiver);
                self.esmes.push(esme);
                let esme = self.esmes.len() - 1;
                self.at(0, Event::EsmeActs(esme));
            }
            let all_bound = move |world: &Self| {
                let bound = world.esmes[first..].iter().filter(|esme| esme.is_bound()).count();
                (bound < limit).then(|| format!("{bound} of {limit} binds of account {account} work"))
            };
            let deadline = self.nanos + 20 * SECOND;
            while !self.has_failed() {
                let Some(reason) = all_bound(self) else { break };
                if self.nanos >= deadline {
                    self.require(false, || reason);
                }
                self.pass(SECOND / 4);
            }
            for esme in &mut self.esmes[first..] {
                esme.has_left = true;
            }
        }
    }
}
