//! What is on its way to a peer.

use std::io;
use std::task::Poll;
use std::time::Duration;

use crate::time::Instant;

/// An idle connection keeps no buffer larger than this.
pub(super) const KEPT_OCTETS: usize = 4 << 10;

/// Octets that are encrypted and not sent yet, and whether their peer takes any.
#[derive(Default)]
pub(super) struct Outgoing {
    octets: Vec<u8>,
    sent: usize,
    /// Since when the peer has taken nothing.
    blocked_since: Option<Instant>,
}

impl Outgoing {
    /// Where more is put, behind what is there.
    pub(super) const fn octets_mut(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// How many octets there are.
    pub(super) const fn len(&self) -> usize {
        self.octets.len() - self.sent
    }

    /// Whether the peer has not taken what was offered last.
    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    /// Offers to the socket what there is. `false`: it takes no more now.
    ///
    /// # Errors
    /// That of the socket, or the peer has taken nothing for as long as `timeout`. One that takes little, but does so again
    /// and again, has all the time it wants.
    pub(super) fn send(
        &mut self,
        now: Instant,
        timeout: Duration,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> io::Result<bool> {
        while self.len() > 0 {
            match write(&self.octets[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.blocked_since = None;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    let since = *self.blocked_since.get_or_insert(now);
                    let is_over = now >= since + timeout;
                    return if is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(false) };
                }
            }
        }
        self.octets.clear();
        self.sent = 0;
        if self.octets.capacity() > KEPT_OCTETS {
            self.octets = Vec::new();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn outgoing(octets: &[u8]) -> Outgoing {
        let mut outgoing = Outgoing::default();
        outgoing.octets_mut().extend_from_slice(octets);
        outgoing
    }

    /// Sends, at this second, to a peer that takes `room` octets and then no more.
    fn send(outgoing: &mut Outgoing, second: u64, mut room: usize) -> Result<bool, io::ErrorKind> {
        let now = Instant::ZERO + Duration::from_secs(second);
        let sent = outgoing.send(now, TIMEOUT, |octets| {
            let count = octets.len().min(room);
            room -= count;
            if count > 0 { Poll::Ready(Ok(count)) } else { Poll::Pending }
        });
        sent.map_err(|error| error.kind())
    }

    #[test]
    fn who_takes_a_little_again_and_again_is_not_one_who_takes_nothing() {
        let mut slow = outgoing(&[7; 10]);
        for round in 0..9_u64 {
            // Looked at between two octets, too, when nothing has moved.
            for second in [29 * round, 29 * round + 28] {
                let room = usize::from(second.is_multiple_of(29));
                assert_eq!(send(&mut slow, second, room), Ok(false), "{second} seconds");
            }
        }
        assert_eq!(slow.len(), 1);
        assert_eq!(send(&mut slow, 300, 1), Ok(true), "later than ever, but it takes the last one");
        // Whatever it once was late with, it is not held against it.
        slow.octets_mut().push(7);
        assert_eq!([send(&mut slow, 1_000, 0), send(&mut slow, 1_029, 0)], [Ok(false); 2]);
        assert_eq!(send(&mut slow, 1_030, 0), Err(io::ErrorKind::TimedOut));
    }

    #[test]
    fn who_takes_nothing_has_until_the_timeout_though_more_comes_meanwhile() {
        let mut stuck = outgoing(&[7; 10]);
        assert_eq!(send(&mut stuck, 5, 3), Ok(false));
        for second in [6, 20, 34] {
            stuck.octets_mut().push(8);
            assert_eq!(send(&mut stuck, second, 0), Ok(false), "{second} seconds");
            assert!(stuck.is_blocked());
        }
        assert_eq!(stuck.len(), 10);
        assert_eq!(send(&mut stuck, 35, 0), Err(io::ErrorKind::TimedOut));
    }

    #[test]
    fn everything_is_sent_once_and_in_its_order() {
        let octets: Vec<u8> = (0..=255).collect();
        let mut outgoing = outgoing(&octets);
        let mut taken = Vec::new();
        for room in [1, 100, 99, 1_000] {
            let mut room = room;
            let is_done = outgoing.send(Instant::ZERO, TIMEOUT, |octets| {
                // In bites, as a socket may take them.
                let count = octets.len().min(room).min(7);
                room -= count;
                taken.extend_from_slice(&octets[..count]);
                if count > 0 { Poll::Ready(Ok(count)) } else { Poll::Pending }
            });
            assert_eq!(is_done.expect("sent"), room > 0);
        }
        assert_eq!((taken, outgoing.len(), outgoing.is_blocked()), (octets, 0, false));
        assert!(outgoing.send(Instant::ZERO, TIMEOUT, |_| unreachable!("there is nothing")).expect("done"));
    }

    #[test]
    fn what_was_large_is_given_back_and_what_is_small_is_kept() {
        for (octets, kept) in [(KEPT_OCTETS, KEPT_OCTETS), (KEPT_OCTETS + 1, 0)] {
            let mut outgoing = Outgoing { octets: Vec::with_capacity(octets), ..Outgoing::default() };
            outgoing.octets_mut().push(7);
            assert_eq!(send(&mut outgoing, 0, 1), Ok(true));
            assert_eq!(outgoing.octets.capacity(), kept);
        }
    }

    #[test]
    fn a_socket_that_fails_or_takes_nothing_for_ever_is_told_of() {
        for (answer, kind) in [
            (Ok(0), io::ErrorKind::WriteZero),
            (Err(io::ErrorKind::BrokenPipe.into()), io::ErrorKind::BrokenPipe),
        ] {
            let mut answer = Some(answer);
            let write = |_: &[u8]| Poll::Ready(answer.take().expect("asked once"));
            let error = outgoing(&[7]).send(Instant::ZERO, TIMEOUT, write).expect_err("it failed");
            assert_eq!(error.kind(), kind);
        }
    }
}
