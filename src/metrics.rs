//! What a shard counts: names and numbers, without a clock or a lock.

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $field:ident = $name:literal;)+) => {
        /// The counters of one shard; all but the gauges only ever grow.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl Counters {
            /// Name, help and value of each.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($name, concat!($($help),+), self.$field)),+].into_iter()
            }

            /// The sums of two shards.
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($field: self.$field + other.$field),+ }
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
    /// Batches made durable.
    commits = "smppd_journal_commits_total";
    /// Octets made durable, padding included.
    commit_octets = "smppd_journal_octets_total";
    /// Sum of the time commits took, in microseconds.
    commit_micros = "smppd_journal_commit_microseconds_total";
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
