//! The revisions of one key that reads at older revisions, watches and hashes still need.

use crate::engine::revision::Revision;

/// A live key as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Where its value was written.
    pub modified: Revision,
    /// Transaction that created it.
    pub created: i64,
    /// Number of puts since then.
    pub version: i64,
    /// Lease it is attached to, or 0.
    pub lease: i64,
}

/// Lives of a key. A life ends with a deletion; the last one may still go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    live: Option<Live>,
    past: Option<Box<Past>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Past {
    /// Ended lives, oldest first; each ends with the revision of its deletion.
    ended: Vec<Vec<Revision>>,
    /// Revisions of the present life before the newest.
    superseded: Vec<Revision>,
}

impl History {
    /// The live version.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// Whether anything but the live version is known; only such keys have something to compact.
    pub fn has_past(&self) -> bool {
        self.past.is_some()
    }

    /// Whether nothing is known, so that the key can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.live.is_none() && self.past.is_none()
    }

    /// Records a put.
    pub fn put(&mut self, live: Live) {
        if let Some(old) = self.live.replace(live) {
            self.past.get_or_insert_default().superseded.push(old.modified);
        }
    }

    /// Records a deletion. A key without a life gets one that consists of the deletion alone.
    pub fn delete(&mut self, at: Revision) {
        let past = self.past.get_or_insert_default();
        let mut life = std::mem::take(&mut past.superseded);
        life.extend(self.live.take().map(|live| live.modified));
        life.push(at);
        past.ended.push(life);
    }

    /// Where the value that a reader at transaction `at` sees was written.
    pub fn at(&self, at: i64) -> Option<Revision> {
        if let Some(live) = self.live.filter(|live| live.modified.main <= at) {
            return Some(live.modified);
        }
        let past = self.past.as_deref()?;
        if let Some(found) = newest(&past.superseded, at) {
            return Some(found);
        }
        for life in past.ended.iter().rev() {
            if life.last()?.main <= at {
                return None;
            }
            if let Some(found) = newest(life, at) {
                return Some(found);
            }
        }
        None
    }

    /// Forgets what a compaction at `at` removes and hands each removed revision to `removed`, with a flag for
    /// deletions. A deletion exactly at `at` stays, for watches that start there.
    pub fn compact(&mut self, at: i64, mut removed: impl FnMut(Revision, bool)) {
        let Some(past) = self.past.as_deref_mut() else { return };
        let gone = past.ended.iter().take_while(|life| ends_before(life, at)).count();
        for life in past.ended.drain(..gone) {
            let last = life.len() - 1;
            life.into_iter().enumerate().for_each(|(i, rev)| removed(rev, i == last));
        }
        if let Some(life) = past.ended.first_mut() {
            let keep = position(life, at).unwrap_or(0);
            life.drain(..keep).for_each(|rev| removed(rev, false));
        } else {
            let live_covers = self.live.is_some_and(|live| live.modified.main <= at);
            let keep = if live_covers {
                past.superseded.len()
            } else {
                position(&past.superseded, at).unwrap_or(0)
            };
            past.superseded.drain(..keep).for_each(|rev| removed(rev, false));
        }
        if past.ended.is_empty() && past.superseded.is_empty() {
            self.past = None;
        }
    }

    /// The revision at or below `at` that a compaction there would keep; a deletion exactly there does not count.
    pub fn kept(&self, at: i64) -> Option<Revision> {
        let ended = self.past.as_deref().map_or(&[][..], |past| &past.ended);
        if let Some(life) = ended.iter().find(|life| !ends_before(life, at)) {
            let n = position(life, at)?;
            return if n == life.len() - 1 { None } else { Some(life[n]) };
        }
        if let Some(live) = self.live.filter(|live| live.modified.main <= at) {
            return Some(live.modified);
        }
        newest(&self.past.as_deref()?.superseded, at)
    }
}

fn ends_before(life: &[Revision], at: i64) -> bool {
    life.last().is_some_and(|end| end.main < at)
}

fn position(revs: &[Revision], at: i64) -> Option<usize> {
    revs.partition_point(|rev| rev.main <= at).checked_sub(1)
}

fn newest(revs: &[Revision], at: i64) -> Option<Revision> {
    position(revs, at).map(|n| revs[n])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(main: i64) -> Live {
        Live { modified: Revision::new(main, 0), created: main, version: 1, lease: 0 }
    }

    /// put 2, put 4, delete 6, put 8, delete 10, put 12.
    fn sample() -> History {
        let mut history = History::default();
        history.put(live(2));
        history.put(live(4));
        history.delete(Revision::new(6, 0));
        history.put(live(8));
        history.delete(Revision::new(10, 0));
        history.put(live(12));
        history
    }

    #[test]
    fn reads_at_old_revisions() {
        let seen: Vec<i64> = (1..=13).map(|at| sample().at(at).map_or(0, |rev| rev.main)).collect();
        assert_eq!(seen, [0, 2, 2, 4, 4, 0, 0, 8, 8, 0, 0, 12, 12]);
    }

    fn compacted(at: i64) -> (Vec<i64>, History) {
        let mut history = sample();
        let mut removed = Vec::new();
        history.compact(at, |rev, _| removed.push(rev.main));
        (removed, history)
    }

    #[test]
    fn compaction_keeps_what_readers_at_it_see() {
        for at in 1..14 {
            let (_, history) = compacted(at);
            for reader in at..14 {
                assert_eq!(
                    history.at(reader),
                    sample().at(reader),
                    "compacted {at}, read {reader}"
                );
            }
        }
        assert_eq!(compacted(5).0, [2]);
        assert_eq!(compacted(6).0, [2, 4]);
        assert_eq!(compacted(7).0, [2, 4, 6]);
        assert_eq!(compacted(12).0, [2, 4, 6, 8, 10]);
        assert!(!compacted(12).1.has_past());
    }

    #[test]
    fn deletion_at_the_compaction_is_not_hashed() {
        let kept: Vec<i64> =
            (1..=13).map(|at| sample().kept(at).map_or(0, |rev| rev.main)).collect();
        assert_eq!(kept, [0, 2, 2, 4, 4, 0, 0, 8, 8, 0, 0, 12, 12]);
    }
}
