//! What a core wants, carried out as the server does.

use super::*;

impl World {
    /// Carries out what a shard wants, as the server does after every input.
    pub(super) fn carry_out(&mut self, core: usize) {
        self.note_full(core);
        self.depth += 1;
        self.carry_out_turn(core);
        self.depth -= 1;
        if self.depth == 0 {
            self.oracle.borrow_mut().turn_ended();
        }
    }

    pub(super) fn carry_out_turn(&mut self, core: usize) {
        loop {
            let outputs = self.cores[core].shard.outputs();
            let dirty = std::mem::take(&mut outputs.dirty);
            let verify = std::mem::take(&mut outputs.verify);
            let lookups = std::mem::take(&mut outputs.lookups);
            let events = std::mem::take(&mut outputs.events);
            let mesh: Vec<Vec<MeshMessage>> = outputs.mesh.iter_mut().map(std::mem::take).collect();
            if dirty.is_empty()
                && verify.is_empty()
                && lookups.is_empty()
                && events.is_empty()
                && mesh.iter().all(Vec::is_empty)
            {
                break;
            }
            for (to, batch) in mesh.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
                self.tell_core(core, to, batch);
            }
            for request in verify {
                let password = std::str::from_utf8(&request.password).ok();
                let is_right = request.password_hash.as_deref() == password && password.is_some();
                let outcome = if self.random.chance(2) { None } else { Some(is_right) };
                let delay = self.random.delay(1, 20) * MILLI;
                self.oracle.borrow_mut().verifying(request.connection.0, self.nanos + delay);
                self.at(delay, Event::Verified(core, request.connection.0, outcome));
            }
            for lookup in lookups {
                let Some(disk) = self.disks.get_mut(&lookup.partition) else { continue };
                if let Err(lookup) = disk.ask(lookup) {
                    self.oracle.borrow_mut().lookup_failed();
                    let now = self.now();
                    self.cores[core].shard.handle_lookup_failed(now, &lookup);
                }
            }
            for event in events {
                if let ShardEvent::PartitionFailed { partition, .. } = &event {
                    self.oracle.borrow_mut().stopped(*partition);
                }
                if let ShardEvent::GivenUp { key, reason } = &event {
                    self.oracle.borrow_mut().gave_up(*key, reason);
                }
                self.trace.note(self.nanos, format_args!("core {core}: {event}"));
            }
            for connection in dirty {
                self.serve(connection.0);
            }
        }
        self.look_after_disks(core);
        if self.cores[core].shard.has_more() && !std::mem::replace(&mut self.cores[core].goes_on, true) {
            let longest = self.random.pick(&[200, 3_000, 30_000]);
            let delay = self.random.range(0, longest) * MICRO;
            self.at(delay, Event::GoOn(core));
        }
    }

    pub(super) fn tell_core(&mut self, from: usize, to: usize, batch: Vec<MeshMessage>) {
        // In order between two cores, in any order otherwise.
        let delay = self.random.delay(5, self.mesh_micros) * MICRO;
        let busy_until = self.mesh_busy_until.entry((from, to)).or_default();
        let at = (self.nanos + delay).max(*busy_until);
        *busy_until = at;
        self.mesh.entry((from, to)).or_default().push_back(batch);
        self.at(at - self.nanos, Event::Mesh(from, to));
    }

    pub(super) fn look_after_disks(&mut self, core: usize) {
        for place in 0..self.cores[core].partitions.len() {
            let number = self.cores[core].partitions[place];
            let Some(disk) = self.disks.get_mut(&number) else { continue };
            let shard = &mut self.cores[core].shard;
            disk.take_orders(shard, place);
            let begun = disk.begin_order(&mut self.random);
            let wakes = !disk.is_writing() && shard.partitions()[place].wants_batch();
            if let Some(begun) = begun {
                self.at(begun.micros * MICRO, Event::OrderDone(number));
            }
            if wakes {
                let delay = self.random.range(0, 100) * MICRO;
                self.at(delay, Event::WriterWakes(number));
            }
        }
    }

    pub(super) fn begin_write(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        if let Some(begun) = disk.begin_write(&mut self.cores[core].shard, place, &mut self.random) {
            self.at(begun.micros * MICRO, Event::Written(number));
        }
    }

    pub(super) fn finish_write(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        let Some((done, records)) = disk.finish_write(&mut self.random) else { return };
        if let disk::Done::Written(commit) = &done {
            self.oracle.borrow_mut().stored(number, commit.position, &records);
        }
        self.told_of_disk(core, place, number, done);
    }

    pub(super) fn finish_order(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        match disk.finish_order(&mut self.random) {
            Some(done) => self.told_of_disk(core, place, number, done),
            None => self.carry_out(core),
        }
    }

    pub(super) fn told_of_disk(
        &mut self,
        core: usize,
        place: usize,
        number: PartitionNumber,
        done: disk::Done,
    ) {
        if done.is_checkpoint() {
            self.oracle.borrow_mut().seen.checkpoints += 1;
        }
        if done.is_not_found() {
            self.oracle.borrow_mut().lookup_failed();
        }
        if done.is_no_room() {
            self.no_room_at.insert(number, self.nanos);
        }
        if done.is_fetch() {
            self.oracle.borrow_mut().seen.fetched += 1;
        }
        let now = self.now();
        if done.is_failure() {
            self.oracle.borrow_mut().disk_failed(number);
        }
        done.tell(&mut self.cores[core].shard, now, number, place);
        self.carry_out(core);
    }

    /// Tells the oracle how much the partitions of a core can take, as far as it can be seen from outside.
    pub(super) fn note_full(&mut self, core: usize) {
        /// After so long messages that are over have left memory, even if the core stood still for a while.
        const FLUSHED: u64 = 8 * SECOND;
        /// There was no room for a file: it is tried again after a second, when a tick comes.
        const NO_ROOM: u64 = SECOND + 200 * MILLI;
        let limits = &self.limits;
        let mut oracle = self.oracle.borrow_mut();
        for partition in self.cores[core].shard.partitions() {
            let (number, disk) = (partition.number, &self.disks[&partition.number]);
            let (messages, parcels) = partition.unfinished();
            // What is over leaves memory when the state at rest has it.
            let is_behind = disk.has_orders() || partition.has_store_ops();
            // And a process has in memory again what the journal it has read says is over.
            let is_new = self.nanos < oracle.begun_at() + FLUSHED;
            let flushed = if is_behind || is_new { 100 * FLUSHED } else { FLUSHED };
            let mut ended = oracle.ended_since(number, self.nanos.saturating_sub(flushed));
            if disk.is_writing() || partition.has_batch() {
                // What has ended and is not on record yet is over as well.
                ended += oracle.open(number);
            }
            let is_slow_journal = limits.journal_waiting_octets_max < 1 << 20;
            let is_slow_store = limits.store_waiting_max < 1_000;
            let octets = partition.memory_octets();
            let is_full = self.is_disk_low
                // What it had not written stays in its way.
                || partition.has_failed()
                || partition.segments_in_use() >= limits.segments_max
                || self.no_room_at.get(&number).is_some_and(|at| at + NO_ROOM > self.nanos)
                || is_slow_journal && (disk.is_writing() || partition.has_batch())
                || is_slow_store && (disk.has_orders() || partition.has_store_ops());
            let load = Load {
                is_full,
                messages_left: limits.messages_max.saturating_sub(messages + parcels + ended),
                octets_left: limits.messages_octets_max.saturating_sub(octets),
            };
            oracle.loaded(number, load);
        }
    }
}
