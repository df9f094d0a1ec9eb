//! Processes: how they begin, end, and hear of other accounts.

use super::*;

impl World {
    /// A process begins, on what the disks hold.
    pub(super) fn start(&mut self) {
        self.epoch += 1;
        // With few cores the same names meet.
        let cores = self.random.range(1, if self.habits.is_old { 2 } else { 4 }) as usize;
        for number in (0..cores as u8).map(PartitionNumber) {
            if !self.disks.contains_key(&number) {
                let disk = PartitionDisk::new(number, self.disk_settings, &mut self.random);
                self.disks.insert(number, disk);
            }
        }
        self.trace.note(
            self.nanos,
            format_args!("start {} on {cores} cores, {} partitions", self.epoch, self.disks.len()),
        );
        self.oracle.borrow_mut().process_began(self.epoch);
        self.limits = self.partition_settings;
        self.land.borrow_mut().restarted();
        // An account may be away: only what it left behind is known of it then.
        let away = (!self.is_calm && self.random.chance(10)).then(|| self.random.place(self.settings.len()));
        let Some(mut partitions) = self.recover(away) else { return };
        if !self.is_calm && self.random.chance(10) {
            // The power goes before it is ready.
            drop(partitions);
            self.disks.values_mut().for_each(|disk| disk.crash(&mut self.random));
            let Some(recovered) = self.recover(away) else { return };
            partitions = recovered;
        }
        for (account, settings) in self.settings.iter().enumerate() {
            let settings = Some(settings).filter(|_| away != Some(account));
            self.oracle.borrow_mut().allowed(account, settings, self.nanos);
        }
        self.routes = self.draw_routes(self.nanos);
        let map = PartitionMap::new(
            partitions.iter().map(|p| (p.number, ShardNumber((usize::from(p.number.0) % cores) as u8))),
        );
        let mut of_core: Vec<Vec<Partition>> = (0..cores).map(|_| Vec::new()).collect();
        self.partition_core.clear();
        for partition in partitions {
            let core = usize::from(partition.number.0) % cores;
            self.partition_core.insert(partition.number, (core, of_core[core].len()));
            of_core[core].push(partition);
        }
        self.cores = Vec::new();
        for (number, partitions) in of_core.into_iter().enumerate() {
            let numbers: Vec<PartitionNumber> = partitions.iter().map(|partition| partition.number).collect();
            let shard = Shard::new(
                self.shard_settings(number, cores),
                Rc::new(self.accounts.clone()),
                self.routes.clone(),
                self.carriers(&numbers),
                partitions,
                map.clone(),
            );
            self.cores.push(Core { shard, goes_on: false, frozen_until: 0, partitions: numbers });
        }
        let now = self.now();
        self.set_disk_space(self.is_disk_low, self.has_no_files);
        for core in 0..cores {
            self.cores[core].shard.resume(now);
            self.carry_out(core);
            self.at(0, Event::Tick(core));
            self.at(SECOND, Event::Flush(core));
        }
    }

    pub(super) fn recover(&mut self, away: Option<usize>) -> Option<Vec<Partition>> {
        let mut found = Vec::new();
        let mut names: BTreeSet<Box<[u8]>> = BTreeSet::new();
        for (number, disk) in &mut self.disks {
            match disk.open() {
                Ok(read) => {
                    let last = read.batches.last().map(|(_, position, _)| *position);
                    let batches =
                        read.batches.iter().map(|(_, position, records)| (*position, records.as_slice()));
                    let last = last.unwrap_or_else(|| disk.before_first());
                    self.oracle.borrow_mut().recovered(*number, last, batches);
                    names.extend(disk.system_ids(&read));
                    if self.habits.is_old && self.random.chance(70) {
                        let (used, open) = self.oracle.borrow().short_ids(*number);
                        // Of those that wait some will end, and then their names come at once.
                        let near = if open.is_empty() || self.random.chance(30) { used } else { open };
                        disk.go_round(&read, &near, &mut self.random);
                    }
                    found.push(read);
                }
                Err(reason) => {
                    self.oracle.borrow_mut().violate(reason);
                    return None;
                }
            }
        }
        let present = self.settings.iter().enumerate().filter(|(account, _)| away != Some(*account));
        let present = present.map(|(_, settings)| settings.clone()).collect();
        self.accounts = Accounts::default().reload(present).with_unknown(names.iter().map(|name| &**name));
        let now = self.now();
        let mut partitions = Vec::new();
        for (disk, found) in self.disks.values_mut().zip(&found) {
            match disk.recover(self.partition_settings, found, &self.accounts, now) {
                Ok(partition) => partitions.push(partition),
                Err(reason) => {
                    self.oracle.borrow_mut().violate(reason);
                    return None;
                }
            }
        }
        for partition in &partitions {
            for (system_id, used) in partition.credits_used() {
                if let Some(index) = self.accounts.index_of(system_id) {
                    self.accounts.get(index).restore_credits(used);
                }
            }
        }
        Some(partitions)
    }

