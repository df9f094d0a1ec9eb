//! Processes: how they begin, end, and hear of other accounts.

use super::*;

impl World {
    /// A process begins, on what the disks hold.
    pub(super) fn start(&mut self) {
        self.epoch += 1;
        let cores = self.random.range(1, 4) as usize;
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
        self.oracle.borrow_mut().epoch = self.epoch;
        self.land.borrow_mut().restarted();
        let Some(partitions) = self.recover() else { return };
        for (account, settings) in self.settings.iter().enumerate() {
            self.oracle.borrow_mut().allowed(account, settings, self.nanos);
        }
        self.routes = self.draw_routes();
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
            self.cores.push(Core { shard, goes_on: false, partitions: numbers });
        }
        let now = self.now();
        for core in 0..cores {
            self.cores[core].shard.resume(now);
            self.carry_out(core);
            self.at(0, Event::Tick(core));
            self.at(SECOND, Event::Flush(core));
        }
    }

    pub(super) fn recover(&mut self) -> Option<Vec<Partition>> {
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
                    found.push(read);
                }
                Err(reason) => {
                    self.oracle.borrow_mut().violate(reason);
                    return None;
                }
            }
        }
        self.accounts =
            Accounts::default().reload(self.settings.clone()).with_unknown(names.iter().map(|name| &**name));
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
        let millis = Duration::from_millis;
        ShardSettings {
            number: ShardNumber(number as u8),
            shards: shards as u8,
            system_id: Box::from(*b"smppd"),
            session: self.session_settings.clone(),
            validity: terms::VALIDITY,
            retry: Backoff { delay_min: millis(200), delay_max: disk::RETRY_DELAY_MAX },
            deliver_retry: Backoff { delay_min: millis(200), delay_max: millis(2_000) },
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

    pub(super) fn draw_routes(&mut self) -> Routes {
        let mut pick = || CarrierIndex(self.random.pick(&[0, 0, 0, 2]));
        let routes = [("44", pick()), ("447900000", pick()), ("12", pick()), ("99", CarrierIndex(1))];
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
        self.start();
    }

    /// Other accounts and routes, of which each core hears in its own time.
    pub(super) fn reload(&mut self) {
        let removed = if self.is_calm { usize::MAX } else { self.random.place(self.settings.len() * 5) };
        let random = &mut self.random;
        self.settings =
            self.settings.iter().map(|account| workload::volatile(account.clone(), random)).collect();
        let present = self.settings.iter().enumerate().filter(|(number, _)| *number != removed);
        let present: Vec<_> = present.collect();
        let heard_at = self.nanos + RELOAD_MILLIS_MAX * MILLI;
        for (number, settings) in &present {
            self.oracle.borrow_mut().allowed(*number, settings, heard_at);
        }
        self.accounts =
            self.accounts.reload(present.into_iter().map(|(_, account)| account.clone()).collect());
        self.routes = self.draw_routes();
        if removed < self.settings.len() {
            self.oracle.borrow_mut().removed.insert(removed);
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
}
