//! The plugins `file` and `auto`: zones from files, replaced as a whole when a file changed.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Outcome;
use super::zone::{Found, Kind, Zone};
use crate::wire::types::{AA, AXFR, IXFR, NOERROR, NXDOMAIN, REFUSED, SERVFAIL};
use crate::wire::{MessageBuilder, Name, Query, unpack};

/// Zones, shared with what reads the files.
#[derive(Debug, Default)]
pub struct Zones {
    list: ArcSwap<Vec<Arc<Zone>>>,
}

impl Zones {
    /// The zones now.
    pub fn load(&self) -> Arc<Vec<Arc<Zone>>> {
        self.list.load_full()
    }

    /// Serves other zones from now on.
    pub fn store(&self, zones: Vec<Arc<Zone>>) {
        self.list.store(Arc::new(zones));
    }
}

/// The plugin.
#[derive(Debug)]
pub struct ZoneFiles {
    name: &'static str,
    zones: Arc<Zones>,
    /// Names below these are answered; every zone's if empty.
    served: Vec<Name>,
    fallthrough: Vec<Name>,
}

/// What a zone says.
#[derive(Debug)]
pub enum Said {
    /// All of it.
    Done(Outcome),
    /// An alias leads out of the zone; the rest has to be looked up elsewhere.
    Continue(Found, Name),
}

impl ZoneFiles {
    /// The plugin `name` over zones that may change.
    pub fn new(
        name: &'static str,
        zones: Arc<Zones>,
        served: Vec<Name>,
        fallthrough: Vec<Name>,
    ) -> Self {
        Self { name, zones, served, fallthrough }
    }

    /// `file` or `auto`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Looks the query up.
    pub fn serve(&self, query: &Query) -> Said {
        if !self.served.is_empty() && !self.served.iter().any(|zone| query.name.is_within(zone)) {
            return Said::Done(Outcome::Pass);
        }
        let zones = self.zones.list.load();
        let zone = zones.iter().filter(|zone| query.name.is_within(zone.origin()));
        let Some(zone) = zone.max_by_key(|zone| zone.origin().wire().len()) else {
            return Said::Done(Outcome::Pass);
        };
        if matches!(query.qtype, AXFR | IXFR) {
            return Said::Done(Outcome::Answer(MessageBuilder::answer(query, 0, REFUSED).build()));
        }
        let mut found = zone.lookup(&query.name, query.qtype);
        if found.may_fall_through
            && found.answer.is_empty()
            && found.kind == Kind::NameError
            && self.fallthrough.iter().any(|zone| query.name.is_within(zone))
        {
            return Said::Done(Outcome::Pass);
        }
        match found.external.take() {
            Some(target) => Said::Continue(found, target),
            None => Said::Done(message(query, &found)),
        }
    }
}

/// The answer to a query whose alias led elsewhere, given what was said there.
pub fn join(query: &Query, mut found: Found, elsewhere: &[u8]) -> Outcome {
    if let Some(rest) = unpack(elsewhere) {
        found.answer.extend(rest.sections[0].iter().cloned());
        match (rest.flags & 0xF) as u8 {
            NXDOMAIN => found.kind = Kind::NameError,
            SERVFAIL => found.kind = Kind::Failure,
            NOERROR if rest.sections[0].is_empty() => found.kind = Kind::NoData,
            _ => {}
        }
    }
    if matches!(found.kind, Kind::NameError | Kind::NoData) {
        found.authority = std::mem::take(&mut found.soa);
    }
    message(query, &found)
}

fn message(query: &Query, found: &Found) -> Outcome {
    let rcode = match found.kind {
        Kind::Success | Kind::NoData | Kind::Delegation => NOERROR,
        Kind::NameError => NXDOMAIN,
        Kind::Failure => SERVFAIL,
    };
    if rcode == SERVFAIL && found.answer.is_empty() {
        return Outcome::Answer(MessageBuilder::answer(query, 0, SERVFAIL).build());
    }
    let referral = found.kind == Kind::Delegation && found.answer.is_empty();
    let mut builder = MessageBuilder::answer(query, if referral { 0 } else { AA }, rcode);
    found.answer.iter().for_each(|record| builder.push_answer(record));
    found.authority.iter().for_each(|record| builder.push_authority(record));
    found.additional.iter().for_each(|record| builder.push_additional(record));
    Outcome::Answer(builder.build())
}
