//! Our own requests that wait for their responses.

use std::collections::VecDeque;
use std::time::Duration;

use crate::pdu::CommandId;
use crate::time::Instant;

/// The last sequence_number; the next is 1 again.
const SEQUENCE_MAX: u32 = 0x7FFF_FFFF;

/// Slots whose memory an empty window keeps.
const SLOTS_KEPT: usize = 1_024;

/// A request in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlight<T> {
    /// What was asked.
    pub command_id: CommandId,
    /// What it was about, in the words of whoever asked; `None` for enquire_link and unbind.
    pub token: Option<T>,
    /// When it counts as failed.
    pub deadline: Instant,
}

/// Requests in flight, in the order in which they were sent. Numbers follow one another, so the place of a
/// response is found by subtraction, however out of order it comes.
#[derive(Debug)]
pub struct Window<T> {
    slots: VecDeque<Option<InFlight<T>>>,
    first: u32,
    tokens: usize,
}

impl<T: Copy> Default for Window<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Window<T> {
    /// An empty window whose first sequence_number is 1.
    pub const fn new() -> Self {
        Self { slots: VecDeque::new(), first: 1, tokens: 0 }
    }

    /// Requests with a token, unanswered.
    pub const fn tokens(&self) -> usize {
        self.tokens
    }

    /// Notes a request and gives its sequence_number.
    pub fn open(&mut self, request: InFlight<T>) -> u32 {
        let number = advance(self.first, self.slots.len());
        self.tokens += usize::from(request.token.is_some());
        self.slots.push_back(Some(request));
        number
    }

    /// The request that `sequence_number` would answer.
    pub fn peek(&self, sequence_number: u32) -> Option<&InFlight<T>> {
        self.slots.get(self.place(sequence_number)?)?.as_ref()
    }

    /// The request that `sequence_number` answers, which is answered now.
    pub fn close(&mut self, sequence_number: u32) -> Option<InFlight<T>> {
        let place = self.place(sequence_number)?;
        let request = self.slots.get_mut(place)?.take()?;
        self.answered(&request);
        Some(request)
    }

    /// The oldest request whose time is over at `now`. Deadlines ascend, save where unbind is given less
    /// time than what went before it; then it waits for that.
    pub fn expire(&mut self, now: Instant) -> Option<InFlight<T>> {
        match self.slots.front() {
            Some(Some(oldest)) if oldest.deadline <= now => self.take_oldest(),
            Some(_) | None => None,
        }
    }

    /// Gives every request this much more time.
    pub fn postpone(&mut self, pause: Duration) {
        for request in self.slots.iter_mut().flatten() {
            request.deadline = request.deadline + pause;
        }
    }

    /// The oldest request, whatever its time.
    pub fn take_oldest(&mut self) -> Option<InFlight<T>> {
        let request = self.slots.front_mut()?.take()?;
        self.answered(&request);
        Some(request)
    }

    /// When the oldest request counts as failed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.slots.front()?.as_ref().map(|request| request.deadline)
    }

    fn place(&self, sequence_number: u32) -> Option<usize> {
        if !(1..=SEQUENCE_MAX).contains(&sequence_number) {
            return None;
        }
        let distance = i64::from(sequence_number) - i64::from(self.first);
        usize::try_from(distance.rem_euclid(i64::from(SEQUENCE_MAX))).ok()
    }

    fn answered(&mut self, request: &InFlight<T>) {
        self.tokens -= usize::from(request.token.is_some());
        // The front is always a request that still waits.
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first = advance(self.first, 1);
        }
        // One that is slow to be answered holds up the slots of all behind it; that is not kept for ever.
        if self.slots.is_empty() && self.slots.capacity() > SLOTS_KEPT {
            self.slots = VecDeque::new();
        }
    }
}

/// The number `steps` behind `number`: 1 comes after 0x7FFFFFFF.
fn advance(number: u32, steps: usize) -> u32 {
    ((u64::from(number) - 1 + steps as u64) % u64::from(SEQUENCE_MAX)) as u32 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: u32) -> InFlight<u32> {
        InFlight {
            command_id: CommandId::DELIVER_SM,
            token: Some(token),
            deadline: Instant::from_nanos(u64::from(token)),
        }
    }

    #[test]
    fn responses_find_their_requests_in_any_order() {
        let mut window = Window::new();
        let numbers: Vec<u32> = (0..5).map(|token| window.open(request(token))).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        for token in [2, 0, 4, 1, 3] {
            let number = numbers[token as usize];
            assert_eq!(window.close(number).and_then(|request| request.token), Some(token));
            assert_eq!(window.close(number), None);
        }
        assert_eq!((window.tokens(), window.open(request(9))), (0, 6));
    }

    #[test]
    fn numbers_go_round_behind_the_last() {
        let mut window = Window { first: SEQUENCE_MAX - 1, ..Window::new() };
        let numbers: Vec<u32> = (0..4).map(|token| window.open(request(token))).collect();
        assert_eq!(numbers, [SEQUENCE_MAX - 1, SEQUENCE_MAX, 1, 2]);
        assert_eq!(window.close(2).and_then(|request| request.token), Some(3));
        assert_eq!(window.close(SEQUENCE_MAX - 1).and_then(|request| request.token), Some(0));
        assert_eq!(window.close(SEQUENCE_MAX).and_then(|request| request.token), Some(1));
        assert_eq!(window.close(1).and_then(|request| request.token), Some(2));
    }

    #[test]
    fn stray_numbers_answer_nothing() {
        let mut window = Window::new();
        window.open(request(0));
        for number in [0, 2, SEQUENCE_MAX, SEQUENCE_MAX + 1, u32::MAX] {
            assert_eq!(window.close(number), None, "{number}");
        }
    }

    #[test]
    fn the_oldest_unanswered_request_expires_first() {
        let mut window = Window::new();
        (1..=3).for_each(|token| _ = window.open(request(token)));
        window.close(1);
        assert_eq!(window.next_deadline(), Some(Instant::from_nanos(2)));
        assert_eq!(window.expire(Instant::from_nanos(1)), None);
        assert_eq!(window.expire(Instant::from_nanos(2)).and_then(|request| request.token), Some(2));
    }
}
