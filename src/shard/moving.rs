//! A session moves to another shard: between its password and its place at the account's home, when nothing of it is in
//! flight and nobody knows where it is.

use crate::account::AccountIndex;
use crate::session::Session;
use crate::shard::bind::Binding;
use crate::shard::gather::Order;
use crate::shard::mesh::{ConnectionId, MeshMessage};
use crate::shard::{Entry, Sent, Shard};
use crate::time::Now;

/// A session on its way from one shard to another. It has asked to bind, with the right password, and waits for the
/// answer; [`Shard::arrive`] goes on with it.
#[derive(Debug)]
pub struct MovingSession {
    session: Session<Sent>,
    connection: ConnectionId,
    peer: Box<str>,
    account: AccountIndex,
    binding: Binding,
}

impl Shard {
    /// Takes out a session whose password was found to be right, instead of [`handle_verified`](Self::handle_verified).
    /// `None` when it has ended meanwhile, its peer has closed, or it asks for nothing: it stays where it is.
    pub fn depart(&mut self, connection: ConnectionId) -> Option<MovingSession> {
        let entry = self.sessions.get(&connection)?;
        let (account, binding) = (entry.account?, entry.binding.clone()?);
        if entry.session.close_reason().is_some() || entry.has_closed {
            return None;
        }
        let Entry { session, peer, alarm, .. } = *self.sessions.remove(&connection)?;
        if let Some((_, timer)) = alarm {
            self.session_timers.disarm(timer);
        }
        Some(MovingSession { session, connection, peer, account, binding })
    }

    /// Takes in a session that another shard has let go: it binds here. It keeps its [`ConnectionId`], which no connection
    /// of any shard may have had before.
    pub fn arrive(&mut self, now: Now, moving: MovingSession) {
        let MovingSession { session, connection, peer, account, binding } = moving;
        let mut entry = Entry {
            session,
            connection,
            peer,
            account: Some(account),
            binding: Some(binding),
            is_dirty: false,
            alarm: None,
            order: Order::default(),
            has_closed: false,
        };
        if self.is_draining {
            // It was on its way when the others were asked to leave.
            entry.session.unbind(now.instant);
        }
        self.put_back(Box::new(entry));
        self.counters.moved += 1;
        // It may be of an account that the other shard has heard of before us.
        self.local.push_back(MeshMessage::Arrived { account, connection });
        self.turn(now);
    }
}
