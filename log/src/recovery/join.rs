//! Which of the directories at the configured paths are this log's, and which of them tells the truth about metadata. Pure.
//!
//! Every directory has all metadata, up to a sequence, and metadata names every directory. Before the log goes on without one, it
//! notes so in the others. So one that another calls absent was left behind, whatever its sequence; two that call each other
//! absent have each gone on alone, and cannot be brought together; of those that nobody left behind the highest sequence is the
//! truth, and the others are a part of it.
//!
//! Invariant: a directory that holds anything is never given up: it is this log's, or it is left as it is and said to be so.
//! Neighbours: the recovery calls it between reading and changing anything.

use super::read::ASKED;
use crate::metadata::{DirectoryMetadata, DirectoryNumber, DirectoryState, MetadataState};
use crate::node::Metadata;

/// What a directory says.
pub(super) struct Claim<'a> {
    pub(super) id: [u8; 16],
    pub(super) metadata: &'a Metadata,
    /// Records are missing in it: damage took them.
    pub(super) holed: bool,
    /// It has files of partitions.
    pub(super) holds_partitions: bool,
}

/// What was found at a path.
pub(super) enum Candidate<'a> {
    Claim(Claim<'a>),
    Empty {
        /// A person asked for it to be taken.
        asked: bool,
    },
    Failed(String),
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is this directory.
    Member(DirectoryNumber),
    /// It becomes a new one; what is there holds nothing.
    Joins,
    /// It is not touched, because of this.
    Left(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The path whose metadata counts; `None` when there is no directory yet.
    pub(super) truth: Option<usize>,
    /// By path.
    pub(super) fates: Vec<Fate>,
}

/// Decides over all paths at once.
pub(super) fn plan(candidates: &[Candidate<'_>]) -> Plan {
    let Some(truth) = truth(candidates) else {
        let fates = candidates.iter().map(|c| match c {
            Candidate::Failed(why) => Fate::Left(why.clone()),
            _ => Fate::Joins,
        });
        return Plan { truth: None, fates: fates.collect() };
    };
    let (index, main) = truth;
    let mut fates: Vec<Fate> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        fates.push(match candidate {
            Candidate::Claim(claim) => fate(main, claim, &fates),
            // Decided below, once it is known who is missing.
            Candidate::Empty { .. } => Fate::Joins,
            Candidate::Failed(why) => Fate::Left(why.clone()),
        });
    }
    let found = |number| fates.contains(&Fate::Member(number));
    let lost: Vec<DirectoryNumber> = main
        .metadata
        .state
        .directories()
        .filter(|d| !found(d.number) && main.metadata.state.partitions_in(d.number) > 0)
        .map(|d| d.number)
        .collect();
    let failed = candidates.iter().filter(|c| matches!(c, Candidate::Failed(_))).count();
    // More are missing than have failed: an empty folder may be a disk that was not mounted.
    if let Some(lost) = lost.get(failed) {
        for (fate, candidate) in fates.iter_mut().zip(candidates) {
            if let Candidate::Empty { asked: false } = candidate {
                *fate = Fate::Left(format!(
                    "it is empty, and directory {} of this log is missing: if it is lost for good, put an empty file {ASKED} \
                     there to have a new one begun",
                    lost.get()
                ));
            }
        }
    }
    Plan { truth: Some(index), fates }
}

/// The claim whose metadata counts.
fn truth<'a, 'b>(candidates: &'a [Candidate<'b>]) -> Option<(usize, &'a Claim<'b>)> {
    let claims = || {
        candidates.iter().enumerate().filter_map(|(i, c)| match c {
            Candidate::Claim(claim) => Some((i, claim)),
            _ => None,
        })
    };
    // The first path decides whose log this is, of those that have one.
    let (_, first) = claims().find(|(_, c)| !is_blank(c)).or_else(|| claims().next())?;
    let ours = || claims().filter(|(_, c)| c.id == first.id || knows(first, c) || knows(c, first));
    let left_behind = |c: &Claim<'_>| ours().any(|(_, other)| has_left(other, c));
    let mut best: Option<(usize, &Claim<'_>)> = None;
    for (i, claim) in ours().filter(|(_, c)| !left_behind(c)) {
        let rank = |c: &Claim<'_>| (!c.holed, c.metadata.sequence);
        if best.is_none_or(|(_, best)| rank(claim) > rank(best)) {
            best = Some((i, claim));
        }
    }
    best.or_else(|| claims().find(|(_, c)| c.id == first.id))
}

fn fate(main: &Claim<'_>, claim: &Claim<'_>, before: &[Fate]) -> Fate {
    let number = if claim.id == main.id && main.metadata.state.directories().next().is_none() {
        Some(DirectoryNumber::FIRST)
    } else {
        entry(main, claim).map(|d| d.number)
    };
    match number {
        Some(number) if before.contains(&Fate::Member(number)) => {
            Fate::Left(format!("it is a copy of directory {}", number.get()))
        }
        _ if claim.id != main.id && has_left(claim, main) => Fate::Left(
            "it is of this log, but each of the two has gone on without the other".to_owned(),
        ),
        Some(number) => Fate::Member(number),
        // One that was given up once nothing of this log was in it any more is as good as new.
        None if is_blank(claim) || has_left(main, claim) => Fate::Joins,
        None => Fate::Left(format!(
            "it belongs to another log, with {} topics",
            claim.metadata.state.topics().count()
        )),
    }
}

/// What one says of the other; nothing of one that is forgotten.
fn entry<'a>(of: &'a Claim<'_>, about: &Claim<'_>) -> Option<&'a DirectoryMetadata> {
    let gone = |d: &&DirectoryMetadata| d.id == about.id && d.state != DirectoryState::Gone;
    of.metadata.state.directories().find(gone)
}

