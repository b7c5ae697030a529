//! The records of one zone, and looking a name up in them (RFC 1034 section 4.3.2, RFC 4592, RFC 6672).

use std::collections::HashMap;

use crate::wire::types::{A, AAAA, CNAME, DNAME, DS, MX, NS, SOA, SRV};
use crate::wire::{Name, Rdata, Record};

/// Aliases followed in one zone.
const MAX_CHAIN: usize = 9;

/// All records of a zone. Owner names are in lower case; empty non-terminals are there without records.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    serial: u32,
    nodes: HashMap<Name, Vec<(u16, Vec<Record>)>>,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There are records, or an alias to outside.
    Success,
    /// The name does not exist.
    NameError,
    /// The name exists without the type.
    NoData,
    /// Another server knows.
    Delegation,
    /// The records run in a circle.
    Failure,
}

/// What a lookup found.
#[derive(Debug)]
pub struct Found {
    /// How it ended.
    pub kind: Kind,
    /// Answer section.
    pub answer: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section.
    pub additional: Vec<Record>,
    /// A name outside of this zone to go on with.
    pub external: Option<Name>,
    /// The SOA, for the case that what `external` names is not there.
    pub soa: Vec<Record>,
    /// Nothing of the name exists, though names below it may.
    pub may_fall_through: bool,
}

impl Zone {
    /// A zone from its records; those outside of it are left out.
    ///
    /// # Errors
    /// When there is no SOA.
    pub fn new(origin: &Name, records: Vec<Record>) -> Result<Self, String> {
        let mut nodes: HashMap<Name, Vec<(u16, Vec<Record>)>> = HashMap::new();
        for record in records {
            let owner = record.name.to_lowercase();
            if !owner.is_within(origin) {
                continue;
            }
            let mut above = owner.clone();
            while above != *origin {
                let Some(parent) = above.parent() else { break };
                nodes.entry(parent.clone()).or_default();
                above = parent;
            }
            let rtype = record.data.rtype();
            // CoreDNS keeps owners in lower case.
            let record = Record { name: owner.clone(), ..record };
            let node = nodes.entry(owner).or_default();
            match node.iter_mut().find(|(kind, _)| *kind == rtype) {
                Some((_, list)) if !list.iter().any(|old| old.data == record.data) => {
                    list.push(record)
                }
                Some(_) => {}
                None => node.push((rtype, vec![record])),
            }
        }
        let soa = of_type(nodes.get(origin), SOA).first();
        let Some(Record { data: Rdata::Raw { data, .. }, .. }) = soa else {
            return Err(format!("file has no SOA record for origin {origin}"));
        };
        let at = data.len().saturating_sub(20);
        let serial = data.get(at..at + 4).map_or([0; 4], |b| [b[0], b[1], b[2], b[3]]);
        Ok(Self { origin: origin.clone(), serial: u32::from_be_bytes(serial), nodes })
    }

    /// Serial of the SOA.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Name of the zone.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// Looks up a name in lower case; owners in the answer are in lower case too, as CoreDNS's.
    pub fn lookup(&self, name: &Name, qtype: u16) -> Found {
        if *name == self.origin && qtype == NS {
            let servers = self.of(name, NS).to_vec();
            let additional = self.glue(&servers, &self.origin);
            return Found { additional, ..self.found(Kind::Success, servers, Vec::new()) };
        }
        self.walk(name, qtype, 0)
    }

    fn walk(&self, name: &Name, qtype: u16, depth: usize) -> Found {
        if depth > MAX_CHAIN {
            // CoreDNS gives the aliases it followed so far.
            let servers = self.of(&self.origin, NS).to_vec();
            return self.found(Kind::Success, Vec::new(), servers);
        }
        let mut encloser = self.origin.clone();
        for step in self.path(name) {
            if !self.nodes.contains_key(&step) {
                break;
            }
            if let Some(dname) = self.of(&step, DNAME).first()
                && step != *name
            {
                return self.substitute(dname, name, qtype, depth);
            }
            if step != self.origin
                && !self.of(&step, NS).is_empty()
                && !(qtype == DS && step == *name)
            {
                return self.referral(&step);
            }
            encloser = step;
        }
        if encloser == *name {
            return self.at(name, name, qtype, depth);
        }
        match encloser.child("*").ok().filter(|wildcard| self.nodes.contains_key(wildcard)) {
            Some(wildcard) => self.at(&wildcard, name, qtype, depth),
            None => {
                let soa = self.of(&self.origin, SOA).to_vec();
                let found = self.found(Kind::NameError, Vec::new(), soa);
                Found { may_fall_through: true, ..found }
            }
        }
    }

    /// The records at `owner`, for `name`, which differs from it under a wildcard.
    fn at(&self, owner: &Name, name: &Name, qtype: u16, depth: usize) -> Found {
        let rename = |record: &Record| {
            let name = if owner == name { record.name.clone() } else { name.clone() };
            Record { name, ..record.clone() }
        };
        let alias = self.of(owner, CNAME).first().filter(|_| qtype != CNAME);
        if let Some(alias) = alias {
            return self.follow(rename(alias), qtype, depth);
        }
        let answer: Vec<Record> = self.of(owner, qtype).iter().map(rename).collect();
        if answer.is_empty() {
            let soa = self.of(&self.origin, SOA).to_vec();
            let empty = self.nodes.get(owner).is_none_or(Vec::is_empty) && owner == name;
            return Found { may_fall_through: empty, ..self.found(Kind::NoData, answer, soa) };
        }
        let authority = self.of(&self.origin, NS).to_vec();
        let additional = self.addresses(&answer);
        Found { additional, ..self.found(Kind::Success, answer, authority) }
    }

