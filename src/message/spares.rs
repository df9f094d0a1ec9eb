//! Buffers for contents of messages, used again and again.

/// A buffer has room for a multiple of so many octets.
const STEP: usize = 64;
/// Buffers with room for more than so many steps are not kept.
const STEPS_MAX: usize = 16;
/// So many of each size are kept.
const KEPT_MAX: usize = 16_384;

/// Buffers whose messages are over. The one that was given back last is used next, while the processor still has it at hand:
/// half a million messages a second would otherwise be written to memory from far away, and freed amid strangers.
#[derive(Default, Debug)]
pub struct Spares {
    /// By size, in steps, less one.
    by_size: [Vec<Vec<u8>>; STEPS_MAX],
}

impl Spares {
    /// An empty buffer with room for so many octets.
    pub fn take(&mut self, octets: usize) -> Vec<u8> {
        let steps = octets.div_ceil(STEP).max(1);
        let spare = self.by_size.get_mut(steps - 1).and_then(Vec::pop);
        spare.unwrap_or_else(|| Vec::with_capacity(steps * STEP))
    }

    /// Nobody needs what is in this buffer any more.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        // Rounded down: whoever takes it finds at least the room it asks for.
        let size = (buffer.capacity() / STEP).checked_sub(1);
        if let Some(kept) = size.and_then(|size| self.by_size.get_mut(size))
            && kept.len() < KEPT_MAX
        {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_where_it_fits() {
        let mut spares = Spares::default();
        for octets in [0, 1, 63, 64, 65, 300, 1_024, 1_025, 70_000] {
            let buffer = spares.take(octets);
            assert!(buffer.capacity() >= octets && buffer.is_empty(), "{octets}");
            let place = buffer.as_ptr();
            spares.give(buffer);
            let again = spares.take(octets);
            assert!(again.capacity() >= octets && again.is_empty(), "{octets}");
            // A larger one went back to the allocator, which may do the same with it.
            assert!(again.as_ptr() == place || octets > STEP * STEPS_MAX, "{octets}");
        }
        // A buffer of another make.
        spares.give(Vec::with_capacity(100));
        assert!(spares.take(65).capacity() >= 65);
        assert!(spares.take(64).capacity() >= 64);
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let mut spares = Spares::default();
        (0..2 * KEPT_MAX).for_each(|_| spares.give(Vec::with_capacity(STEP)));
        assert_eq!(spares.by_size[0].len(), KEPT_MAX);
    }
}