fn knows(of: &Claim<'_>, about: &Claim<'_>) -> bool {
    entry(of, about).is_some()
}

/// Whether the one has gone on without the other, or given it up. One that has been taken in again since, and then went on
/// without the first, knows better: the first failed before it could write that down.
fn has_left(one: &Claim<'_>, other: &Claim<'_>) -> bool {
    let outdated = says_later(other, one) && says_left(other, one) && !says_later(one, other);
    says_left(one, other) && !outdated
}

/// What a claim says last of an id.
fn latest(of: &Claim<'_>, id: [u8; 16]) -> Option<DirectoryMetadata> {
    let entries = of.metadata.state.directories().filter(|d| d.id == id);
    entries.max_by_key(|d| d.number).copied()
}

fn says_left(one: &Claim<'_>, other: &Claim<'_>) -> bool {
    latest(one, other.id).is_some_and(|d| d.state != DirectoryState::Present)
}

/// Whether a directory knows of a change of its own state that the other does not.
fn says_later(one: &Claim<'_>, other: &Claim<'_>) -> bool {
    let age = |d: DirectoryMetadata| (d.number, d.changes);
    match (latest(one, one.id), latest(other, one.id)) {
        (Some(own), Some(others)) => age(own) > age(others),
        _ => false,
    }
}

/// Nothing would be lost with it.
fn is_blank(claim: &Claim<'_>) -> bool {
    !claim.holds_partitions && claim.metadata.state.topics().next().is_none()
}

