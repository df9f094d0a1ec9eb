//! Everything in a store, one JSON object a line.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use super::snapshot::{Snapshot, Visitor, each_final, take};
use super::{Failure, Fault, Opened, Output, Partitions, What, things};
use crate::journal::{Position, Record};
use crate::message::{Content, Parcel, PartitionNumber};
use crate::store::RestPlace;

/// Writes what there is; whether all of it could be read.
pub(super) fn export(
    numbers: &[PartitionNumber],
    partitions: &mut dyn Partitions,
    what: What,
    output: &mut Output<'_>,
) -> Result<bool, Failure> {
    let mut is_well = true;
    for number in numbers {
        let opened = partitions.open(*number)?;
        let faults = opened.read(|| export_one(&opened, partitions, what, &mut *output.out))?;
        for fault in faults {
            (output.tell)(&format!("partition {number}: {fault}"));
            is_well = false;
        }
    }
    Ok(is_well)
}

fn export_one(
    opened: &Opened,
    partitions: &dyn Partitions,
    what: What,
    out: &mut dyn Write,
) -> Result<Vec<Fault>, Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let retention = partitions.parcel_retention();
    let snapshot = if opened.is_live {
        // It may have to be read anew: nothing is said before it is certain.
        let lines = || Ok(Lines { out: BufWriter::new(spool()?), what, retention });
        let (snapshot, mut lines) = take(opened, partitions, lines)?;
        lines.rest_of(&snapshot)?;
        let mut spool = lines.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        spool.rewind()?;
        io::copy(&mut spool, &mut out)?;
        snapshot
    } else {
        let (snapshot, mut lines) = take_once(opened, partitions, Lines { out: &mut out, what, retention })?;
        lines.rest_of(&snapshot)?;
        snapshot
    };
    let mut faults = snapshot.faults.clone();
    if what.has_final() {
        let seen = each_final(opened, snapshot.finals(), |block, message| {
            Ok(things::ended(message, block).write_line(&mut out)?)
        })?;
        faults.extend(seen.faults);
    }
    out.flush()?;
    Ok(faults)
}

fn take_once<V: Visitor>(
    opened: &Opened,
    partitions: &dyn Partitions,
    visitor: V,
) -> Result<(Snapshot, V), Failure> {
    let mut visitor = Some(visitor);
    take(opened, partitions, || {
        visitor.take().ok_or_else(|| Failure::Store("a store that nobody changes is read once".to_owned()))
    })
}

/// A file without a name, gone with whoever has it open.
fn spool() -> Result<File, Failure> {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("smppd-export-{}", std::process::id()));
    let trouble = |error: io::Error| Failure::Trouble(format!("{}: {error}", path.display()));
    let spool = File::options().read(true).write(true).create_new(true).open(&path).map_err(trouble)?;
    std::fs::remove_file(&path).map_err(trouble)?;
    Ok(spool)
}

/// Writes unfinished things.
struct Lines<W> {
    out: W,
    what: What,
    retention: std::time::Duration,
}

impl<W: Write> Lines<W> {
    fn parcel(&mut self, parcel: &Parcel, place: Option<RestPlace>) -> Result<(), Failure> {
        if self.what.has_receipts() {
            let fields = things::parcel(&parcel.view(), parcel.expires_at(self.retention), place);
            fields.write_line(&mut self.out)?;
        }
        Ok(())
    }

    /// What the journal speaks of.
    fn rest_of(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        if self.what.has_unfinished() {
            let mut messages: Vec<_> = snapshot.recovery.messages().collect();
            messages.sort_unstable_by_key(|message| Content::id_of(message.content_octets()));
            for message in messages {
                things::message(&message.content(), &message.standing, None).write_line(&mut self.out)?;
            }
        }
        let mut parcels: Vec<_> = snapshot.recovery.parcels().collect();
        parcels.sort_unstable_by_key(|parcel| parcel.view().key);
        parcels.into_iter().try_for_each(|parcel| self.parcel(parcel, None))
    }
}

impl<W: Write> Visitor for Lines<W> {
    fn at_rest(&mut self, place: RestPlace, _: Position, record: &Record<'_>) -> Result<(), Failure> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is at rest")]
        match *record {
            Record::MessageAtRest { standing, content } if self.what.has_unfinished() => {
                if let Ok(content) = Content::read(content) {
                    things::message(&content, &standing, Some(place)).write_line(&mut self.out)?;
                }
                Ok(())
            }
            Record::DeliveryAtRest(octets) => match Parcel::read(octets) {
                Ok(parcel) => self.parcel(&parcel, Some(place)),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
