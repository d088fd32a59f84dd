//! Several data directories: spread, lost, missing, back, begun anew; and what the first start writes.

use super::faults::Rig;
use super::{append, settings, topic, values};
use crate::disk::Disk;
use crate::{AckPoint, AppendError, Log, Offset, Partition, ReadLimit, Settled};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn two() -> Rig {
    let mut rig = Rig::new();
    rig.options.dirs.push(PathBuf::from("/more"));
    rig
}

fn refused(partition: &Partition) -> bool {
    let record = crate::record::RecordParts {
        timestamp_ms: 0,
        key: None,
        value: None,
        headers: crate::record::Headers::EMPTY,
    };
    matches!(partition.append(&[record]), Err(AppendError::Offline(_)))
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

fn partitions(log: &Log, name: &str) -> Vec<Arc<Partition>> {
    log.topic(name).unwrap().partitions().to_vec()
}

#[test]
fn a_directory_that_dies_takes_only_its_partitions_and_comes_back() {
    let mut rig = two();
    let (log, recovery) = rig.open();
    assert!(recovery.created);
    let t = topic(&log, "t", 4, settings());
    assert_eq!(t.iter().map(|p| p.directory()).collect::<Vec<_>>(), [0, 1, 0, 1]);
    let own = topic(&log, "__headwater_x", 3, settings());
    assert!(own.iter().all(|p| p.directory() == 0), "the log's own topics are together");
    let id = log.directory_id();
    for (i, p) in t.iter().enumerate() {
        append(p, &format!("one {i}"));
    }
    commit(&log);
    rig.disk.kill_below("/more");
    let lost = append(&t[1], "lost");
    let kept = append(&t[0], "kept");
    commit(&log);
    assert_eq!(t[0].settled(AckPoint::Synced, kept.last), Settled::Passed);
    assert!(matches!(t[1].settled(AckPoint::Synced, lost.last), Settled::Lost(_)));
    assert!(refused(&t[3]));
    assert_eq!(values(&t[1]), ["one 1"], "what is in memory is served");
    let stats = log.stats();
    assert!(stats.offline.is_none() && stats.directories[1].offline.is_some(), "{stats:?}");
    let (made, sequence) = {
        let name = crate::TopicName::new("later").unwrap();
        log.create_topic(&name, 2, settings()).unwrap()
    };
    assert!(made.partitions().iter().all(|p| p.directory() == 0), "new ones avoid it");
    commit(&log);
    assert_eq!(log.committed(sequence), Ok(true));
    drop((log, own, made));

    // Still dead at the next start: known, and offline.
    rig.crash();
    rig.disk.kill_below("/more");
    let (log, recovery) = rig.open();
    assert!(recovery.findings.iter().any(|f| f.contains("/more")), "{recovery:?}");
    let t = partitions(&log, "t");
    assert_eq!(values(&t[0]), ["one 0", "kept"]);
    assert!(t[1].missing().is_some() && refused(&t[1]));
    assert!(t[1].read(Offset::ZERO, 1, ReadLimit::HighWatermark).is_err(), "not an empty one");
    assert!(t[1].offset_for_timestamp(0).is_err());
    append(&t[0], "alone");
    commit(&log);
    assert_eq!(log.directory_id(), id);
    drop((log, t));

    // Back: brought up to date, everything is there.
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let t = partitions(&log, "t");
    assert_eq!(values(&t[0]), ["one 0", "kept", "alone"]);
    assert_eq!((values(&t[1]), values(&t[3])), (vec!["one 1".into()], vec!["one 3".into()]));
    assert_eq!(partitions(&log, "later").len(), 2);
    log.step_close().unwrap();
    drop((log, t));
    // The first one missing: the other brings all metadata back, and the log's identity.
    rig.disk.unmount("data", true);
    let (log, _) = rig.open();
    assert_eq!(log.directory_id(), id);
    let t = partitions(&log, "t");
    assert!(t[0].missing().is_some());
    assert_eq!(values(&t[1]), ["one 1"]);
    assert!(partitions(&log, "later")[0].missing().is_some());
}

#[test]
fn a_batch_waits_until_every_directory_knows_its_partition() {
    let rig = two();
    let (log, _) = rig.open();
    let t = topic(&log, "t", 2, settings());
    let at: Vec<_> = t.iter().map(|p| append(p, "v")).collect();
    let engine = &log.engine;
    engine.directories[0].committer.lock().step(&engine.directories[0]);
    // The topic is in the first journal, and the second has not heard of it: alone, that one would bring back nothing.
    assert_eq!(t[0].settled(AckPoint::Synced, at[0].last), Settled::Waiting);
    assert_eq!(log.committed(engine.node.metadata().sequence), Ok(false));
    engine.directories[1].committer.lock().step(&engine.directories[1]);
    assert_eq!(t[1].settled(AckPoint::Synced, at[1].last), Settled::Passed);
    engine.directories[0].committer.lock().step(&engine.directories[0]);
    assert_eq!(t[0].settled(AckPoint::Synced, at[0].last), Settled::Passed);
}

#[test]
fn a_directory_joins_and_an_empty_folder_in_the_place_of_a_lost_one_does_not() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    append(&p, "one");
    commit(&log);
    log.step_close().unwrap();
    drop((log, p));
    rig.options.dirs.push(PathBuf::from("/more"));
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty() && !recovery.created, "{recovery:?}");
    let more = topic(&log, "more", 1, settings())[0].clone();
    assert_eq!(more.directory(), 1, "the new one takes what is new");
    append(&more, "two");
    commit(&log);
    log.step_close().unwrap();
    drop((log, more));
    // Its disk is not mounted, and there is an empty folder.
    rig.disk.unmount("more", true);
    rig.disk.create_dir(Path::new("/more")).unwrap();
    let (log, recovery) = rig.open();
    assert!(recovery.findings[0].contains("headwater.new"), "{recovery:?}");
    assert!(partitions(&log, "more")[0].missing().is_some());
    assert!(!rig.disk.files().iter().any(|f| f.starts_with("/more")), "nothing is written there");
    drop(log);
    rig.disk.plant("/more/headwater.new", b"");
    let (log, _) = rig.open();
    assert_eq!(topic(&log, "newer", 1, settings())[0].directory(), 2);
    assert!(partitions(&log, "more")[0].missing().is_some(), "still known, still lost");
    assert!(!rig.disk.files().contains(&"/more/headwater.new".to_owned()));
}

