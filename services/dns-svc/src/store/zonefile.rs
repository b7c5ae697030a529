//! Zone files (RFC 1035 section 5): text in, a zone out.

use std::path::Path;

use bytes::Bytes;
use domain::base::iana::Class;
use domain::base::name::ToName;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use crate::engine::Zone;
use crate::wire::{Name, Rdata, Record};

/// How deep `$INCLUDE` may nest.
const MAX_INCLUDES: usize = 7;
/// Largest file read.
const MAX_FILE: u64 = 1 << 30;

/// Reads the zone `origin` from a file.
///
/// # Errors
/// What is wrong, with the file and line.
pub fn read_zone(file: &Path, origin: &Name) -> Result<Zone, String> {
    let mut records = Vec::new();
    read(file, origin, 0, &mut records)?;
    Zone::new(origin, records).map_err(|error| format!("{}: {error}", file.display()))
}

fn read(file: &Path, origin: &Name, depth: usize, records: &mut Vec<Record>) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    if depth > MAX_INCLUDES {
        return Err(fail(&"$INCLUDE nests too deep"));
    }
    if std::fs::metadata(file).map_err(|e| fail(&e))?.len() > MAX_FILE {
        return Err(fail(&"the file is larger than 1 GiB"));
    }
    let mut opened = std::fs::File::open(file).map_err(|e| fail(&e))?;
    let mut scanner = Zonefile::load(&mut opened).map_err(|e| fail(&e))?;
    let name = domain::base::Name::from_octets(Bytes::copy_from_slice(origin.wire()));
    scanner.set_origin(name.map_err(|e| fail(&e))?);
    scanner.set_default_class(Class::IN);
    while let Some(entry) = scanner.next_entry().map_err(|e| fail(&e))? {
        match entry {
            Entry::Record(scanned) => {
                let owner: domain::base::Name<Vec<u8>> = scanned.owner().to_name();
                let (name, _) =
                    Name::read(owner.as_slice(), 0).ok_or_else(|| fail(&"bad owner"))?;
                let mut data = Vec::new();
                let Ok(()) = scanned.data().compose_rdata(&mut data);
                let rtype = scanned.rtype().to_int();
                records.push(Record {
                    name,
                    ttl: scanned.ttl().as_secs(),
                    data: Rdata::Raw { rtype, data },
                });
            }
            Entry::Include { path, origin: included } => {
                let path = file.parent().unwrap_or(Path::new(".")).join(&*path);
                let origin = match included {
                    Some(name) => {
                        Name::read(name.as_slice(), 0).map_or_else(|| origin.clone(), |(n, _)| n)
                    }
                    None => origin.clone(),
                };
                read(&path, &origin, depth + 1, records)?;
            }
        }
    }
    Ok(())
}
