//! What the server tells a core besides octets and time, where the core has no ear for it yet.

use super::*;

/// The peer has closed its end, and answers are still owed to it: its place among the binds of its account is free.
///
/// The core has no method for that, so nothing is told.
pub(super) fn peer_closed(shard: &mut Shard, now: Now, connection: ConnectionId) {
    shard.peer_closed(now, connection);
}