    /// An alias, and what stands at its end.
    fn follow(&self, alias: Record, qtype: u16, depth: usize) -> Found {
        let Some(target) = target(&alias) else {
            return self.found(Kind::Failure, Vec::new(), Vec::new());
        };
        let mut answer = vec![alias];
        let authority = self.of(&self.origin, NS).to_vec();
        if !target.is_within(&self.origin) {
            let found = self.found(Kind::Success, answer, authority);
            let soa = self.of(&self.origin, SOA).to_vec();
            return Found { external: Some(target), soa, ..found };
        }
        let rest = self.walk(&target, qtype, depth + 1);
        if rest.kind == Kind::Failure {
            return rest;
        }
        let exact = self.nodes.get(&target).is_some_and(|node| !node.is_empty());
        answer.extend(rest.answer);
        if rest.kind == Kind::NoData && exact && qtype != NS {
            // As CoreDNS: the type is missing at the end of an alias, and the servers are named, not the SOA.
            return self.found(Kind::Success, answer, authority);
        }
        Found { answer, may_fall_through: false, ..rest }
    }

    fn substitute(&self, dname: &Record, name: &Name, qtype: u16, depth: usize) -> Found {
        let owner = dname.name.to_lowercase();
        let target = target(dname).and_then(|target| name.replace_suffix(&owner, &target));
        let Some(target) = target.filter(|target| target != name) else {
            return self.found(Kind::Failure, Vec::new(), Vec::new());
        };
        let data = Rdata::Raw { rtype: CNAME, data: target.wire().to_vec() };
        let alias = Record { name: name.clone(), ttl: dname.ttl, data };
        let mut found = if qtype == CNAME {
            self.found(Kind::Success, vec![alias], self.of(&self.origin, NS).to_vec())
        } else {
            self.follow(alias, qtype, depth)
        };
        if found.kind != Kind::Failure {
            found.answer.insert(0, dname.clone());
        }
        found
    }

    fn referral(&self, cut: &Name) -> Found {
        let servers = self.of(cut, NS).to_vec();
        let additional = self.glue(&servers, &self.origin);
        Found { additional, ..self.found(Kind::Delegation, Vec::new(), servers) }
    }

    fn found(&self, kind: Kind, answer: Vec<Record>, authority: Vec<Record>) -> Found {
        Found {
            kind,
            answer,
            authority,
            additional: Vec::new(),
            external: None,
            soa: Vec::new(),
            may_fall_through: false,
        }
    }

    /// Addresses of name servers.
    fn glue(&self, servers: &[Record], within: &Name) -> Vec<Record> {
        let names = servers.iter().filter_map(target).filter(|name| name.is_within(within));
        self.addresses_of(names)
    }

    /// Addresses of the hosts an answer names.
    pub fn addresses(&self, answer: &[Record]) -> Vec<Record> {
        const SVCB_HTTPS: [u16; 2] = [64, 65];
        let naming = answer.iter().filter(|record| {
            let rtype = record.data.rtype();
            matches!(rtype, MX | SRV) || SVCB_HTTPS.contains(&rtype)
        });
        self.addresses_of(naming.filter_map(target))
    }

    fn addresses_of(&self, names: impl Iterator<Item = Name>) -> Vec<Record> {
        let mut seen: Vec<Name> = Vec::new();
        let mut list = Vec::new();
        for name in names {
            if seen.contains(&name) {
                continue;
            }
            list.extend_from_slice(self.of(&name, A));
            list.extend_from_slice(self.of(&name, AAAA));
            seen.push(name);
        }
        list
    }

    /// The names from the origin down to `name`.
    fn path(&self, name: &Name) -> Vec<Name> {
        let mut path = vec![name.clone()];
        while let Some(last) = path.last()
            && *last != self.origin
        {
            let Some(parent) = last.parent() else { break };
            path.push(parent);
        }
        path.reverse();
        path
    }

    fn of(&self, name: &Name, rtype: u16) -> &[Record] {
        of_type(self.nodes.get(name), rtype)
    }
}

fn of_type(node: Option<&Vec<(u16, Vec<Record>)>>, rtype: u16) -> &[Record] {
    let list = node.and_then(|node| node.iter().find(|(kind, _)| *kind == rtype));
    list.map(|(_, records)| records.as_slice()).unwrap_or_default()
}

/// The name in the data of a record, in lower case.
pub fn target(record: &Record) -> Option<Name> {
    let Rdata::Raw { rtype, data } = &record.data else { return None };
    let at = match *rtype {
        NS | CNAME | DNAME => 0,
        MX | 64 | 65 => 2,
        SRV => 6,
        _ => return None,
    };
    Name::read(data, at).map(|(name, _)| name.to_lowercase())
}
