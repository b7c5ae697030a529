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
    // The scanner of `domain` 0.12 indexes past the end on some broken files; such a file is an error like others.
    let records = std::panic::catch_unwind(|| {
        let mut records = Vec::new();
        read(file, origin, 0, &mut records).map(|()| records)
    });
    let records = records.unwrap_or_else(|_| {
        Err(format!("{}: the file ends within an entry or a word", file.display()))
    })?;
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
    // A last line without its end is a line.
    scanner.extend_from_slice(b"\n");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutated_zone_files_never_panic() {
        let seed = "$TTL 300\n@ IN SOA ns admin ( 1 2 3 4 5 )\n IN NS ns\nns A 10.0.0.1\n*.w IN MX 5 ns\na TXT \"x y\" z\n\
                    c CNAME a\nd DNAME a\n$INCLUDE self\n_x._tcp SRV 1 2 3 ns\n";
        let dir = tempfile::tempdir().unwrap();
        let (file, origin) = (dir.path().join("self"), Name::parse("example.").unwrap());
        let mut state = 5_u64;
        let mut read = 0;
        for _ in 0..500 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = b"()\"; \\\n@$.*A1"[(state >> 20) as usize % 13];
            }
            std::fs::write(&file, &bytes).unwrap();
            if let Ok(zone) = read_zone(&file, &origin) {
                read += 1;
                for name in
                    ["example.", "q.w.example.", "c.example.", "x.d.example.", "ns.example."]
                {
                    zone.lookup(&Name::parse(name).unwrap(), 1);
                }
            }
        }
        // A file that includes itself ends, and is no zone.
        assert!(read < 500);
        std::fs::write(&file, seed).unwrap();
        assert!(read_zone(&file, &origin).unwrap_err().contains("nests too deep"));
    }
}
