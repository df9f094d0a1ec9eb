//! What is in a store, for people: read from a copy when no server runs, and by the server itself when one does.
//!
//! Nothing here changes anything. What a restart would find is found as a restart finds it, by [`Recovery`], but only
//! what the journal speaks of is taken into memory; everything else passes by.
//!
//! [`Recovery`]: crate::shard::Recovery

mod dump;
mod export;
mod inspect;
mod journal;
mod snapshot;
mod things;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::account::AccountSettings;
use crate::message::PartitionNumber;
use crate::server::state::{self, AtRest, caught};

/// What is asked of a store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) struct Request {
    /// What to do.
    pub(super) action: Action,
    /// With this partition only.
    pub(super) partition: Option<u8>,
    /// Answer for programs.
    pub(super) json: bool,
}

/// What to do with a store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Action {
    /// Say what there is, in numbers.
    Inspect,
    /// Look for faults.
    Verify,
    /// Write everything, a line each.
    Export(What),
    /// Tell the life of a message.
    Dump(String),
}

/// What to export.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum What {
    /// Messages that are not over.
    Unfinished,
    /// Receipts and replies that are not confirmed.
    Receipts,
    /// Messages that are over.
    Final,
    /// All three.
    All,
}

impl What {
    const fn has_unfinished(self) -> bool {
        matches!(self, Self::Unfinished | Self::All)
    }

    const fn has_receipts(self) -> bool {
        matches!(self, Self::Receipts | Self::All)
    }

    const fn has_final(self) -> bool {
        matches!(self, Self::Final | Self::All)
    }
}

/// Partitions that can be read.
pub(super) trait Partitions {
    /// Which there are, in order.
    fn numbers(&self) -> Vec<PartitionNumber>;

    /// Opens one.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&mut self, number: PartitionNumber) -> Result<Opened, Failure>;

    /// The accounts there are now.
    fn accounts(&self) -> Vec<AccountSettings>;

    /// How long receipts and replies are kept.
    fn parcel_retention(&self) -> Duration;
}

/// A partition that can be read.
pub(super) struct Opened {
    /// Which one.
    pub(super) number: PartitionNumber,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Its state at rest, or a copy of it.
    pub(super) at_rest: AtRest,
    /// A server is changing it meanwhile.
    pub(super) is_live: bool,
    /// Goes when the partition has been read.
    pub(super) _copy: Option<Box<dyn Send>>,
}

impl Opened {
    /// What went wrong with its state at rest, in the words of a start.
    fn told(&self, error: &io::Error) -> String {
        state::told(&self.folder.join("state"), error)
    }

    /// Reads it. At some kinds of damage sled panics: that is news of the store.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        caught(|| Ok(read())).unwrap_or_else(|_| {
            let told = if self.is_live { "of which the log says more" } else { "which was told above" };
            let what = format!("reading it ended in a panic, {told}");
            Err(Failure::Store(state::damaged(&self.folder.join("state"), &what)))
        })
    }
}

/// Where answers go.
pub(super) struct Output<'a> {
    /// What was asked for.
    pub(super) out: &'a mut dyn Write,
    /// What people want to know meanwhile.
    pub(super) tell: &'a mut dyn FnMut(&str),
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody takes it.
    Output(io::Error),
    /// The store, or the request.
    Store(String),
    /// Something of ours, that says nothing of the store.
    Trouble(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Store(message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(error) => error.fmt(f),
            Self::Store(message) | Self::Trouble(message) => f.write_str(message),
        }
    }
}

/// Something that is wrong with a store.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(super) struct Fault {
    /// The file, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// Where in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    /// What is wrong.
    what: String,
}

impl Fault {
    fn of_file(path: &Path, offset: Option<usize>, what: String) -> Self {
        Self { file: Some(path.display().to_string()), offset, what }
    }

    fn of_state(what: String) -> Self {
        Self { file: None, offset: None, what }
    }

    const fn is_of_state(&self) -> bool {
        self.file.is_none()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.offset) {
            (Some(file), Some(offset)) => write!(f, "{file}, offset {offset}: {}", self.what),
            (Some(file), None) => write!(f, "{file}: {}", self.what),
            (None, _) => write!(f, "state at rest: {}", self.what),
        }
    }
}

/// Does what was asked; whether all is well.
///
/// # Errors
/// Something cannot be read, or nobody takes the answer.
pub(super) fn perform(
    request: &Request,
    partitions: &mut dyn Partitions,
    output: &mut Output<'_>,
) -> Result<bool, Failure> {
    let mut numbers = partitions.numbers();
    if let Some(number) = request.partition {
        numbers.retain(|known| known.0 == number);
        if numbers.is_empty() {
            return Err(Failure::Store(format!("there is no partition {}", PartitionNumber(number))));
        }
    }
    match &request.action {
        Action::Inspect => inspect::inspect(&numbers, partitions, request.json, output),
        Action::Verify => verify::verify(&numbers, partitions, request.json, output),
        Action::Export(what) => export::export(&numbers, partitions, *what, output),
        Action::Dump(id) => dump::dump(id, &numbers, partitions, request.json, output),
    }
}

/// A number as people read it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size as people read it.
fn size(octets: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if octets < 1024 {
        return format!("{octets} B");
    }
    let mut value = octets as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// One or many of something.
fn count(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Rows with their columns under one another; those that `right` names are set to the right.
fn table(indent: usize, right: &[usize], rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(&" ".repeat(indent));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_read_well() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(grouped), ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1536, 8 << 20, 3 << 40].map(size),
            ["0 B", "1023 B", "1.5 KiB", "8.0 MiB", "3.0 TiB"]
        );
    }

    #[test]
    fn columns_stand_under_one_another() {
        let rows = [["a", "1"], ["long", "200"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(2, &[1], &rows), "  a       1\n  long  200\n");
    }
}