/// What metadata has to say once it is known which directories are there: the new ones get the next numbers, in order.
pub(super) fn changes(
    state: &MetadataState,
    first: [u8; 16],
    present: &[DirectoryNumber],
    joining: &[[u8; 16]],
) -> Vec<DirectoryMetadata> {
    let mut known: Vec<DirectoryMetadata> = state.directories().copied().collect();
    let mut changes = Vec::new();
    if known.is_empty() {
        if joining.is_empty() {
            return changes;
        }
        let number = DirectoryNumber::FIRST;
        let state = DirectoryState::Present;
        known.push(DirectoryMetadata { number, id: first, state, changes: 0 });
        changes.clone_from(&known);
    }
    for directory in &known {
        let wanted = match directory.state {
            DirectoryState::Gone => continue,
            _ if present.contains(&directory.number) => DirectoryState::Present,
            _ if state.partitions_in(directory.number) == 0 => DirectoryState::Gone,
            _ => DirectoryState::Absent,
        };
        // Said anew at each start without it: it may have been taken in by one that was cut short, which is then void.
        let again = wanted == DirectoryState::Absent && directory.state == wanted;
        if wanted != directory.state || again {
            let count = directory.changes.saturating_add(if again { 2 } else { 1 });
            changes.push(DirectoryMetadata { state: wanted, changes: count, ..*directory });
        }
    }
    for (i, id) in joining.iter().enumerate() {
        // The configuration has far fewer directories than a number can count.
        let number = DirectoryNumber::new(u16::try_from(known.len() + i).unwrap_or(u16::MAX));
        let state = DirectoryState::Present;
        changes.push(DirectoryMetadata { number, id: *id, state, changes: 0 });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{
        MetadataRecord, PartitionHandle, PartitionMetadata, TopicMetadata, TopicSettings,
    };
    use crate::{TopicId, TopicName};

    const N: fn(u16) -> DirectoryNumber = DirectoryNumber::new;

    fn id(n: u8) -> [u8; 16] {
        [n; 16]
    }

    /// Metadata with directories (id, state), and one topic with a partition in each directory of `held`.
    fn metadata(sequence: u64, directories: &[(u8, DirectoryState)], held: &[u16]) -> Metadata {
        let mut state = MetadataState::default();
        for (i, (n, directory)) in directories.iter().enumerate() {
            let number = N(i as u16);
            let changes = u32::from(*directory != Present);
            let record = DirectoryMetadata { number, id: id(*n), state: *directory, changes };
            state.apply(&MetadataRecord::DirectorySet(record)).unwrap();
        }
        let partitions = held.iter().enumerate().map(|(i, directory)| PartitionMetadata {
            handle: PartitionHandle::new(i as u64),
            directory: N(*directory),
        });
        if !held.is_empty() {
            let topic = TopicMetadata {
                name: TopicName::new("t").unwrap(),
                id: TopicId::from_bytes([9; 16]),
                settings: TopicSettings::default(),
                partitions: partitions.collect(),
            };
            state.apply(&MetadataRecord::TopicCreated(topic)).unwrap();
        }
        Metadata { state, sequence }
    }

    fn claim(n: u8, metadata: &Metadata) -> Candidate<'_> {
        let holds_partitions = metadata.state.topics().next().is_some();
        Candidate::Claim(Claim { id: id(n), metadata, holed: false, holds_partitions })
    }

    const EMPTY: Candidate<'_> = Candidate::Empty { asked: false };
    use DirectoryState::{Absent, Gone, Present};

    fn left(fate: &Fate, what: &str) {
        assert!(matches!(fate, Fate::Left(why) if why.contains(what)), "{fate:?}, not {what}");
    }

    #[test]
    fn the_highest_sequence_that_nobody_left_behind_is_the_truth() {
        let both = [(1, Present), (2, Present)];
        let (a, b) = (metadata(5, &both, &[0, 1]), metadata(7, &both, &[0, 1]));
        let members = vec![Fate::Member(N(0)), Fate::Member(N(1))];
        let planned = plan(&[claim(1, &a), claim(2, &b)]);
        assert_eq!(planned, Plan { truth: Some(1), fates: members.clone() });
        // The one has gone on without the other, which had one more record that was never committed.
        let alone = metadata(6, &[(1, Present), (2, Absent)], &[0, 1]);
        let planned = plan(&[claim(1, &alone), claim(2, &b)]);
        assert_eq!(planned, Plan { truth: Some(0), fates: members.clone() });
        let planned = plan(&[claim(2, &b), claim(1, &alone)]);
        let swapped = members.iter().rev().cloned().collect();
        assert_eq!(planned, Plan { truth: Some(1), fates: swapped }, "paths may change places");
        // A hole in the metadata counts for less than a lower sequence.
        let mut holed = claim(2, &b);
        if let Candidate::Claim(claim) = &mut holed {
            claim.holed = true;
        }
        assert_eq!(plan(&[claim(1, &a), holed]).truth, Some(0));
    }

    #[test]
    fn two_that_went_on_without_each_other_are_not_mixed() {
        let a = metadata(6, &[(1, Present), (2, Absent)], &[0, 1]);
        let b = metadata(9, &[(1, Absent), (2, Present)], &[0, 1]);
        let planned = plan(&[claim(1, &a), claim(2, &b)]);
        assert_eq!((planned.truth, &planned.fates[0]), (Some(0), &Fate::Member(N(0))));
        left(&planned.fates[1], "each of the two");
    }

    #[test]
    fn one_that_was_taken_in_again_is_not_behind_though_the_other_failed_to_note_it() {
        let before = metadata(6, &[(1, Present), (2, Absent)], &[0, 1]);
        let mut after = metadata(9, &[(1, Absent), (2, Absent)], &[0, 1]);
        let back = DirectoryMetadata { number: N(1), id: id(2), state: Present, changes: 2 };
        after.state.apply(&MetadataRecord::DirectorySet(back)).unwrap();
        let planned = plan(&[claim(1, &before), claim(2, &after)]);
        let fates = vec![Fate::Member(N(0)), Fate::Member(N(1))];
        assert_eq!(planned, Plan { truth: Some(1), fates });
    }

    #[test]
    fn one_that_was_taken_in_by_a_start_that_was_cut_short_is_still_behind() {
        let truth = metadata(6, &[(1, Absent), (2, Present)], &[0, 1]);
        let mut taken_in = metadata(9, &[(1, Absent), (2, Present)], &[0, 1]);
        let back = DirectoryMetadata { number: N(0), id: id(1), state: Present, changes: 2 };
        taken_in.state.apply(&MetadataRecord::DirectorySet(back)).unwrap();
        let fates = vec![Fate::Member(N(0)), Fate::Member(N(1))];
        let planned = plan(&[claim(1, &taken_in), claim(2, &truth)]);
        assert_eq!(planned, Plan { truth: Some(1), fates });
        // The next start without it says so again, with a number that the other cannot have.
        let again = changes(&truth.state, id(1), &[N(1)], &[]);
        let set = DirectoryMetadata { number: N(0), id: id(1), state: Absent, changes: 3 };
        assert_eq!(again, [set]);
    }

    #[test]
    fn an_empty_folder_joins_unless_it_may_be_a_disk_that_is_missing() {
        assert_eq!(plan(&[EMPTY, EMPTY]), Plan { truth: None, fates: vec![Fate::Joins; 2] });
        let alone = metadata(4, &[], &[0]);
        let planned = plan(&[claim(1, &alone), EMPTY]);
        assert_eq!(planned.fates, [Fate::Member(N(0)), Fate::Joins]);
        let both = metadata(4, &[(1, Present), (2, Present)], &[0, 1]);
        left(&plan(&[claim(1, &both), EMPTY]).fates[1], "directory 1");
        let asked = Candidate::Empty { asked: true };
        assert_eq!(plan(&[claim(1, &both), asked]).fates[1], Fate::Joins);
        // Whoever failed is the missing one: the empty one is new.
        let failed = Candidate::Failed("EIO".to_owned());
        let planned = plan(&[claim(1, &both), failed, EMPTY]);
        assert_eq!(planned.fates[1..], [Fate::Left("EIO".to_owned()), Fate::Joins]);
        // What is missing held nothing.
        let nothing = metadata(4, &[(1, Present), (2, Present)], &[0]);
        assert_eq!(plan(&[claim(1, &nothing), EMPTY]).fates[1], Fate::Joins);
        // The first path lost its disk: the second still knows that there was one.
        left(&plan(&[EMPTY, claim(2, &both)]).fates[0], "directory 0");
    }

    #[test]
    fn what_belongs_to_another_log_is_left_alone_and_what_holds_nothing_is_taken() {
        let ours = metadata(4, &[], &[0]);
        let foreign = metadata(40, &[], &[0]);
        let planned = plan(&[claim(1, &ours), claim(7, &foreign)]);
        assert_eq!(planned.truth, Some(0));
        left(&planned.fates[1], "another log");
        let blank = metadata(40, &[], &[]);
        assert_eq!(plan(&[claim(1, &ours), claim(7, &blank)]).fates[1], Fate::Joins);
        assert_eq!(plan(&[claim(7, &blank), claim(1, &ours)]).truth, Some(1));
        left(&plan(&[claim(1, &ours), claim(1, &ours)]).fates[1], "a copy");
        // One that was given up comes back: it knows of topics, and none of them is in it.
        let after = metadata(9, &[(1, Gone), (2, Present)], &[1]);
        let before = metadata(12, &[(1, Present), (2, Present)], &[1]);
        let planned = plan(&[claim(1, &before), claim(2, &after)]);
        assert_eq!(planned, Plan { truth: Some(1), fates: vec![Fate::Joins, Fate::Member(N(1))] });
        let again = metadata(10, &[(1, Gone), (2, Present), (1, Present)], &[1]);
        let planned = plan(&[claim(1, &again), claim(2, &again)]);
        assert_eq!(planned.fates, [Fate::Member(N(2)), Fate::Member(N(1))]);
    }

    #[test]
    fn metadata_names_who_is_there() {
        let set = |number, n, state, changes| DirectoryMetadata {
            number: N(number),
            id: id(n),
            state,
            changes,
        };
        let alone = metadata(4, &[], &[0]).state;
        assert_eq!(changes(&alone, id(1), &[N(0)], &[]), [], "one directory writes nothing of it");
        let joined = changes(&alone, id(1), &[N(0)], &[id(2)]);
        assert_eq!(joined, [set(0, 1, Present, 0), set(1, 2, Present, 0)]);
        let three = metadata(4, &[(1, Present), (2, Present), (3, Absent)], &[0, 1]).state;
        let found = changes(&three, id(1), &[N(0)], &[id(4)]);
        assert_eq!(found, [set(1, 2, Absent, 1), set(2, 3, Gone, 2), set(3, 4, Present, 0)]);
        let back = metadata(4, &[(1, Present), (2, Absent)], &[0, 1]).state;
        assert_eq!(changes(&back, id(1), &[N(0), N(1)], &[]), [set(1, 2, Present, 2)]);
    }
}