    pub(super) fn shard_settings(&self, number: usize, shards: usize) -> ShardSettings {
        ShardSettings {
            number: ShardNumber(number as u8),
            shards: shards as u8,
            system_id: Box::from(*b"smppd"),
            session: self.session_settings.clone(),
            validity: terms::VALIDITY,
            retry: RETRY,
            deliver_retry: RETRY,
            portion: self.portion,
            is_durable: true,
        }
    }

    pub(super) fn carriers(&mut self, partitions: &[PartitionNumber]) -> Vec<Box<dyn Carrier>> {
        let simulator = Simulator::new(SimulatorSettings { seed: 5, ..SimulatorSettings::default() });
        let nasty =
            |index| Box::new(Nasty::new(Rc::clone(&self.land), index, partitions.iter().copied().collect()));
        vec![nasty(0), Box::new(Watched::new(Rc::clone(&self.land), 1, simulator)), nasty(2)]
    }

    pub(super) fn draw_routes(&mut self, heard_at: u64) -> Routes {
        let mut pick = || CarrierIndex(self.random.pick(&[0, 0, 0, 2]));
        let routes = [("44", pick()), ("447900000", pick()), ("12", pick()), ("99", CarrierIndex(1))];
        let prefixes = routes.iter().map(|(prefix, _)| (*prefix).to_owned()).collect();
        self.oracle.borrow_mut().routed(prefixes, heard_at);
        Routes::new(routes.map(|(prefix, carrier)| (prefix.to_owned(), carrier)))
    }

    /// Everything in memory is gone.
    pub(super) fn crash(&mut self) {
        self.trace.note(self.nanos, format_args!("crash"));
        self.oracle.borrow_mut().seen.crashes += 1;
        for disk in self.disks.values_mut() {
            disk.crash(&mut self.random);
        }
        self.process_ended();
    }

    pub(super) fn process_ended(&mut self) {
        self.is_stopping = false;
        self.cores.clear();
        self.mesh.clear();
        self.no_room_at.clear();
        self.moving.clear();
        self.mesh_busy_until.clear();
        self.epoch += 1;
        self.oracle.borrow_mut().process_ended();
        for connection in self.network.connections() {
            let keeps = self.random.chance(50);
            let Some(line) = self.network.get_mut(connection) else { continue };
            line.server_open = false;
            if !keeps {
                line.to_esme.clear();
            }
            self.look_after_esme(connection, MILLI);
        }
    }

    /// The process ends as it should: no new binds, unbind to everybody, everything to the disk.
    pub(super) fn stop(&mut self) {
        self.trace.note(self.nanos, format_args!("stop"));
        self.oracle.borrow_mut().seen.stops += 1;
        self.is_stopping = true;
        for connection in self.network.connections() {
            self.oracle.borrow_mut().released(connection);
        }
        for core in 0..self.cores.len() {
            let now = self.now();
            self.cores[core].shard.drain(now);
            self.carry_out(core);
        }
        let deadline = self.nanos + 10 * SECOND;
        while self.nanos < deadline && self.cores.iter().any(|core| core.shard.sessions() > 0) && self.step()
        {
        }
        for core in 0..self.cores.len() {
            self.cores[core].shard.stop();
            self.carry_out(core);
        }
        let deadline = self.nanos + 10 * SECOND;
        while self.nanos < deadline && !self.is_settled() && self.step() {}
        if self.is_settled() {
            self.disks.values_mut().for_each(PartitionDisk::stop);
        } else {
            self.disks.values_mut().for_each(|disk| disk.crash(&mut self.random));
        }
        self.process_ended();
    }

    pub(super) fn is_settled(&self) -> bool {
        self.cores.iter().all(|core| {
            !core.shard.has_more()
                && core.shard.partitions().iter().all(|partition| {
                    let disk = &self.disks[&partition.number];
                    partition.has_failed()
                        || !disk.is_writing()
                            && !partition.has_batch()
                            && !partition.has_store_ops()
                            && !disk.has_orders()
                })
        })
    }

