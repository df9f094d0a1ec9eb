//! What happened, in order: always as a hash, on demand as text.

use std::fmt::{self, Write};

use smppd::pdu::{Frame, Framing, Header, next_frame};

/// The events of a run. Two runs of one seed have the same hash.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    is_printed: bool,
}

impl Trace {
    /// An empty trace; each event is printed when `is_printed`.
    pub const fn new(is_printed: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, events: 0, is_printed }
    }

    /// Notes an event that happened `nanos` after the beginning.
    pub fn note(&mut self, nanos: u64, event: fmt::Arguments<'_>) {
        self.events += 1;
        _ = write!(Hasher(&mut self.hash), "{nanos} {event}");
        if self.is_printed {
            println!("{:>12.6} {event}", nanos as f64 / 1e9);
        }
    }

    /// Notes the PDUs that pass one end of a connection.
    pub fn pdus(&mut self, nanos: u64, connection: u64, direction: &str, mut octets: &[u8]) {
        while let Framing::Frame(Frame { header, body }) = next_frame(octets, usize::MAX) {
            octets = &octets[header.command_length as usize..];
            let Header { command_id, command_status, sequence_number, .. } = header;
            let sum = body.iter().fold(0_u32, |sum, octet| sum.rotate_left(5) ^ u32::from(*octet));
            let (command, status) = (command_id.0, command_status.0);
            if self.is_printed {
                let text = String::from_utf8_lossy(body).replace('\0', " ");
                println!("                {command_id} {command_status} {text:.160}");
            }
            self.note(
                nanos,
                format_args!("{connection} {direction} {command:x} {sequence_number} {status:x} {sum:x}"),
            );
        }
    }

    /// The hash of all events so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub const fn events(&self) -> u64 {
        self.events
    }
}

/// Text goes into the hash instead of a string.
struct Hasher<'a>(&'a mut u64);

impl Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for octet in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Ok(())
    }
}