#[test]
fn a_directory_of_another_log_is_left_alone() {
    let mut rig = Rig::new();
    rig.options.dirs = vec![PathBuf::from("/more")];
    let (log, _) = rig.open();
    append(&topic(&log, "theirs", 1, settings())[0], "one");
    commit(&log);
    log.step_close().unwrap();
    drop(log);
    rig.options.dirs = vec![PathBuf::from("/data")];
    let (log, _) = rig.open();
    topic(&log, "t", 1, settings());
    log.step_close().unwrap();
    drop(log);
    rig.options.dirs.push(PathBuf::from("/more"));
    let before = rig.disk.contents("/more/catalog.a");
    let (log, recovery) = rig.open();
    assert!(recovery.findings[0].contains("another log"), "{recovery:?}");
    assert!(log.topic("theirs").is_none());
    assert!(log.stats().directories[1].offline.is_some());
    assert_eq!(rig.disk.contents("/more/catalog.a"), before);
    drop(log);
    rig.options.dirs = vec![PathBuf::from("/more")];
    let (log, _) = rig.open();
    assert_eq!(values(&partitions(&log, "theirs")[0]), ["one"]);
}

#[test]
fn the_first_start_writes_one_small_file_and_files_of_another_format_are_erased() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 8 << 20;
    rig.disk.plant("/data/journal/0001.journal", &vec![0x5a; 300_000]);
    let ring = |rig: &Rig| -> Vec<(String, usize)> {
        let files = rig.disk.files().into_iter().filter(|f| f.ends_with(".journal"));
        files.map(|f| (f.clone(), rig.disk.contents(&f).unwrap().len())).collect()
    };
    let (log, _) = rig.open();
    assert_eq!(ring(&rig), [("/data/journal/0000.journal".to_owned(), 2 << 20)]);
    log.step_close().unwrap();
    drop(log);
    // Of a later life of the machine, or of another program.
    rig.disk.plant("/data/journal/0001.journal", &vec![0x5a; 300_000]);
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    for i in 0..40 {
        append(&p, &format!("{i} {}", "x".repeat(60_000)));
        commit(&log);
        log.step_upkeep();
    }
    let erased = rig.disk.contents("/data/journal/0001.journal").unwrap();
    assert!(erased.starts_with(b"HWJOURNL") && erased.len() == 8 << 20);
    assert!(!erased.windows(8).any(|w| w == [0x5a; 8]));
}