    pub(super) fn trouble(&mut self) {
        if self.is_calm {
            return;
        }
        let delay = self.random.range(200, 4_000) * MILLI;
        self.at(delay, Event::Trouble);
        if self.is_stopping {
            return;
        }
        let draw = self.random.range(0, 9);
        if draw < 5 {
            return self.reload();
        }
        if self.troubles == 0 {
            return;
        }
        self.troubles -= 1;
        if draw == 5 {
            self.stop();
        } else {
            self.crash();
        }
        if self.has_failed() {
            return;
        }
        // The machine was off for a while, and its clock may have been set.
        let off = self.random.delay(1, 500) * MILLI;
        let shift = self.random.range(0, 4_000);
        match self.random.range(0, 5) {
            0 => self.wall_offset += shift,
            1 => self.wall_offset -= shift,
            _ => {}
        }
        self.reach(self.nanos + off);
        if self.random.chance(20) {
            self.begin_in_vain();
        }
        self.start();
    }

    /// Other accounts and routes, of which each core hears in its own time.
    pub(super) fn reload(&mut self) {
        let removed = if self.is_calm { usize::MAX } else { self.random.place(self.settings.len() * 5) };
        if !self.is_calm {
            let random = &mut self.random;
            self.settings =
                self.settings.iter().map(|account| workload::volatile(account.clone(), random)).collect();
            if self.random.chance(20) {
                workload::hand_on(&mut self.settings, &mut self.random);
            }
        }
        let present = self.settings.iter().enumerate().filter(|(number, _)| *number != removed);
        let present: Vec<_> = present.collect();
        let heard_at = self.nanos + RELOAD_MILLIS_MAX * MILLI;
        for (number, settings) in &present {
            self.oracle.borrow_mut().allowed(*number, Some(settings), heard_at);
        }
        self.accounts =
            self.accounts.reload(present.into_iter().map(|(_, account)| account.clone()).collect());
        self.routes = self.draw_routes(heard_at);
        if removed < self.settings.len() {
            self.oracle.borrow_mut().allowed(removed, None, heard_at);
            // Its sessions are asked to leave: they count no more.
            for connection in self.network.connections() {
                let Some(line) = self.network.get_mut(connection) else { continue };
                if self.esmes.get(line.esme).is_some_and(|esme| esme.account == removed) {
                    self.oracle.borrow_mut().released(connection);
                }
            }
        }
        for core in 0..self.cores.len() {
            let delay = self.random.range(0, RELOAD_MILLIS_MAX) * MILLI;
            self.at(delay, Event::Reload(core));
        }
    }

    /// The disk has little room left, or no more files can be opened; later all is well again.
    pub(super) fn disk_space(&mut self) {
        if self.is_calm {
            return;
        }
        let delay = self.random.delay(100, 1_000) * MILLI;
        self.at(delay, Event::DiskSpace);
        let is_well = self.is_disk_low || self.has_no_files;
        let (is_low, has_no_files) = (self.random.chance(60), self.random.chance(60));
        self.set_disk_space(!is_well && is_low, !is_well && has_no_files);
    }

    pub(super) fn set_disk_space(&mut self, is_low: bool, has_no_files: bool) {
        if (is_low, has_no_files) != (self.is_disk_low, self.has_no_files) {
            self.trace.note(self.nanos, format_args!("disk low: {is_low}, no files: {has_no_files}"));
        }
        (self.is_disk_low, self.has_no_files) = (is_low, has_no_files);
        self.cores.iter_mut().for_each(|core| core.shard.note_disk(is_low));
        self.disks.values_mut().for_each(|disk| disk.deny_files(has_no_files));
        for core in 0..self.cores.len() {
            self.note_full(core);
        }
    }

    /// The power goes while a process begins: everything that it had read, and perhaps put right, is gone.
    fn begin_in_vain(&mut self) {
        let now = self.now();
        let accounts = Accounts::default().reload(self.settings.clone());
        let (settings, disks) = (self.partition_settings, self.random.place(self.disks.len() + 1));
        self.trace.note(self.nanos, format_args!("begins, and ends after {disks} partitions"));
        for disk in self.disks.values_mut().take(disks) {
            let Ok(found) = disk.open() else { continue };
            let names = disk.system_ids(&found);
            let accounts = accounts.with_unknown(names.iter().map(|name| &**name));
            if self.random.chance(70)
                && let Err(reason) = disk.recover(settings, &found, &accounts, now)
            {
                self.oracle.borrow_mut().violate(reason);
            }
        }
        for disk in self.disks.values_mut() {
            disk.crash(&mut self.random);
        }
    }
}
