//! What a run has seen, to show that it was not empty.

/// Counts, each with what it counts.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How much a run has seen.
        #[derive(Clone, Copy, Default, Debug)]
        pub struct Seen {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Seen {
            /// Both together.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counts! {
    /// Submissions answered with ESME_ROK.
    accepted,
    /// Submissions refused.
    refused,
    /// Final receipts sent.
    receipts,
    /// Notifications sent.
    notifications,
    /// Messages that ended.
    ended,
    /// Replies delivered.
    replies,
    /// Successful binds.
    binds,
    /// Sessions that moved to another core.
    moves,
    /// cancel_sm of one message, or of one submit_multi, or between two addresses, that were answered ESME_ROK.
    cancelled,
    /// Those between two addresses.
    cancelled_many,
    /// Messages replaced.
    replaced,
    /// Messages replaced because of replace_if_present_flag.
    superseded,
    /// Checkpoints made.
    checkpoints,
    /// Blocks that came back from the state at rest because something in them was wanted.
    fetched,
    /// Processes that ended badly.
    crashes,
    /// Processes that ended well.
    stops,
    /// Disks that failed.
    failures,
    /// Messages that were to wait for a time.
    scheduled,
    /// Messages whose validity ran out.
    expired,
    /// Requests refused because of a rate.
    throttled,
    /// Submissions refused for want of credits.
    unpaid,
    /// Times that the clock on the wall was set within a process.
    clock_steps,
    /// Short ids that came again.
    reused,
    /// Receipts and replies whose retention ended.
    given_up,
    /// Times that a core stood still.
    freezes,
}
