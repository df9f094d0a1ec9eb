//! The least that a durable log can do, to measure the store against: append to a preallocated file, fdatasync, again.
//!
//!     cargo run --release --example raw_append -- FILE [SECONDS] [OCTETS A BATCH] [fresh]
//!
//! Each message is 367 octets in four records, copied one by one into the batch, as `smppd store bench` has them. The file
//! is zeros when it is first written, and is written over again and again, as the journal is; `fresh` appends to one that
//! is only allocated, and then to another, as most logs do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

const FILE_OCTETS: u64 = 256 << 20;
const RECORDS: [usize; 4] = [300, 29, 24, 14];

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("the name of a file to write");
    let mut number = |default| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (seconds, batch_octets) = (number(10), number(512 << 10) as usize);
    let is_fresh = arguments.next().is_some_and(|word| word == "fresh");
    let allocated = || {
        let file = File::create(&path)?;
        fallocate(&file, FallocateFlags::empty(), 0, FILE_OCTETS)?;
        file.sync_all().map(|()| file)
    };
    let mut file = allocated()?;
    if !is_fresh {
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_OCTETS).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
    }

    let source = [7_u8; 300];
    let mut batch = Vec::with_capacity(batch_octets + 512);
    let (mut offset, mut messages, mut commits) = (0, 0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        batch.clear();
        while batch.len() < batch_octets {
            RECORDS.iter().for_each(|octets| batch.extend_from_slice(&source[..*octets]));
            messages += 1;
        }
        batch.resize(batch.len().next_multiple_of(4096), 0);
        if offset + batch.len() as u64 > FILE_OCTETS {
            offset = 0;
            if is_fresh {
                file = allocated()?;
            }
        }
        file.write_all_at(&batch, offset)?;
        file.sync_data()?;
        offset += batch.len() as u64;
        commits += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.0} messages/s durable, {:.0} commits/s",
        messages as f64 / seconds,
        commits as f64 / seconds
    );
    std::fs::remove_file(path)
}
