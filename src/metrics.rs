//! What a shard counts: names and numbers, without a clock or a lock.

/// How often values were how large: each bucket counts what is at most twice the bound of the one before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    buckets: [u64; Self::BUCKETS],
    larger: u64,
    sum: u64,
}

impl Histogram {
    /// Buckets with a bound.
    const BUCKETS: usize = 18;
    /// The bound of the first is 2^6.
    const SHIFT: u32 = 6;

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let digits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = digits.saturating_sub(Self::SHIFT) as usize;
        match self.buckets.get_mut(bucket) {
            Some(count) => *count += 1,
            None => self.larger += 1,
        }
        self.sum += value;
    }

    /// How many values there were, and their sum.
    pub fn total(&self) -> (u64, u64) {
        (self.buckets.iter().sum::<u64>() + self.larger, self.sum)
    }

    /// Each bound, and how many values were at most that.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut up_to = 0;
        (Self::SHIFT..).zip(self.buckets).map(move |(shift, count)| {
            up_to += count;
            (1 << shift, up_to)
        })
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket] + other.buckets[bucket]),
            larger: self.larger + other.larger,
            sum: self.sum + other.sum,
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $field:ident = $name:literal;)+) => {
        /// The counters of one shard; all but the gauges only ever grow.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $field: u64,)+
            /// How long commits took, in microseconds.
            pub commit_micros: Histogram,
            /// How long the batches were, in octets, padding included.
            pub commit_octets: Histogram,
        }

        impl Counters {
            /// Name, help and value of each.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($name, concat!($($help),+), self.$field)),+].into_iter()
            }

            /// The sums of two shards.
            pub fn plus(&self, other: &Self) -> Self {
                Self {
                    $($field: self.$field + other.$field,)+
                    commit_micros: self.commit_micros.plus(&other.commit_micros),
                    commit_octets: self.commit_octets.plus(&other.commit_octets),
                }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections = "smppd_connections_total";
    /// Sessions bound.
    binds = "smppd_session_bound_total";
    /// Binds refused.
    binds_refused = "smppd_session_bind_refused_total";
    /// Sessions that ended.
    closed = "smppd_session_closed_total";
    /// Sessions that came from another core, which had more to do.
    moved = "smppd_session_moved_total";
    /// Messages accepted.
    accepted = "smppd_message_accepted_total";
    /// Submissions refused, throttled ones included.
    refused = "smppd_message_refused_total";
    /// Submissions over an account's rate.
    throttled = "smppd_message_throttled_total";
    /// Messages that came to a final state.
    finals = "smppd_message_final_total";
    /// deliver_sm sent.
    deliver_sent = "smppd_deliver_sm_sent_total";
    /// deliver_sm confirmed with ESME_ROK.
    deliver_confirmed = "smppd_deliver_sm_confirmed_total";
    /// deliver_sm refused, or not answered in time.
    deliver_failed = "smppd_deliver_sm_failed_total";
    /// Receipts and replies given up after their retention, or refused for good.
    deliver_given_up = "smppd_deliver_sm_given_up_total";
    /// Replies to numbers that no account owns.
    replies_unroutable = "smppd_reply_unroutable_total";
    /// Responses and other PDUs that answered nothing.
    ignored = "smppd_pdu_ignored_total";
    /// Gauge: sessions connected.
    sessions = "smppd_sessions";
    /// Gauge: messages that are not over.
    unfinished = "smppd_messages_unfinished";
    /// Gauge: receipts and replies that are not confirmed.
    parcels = "smppd_deliveries_pending";
    /// Gauge: what messages, receipts and replies take in memory, roughly, in octets.
    memory_octets = "smppd_messages_memory_octets";
    /// Gauge: segments of the journal that hold something needed.
    segments = "smppd_journal_segments";
    /// Gauge: blocks of unfinished messages, receipts and replies at rest.
    rest_blocks = "smppd_rest_blocks";
    /// Gauge: those of them that are at rest alone, because memory is short.
    cold_blocks = "smppd_rest_blocks_cold";
    /// Gauge: partitions stopped by a disk error.
    failed = "smppd_partitions_failed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_once_up_to_its_bound() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 64, 65, 128, 129, 1 << 23, (1 << 23) + 1, u64::from(u32::MAX)] {
            histogram.add(value);
        }
        let up_to: Vec<(u64, u64)> = histogram.up_to().collect();
        assert_eq!(up_to[..3], [(64, 3), (128, 5), (256, 6)]);
        assert_eq!(up_to.last(), Some(&(1 << 23, 7)));
        assert_eq!(histogram.total().0, 9);
        assert_eq!(histogram.plus(&histogram).total(), (18, 2 * histogram.total().1));
    }
}
