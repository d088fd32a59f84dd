//! Metadata: what is decided can be applied, what is encoded is decoded, a snapshot replays to an equal state.

use super::*;
use crate::{LeaderEpoch, TopicId, TopicName};
use proptest::prelude::*;
use std::collections::BTreeSet;

const LIMITS: Limits = Limits { topics_max: 6, partitions_max: 20 };

const ONE: Offer = Offer { directory: DirectoryNumber::FIRST, free_bytes: 1 };

/// A partition in the first directory.
fn place(handle: u64) -> PartitionMetadata {
    PartitionMetadata { handle: PartitionHandle::new(handle), directory: DirectoryNumber::FIRST }
}

fn settings(seed: u64) -> TopicSettings {
    TopicSettings {
        durability: if seed & 1 == 0 { Durability::Fsync } else { Durability::Memory },
        retention_ms: (seed & 2 != 0).then_some(seed),
        retention_bytes: (seed & 4 != 0).then_some(seed ^ 0xff),
        segment_bytes: 1 << 20,
        segment_ms: seed,
        batch_bytes_max: 1_000_000,
        cleanup: [Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete][seed as usize % 3],
        compression: Compression {
            codec: Codec::from_number((seed % 5) as u8).unwrap(),
            level: (seed & 8 != 0).then_some(-3),
        },
        compaction_lag_ms_max: (seed & 1 != 0).then_some(seed),
        ..TopicSettings::default()
    }
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn create(topic: &str, id: u8, partitions: u32) -> Command {
    let id = TopicId::from_bytes([id; 16]);
    Command::CreateTopic { name: name(topic), id, partitions, settings: settings(0) }
}

fn run(state: &mut MetadataState, command: &Command) -> Result<Vec<MetadataRecord>, Refusal> {
    let records = decide(state, LIMITS, &[ONE], command)?;
    for record in &records {
        state.apply(record).expect("what was decided can be applied");
    }
    Ok(records)
}

#[test]
fn a_topic_lives() {
    let mut state = MetadataState::default();
    run(&mut state, &create("telemetry", 1, 4)).unwrap();
    let topic = state.topic("telemetry").unwrap().clone();
    assert_eq!(topic.partitions.iter().map(|p| p.handle.get()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(state.topic_by_id(topic.id), Some(&topic));
    let more = Command::AddPartitions { name: name("telemetry"), partitions: 6 };
    run(&mut state, &more).unwrap();
    assert_eq!(state.topic("telemetry").unwrap().partitions.len(), 6);
    let alter = Command::AlterTopic { name: name("telemetry"), settings: settings(7) };
    assert_eq!(run(&mut state, &alter).unwrap().len(), 1);
    assert_eq!(run(&mut state, &alter).unwrap(), [], "as it is already");
    run(&mut state, &Command::DeleteTopic { name: name("telemetry") }).unwrap();
    assert_eq!(state.topic("telemetry"), None);
    run(&mut state, &create("telemetry", 2, 1)).unwrap();
    let again = state.topic("telemetry").unwrap();
    assert_eq!(again.partitions[0].handle.get(), 6, "handles are never used again");
}

#[test]
fn refusals() {
    let mut state = MetadataState::default();
    run(&mut state, &create("a.b", 1, 4)).unwrap();
    let mut refused = |command: Command| run(&mut state, &command).unwrap_err();
    assert_eq!(refused(create("a.b", 2, 4)), Refusal::TopicExists("a.b".into()));
    assert_eq!(
        refused(create("a_b", 2, 4)),
        Refusal::Collision { name: "a_b".into(), existing: "a.b".into() }
    );
    assert_eq!(refused(create("other", 1, 4)), Refusal::TopicExists("other".into()));
    assert!(matches!(refused(create("c", 2, 0)), Refusal::Partitions(0, _)));
    assert!(matches!(refused(create("__headwater_x", 2, u32::MAX)), Refusal::Partitions(..)));
    assert_eq!(refused(create("c", 2, 17)), Refusal::Limit(20, "partitions"));
    let fewer = Command::AddPartitions { name: name("a.b"), partitions: 4 };
    assert!(matches!(refused(fewer), Refusal::Partitions(4, _)));
    let many = Command::AddPartitions { name: name("a.b"), partitions: 21 };
    assert_eq!(refused(many), Refusal::Limit(20, "partitions"));
    let gone = Command::DeleteTopic { name: name("gone") };
    assert_eq!(refused(gone), Refusal::UnknownTopic("gone".into()));
}

#[test]
fn internal_topics_do_not_count() {
    let mut state = MetadataState::default();
    for i in 0..6 {
        run(&mut state, &create(&format!("t{i}"), i, 1)).unwrap();
    }
    assert_eq!(run(&mut state, &create("t6", 6, 1)), Err(Refusal::Limit(6, "topics")));
    run(&mut state, &create("__headwater_uplinks", 7, 16)).unwrap();
    let more = Command::AddPartitions { name: name("t0"), partitions: 15 };
    run(&mut state, &more).unwrap();
}

#[test]
fn records_that_contradict_the_state_are_refused() {
    let mut state = MetadataState::default();
    let created = run(&mut state, &create("a", 1, 2)).unwrap().remove(0);
    run(&mut state, &Command::StartEpoch).unwrap();
    let before = state.clone();
    let id = TopicId::from_bytes([9; 16]);
    let old = vec![place(1)];
    let known = TopicId::from_bytes([1; 16]);
    for record in [
        created,
        MetadataRecord::TopicDeleted { id },
        MetadataRecord::SettingsChanged { id, settings: settings(1) },
        MetadataRecord::PartitionsAdded { id: known, partitions: old },
        MetadataRecord::PartitionsAdded { id, partitions: vec![place(5)] },
        MetadataRecord::HandlesTaken { next: 1 },
        MetadataRecord::ProducerIdsTaken { next: -1 },
        MetadataRecord::EpochStarted { epoch: LeaderEpoch::default() },
    ] {
        assert!(state.apply(&record).is_err(), "{record:?}");
        assert_eq!(state, before, "{record:?}");
    }
}

#[test]
fn bytes_of_each_kind_are_frozen() {
    let id = TopicId::from_bytes([0xab; 16]);
    let encoded = |record: MetadataRecord| {
        let mut out = vec![];
        record.encode(&mut out);
        out
    };
    let topic = TopicMetadata {
        name: name("t"),
        id,
        settings: settings(2 | 8),
        partitions: vec![place(258)],
    };
    let mut wanted = vec![1, 1];
    wanted.extend_from_slice(&[0xab; 16]);
    wanted.extend_from_slice(&[1, b't', 1 | 2 | 8 | 64]);
    wanted.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
    wanted.extend_from_slice(&[0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
    wanted.extend_from_slice(&[0, 0x0f, 0x42, 0x40, 0, 0xfd, 0, 0, 0, 0, 5, 0x26, 0x5c, 0]);
    wanted.extend_from_slice(&[0; 16]);
    wanted.extend_from_slice(&[1, 0xf4, 0, 0xa0, 0, 0]);
    wanted.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(encoded(MetadataRecord::TopicCreated(topic)), wanted);
    assert_eq!(encoded(MetadataRecord::TopicDeleted { id })[..3], [4, 0, 0xab]);
    let taken = encoded(MetadataRecord::ProducerIdsTaken { next: 1_000 });
    assert_eq!(taken, [5, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8]);
    let taken = encoded(MetadataRecord::HandlesTaken { next: 1 });
    assert_eq!(taken, [6, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let epoch = LeaderEpoch::new(7).unwrap();
    assert_eq!(encoded(MetadataRecord::EpochStarted { epoch }), [7, 0, 0, 0, 0, 7]);
}

#[test]
fn settings_of_the_first_version_are_read() {
    let old = [
        &[2, 0][..],
        &[9; 16],
        &[1 | 2 | 8],
        &60_000u64.to_be_bytes(),
        &0u64.to_be_bytes(),
        &(1u64 << 20).to_be_bytes(),
        &5_000u64.to_be_bytes(),
        &4_096u32.to_be_bytes(),
    ]
    .concat();
    let settings = TopicSettings {
        retention_ms: Some(60_000),
        segment_bytes: 1 << 20,
        segment_ms: 5_000,
        batch_bytes_max: 4_096,
        cleanup: Cleanup::Compact,
        ..TopicSettings::default()
    };
    let id = TopicId::from_bytes([9; 16]);
    let expected = MetadataRecord::SettingsChanged { id, settings };
    assert_eq!(MetadataRecord::decode(&old), Ok(expected));
    let mut unknown = old.clone();
    unknown[18] |= 16;
    assert_eq!(MetadataRecord::decode(&unknown), Err(MetadataError::Field("settings flags")));
}

#[test]
fn a_newer_record_is_said_to_be_newer() {
    let from = |kind, version| MetadataError::FromTheFuture { kind, version };
    assert_eq!(MetadataRecord::decode(&[9, 0, 1]), Err(from(9, 0)));
    assert_eq!(MetadataRecord::decode(&[7, 1, 0, 0, 0, 7]), Err(from(7, 1)));
    assert_eq!(MetadataRecord::decode(&[7, 0, 0, 0, 0, 7, 0]), Err(MetadataError::Trailing(1)));
    assert_eq!(MetadataRecord::decode(&[7, 0, 0x80, 0, 0, 7]), Err(MetadataError::Field("epoch")));
    assert_eq!(decode_all(&[0xff, 0xff, 0xff, 0xff]), Err(MetadataError::Short));
}

fn any_command() -> impl Strategy<Value = Command> {
    let topic = prop_oneof![
        "[a-c][._]?[a-c]?".prop_map(|raw| name(&raw)),
        Just(name("__headwater_ledger")),
    ];
    let some = || (0u64..16).prop_map(settings);
    prop_oneof![
        4 => (topic.clone(), 0u8..30, 0u32..6, some()).prop_map(|(name, id, partitions, settings)| {
            Command::CreateTopic { name, id: TopicId::from_bytes([id; 16]), partitions, settings }
        }),
        1 => (topic.clone(), some())
            .prop_map(|(name, settings)| Command::AlterTopic { name, settings }),
        2 => (topic.clone(), 0u32..9)
            .prop_map(|(name, partitions)| Command::AddPartitions { name, partitions }),
        1 => topic.prop_map(|name| Command::DeleteTopic { name }),
        1 => (0u32..2_000).prop_map(|count| Command::TakeProducerIds { count }),
        1 => Just(Command::StartEpoch),
    ]
}

proptest! {
    #[test]
    fn invariants_hold(commands in proptest::collection::vec(any_command(), 0..60)) {
        let mut state = MetadataState::default();
        let mut given = BTreeSet::new();
        for command in &commands {
            let before = state.clone();
            let Ok(records) = run(&mut state, command) else {
                prop_assert_eq!(&state, &before);
                continue;
            };
            for record in &records {
                let mut bytes = vec![];
                record.encode(&mut bytes);
                prop_assert_eq!(&MetadataRecord::decode(&bytes).unwrap(), record);
                let handles = match record {
                    MetadataRecord::TopicCreated(topic) => &topic.partitions[..],
                    MetadataRecord::PartitionsAdded { partitions, .. } => partitions,
                    _ => &[],
                };
                for handle in handles {
                    prop_assert!(given.insert(handle.handle), "a handle is given once");
                }
            }
            prop_assert!(state.next_producer_id() >= before.next_producer_id());
            prop_assert!(state.epoch() >= before.epoch());
            let visible = || state.topics().filter(|topic| !topic.name.is_internal());
            prop_assert!(visible().count() <= 6);
            prop_assert!(visible().map(|topic| topic.partitions.len()).sum::<usize>() <= 20);
            for topic in state.topics() {
                prop_assert_eq!(state.topic_by_id(topic.id), Some(topic));
                prop_assert!(!topic.partitions.is_empty());
            }
        }
        let mut bytes = vec![];
        encode_all(&state.snapshot(), &mut bytes);
        let mut replayed = MetadataState::default();
        for record in decode_all(&bytes).unwrap() {
            replayed.apply(&record).unwrap();
        }
        prop_assert_eq!(replayed, state);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..10) {
        let _ = decode_all(&bytes);
        let _ = MetadataRecord::decode(&bytes);
        let mut bytes = bytes;
        bytes.splice(0..0, [kind, 0]);
        let _ = MetadataRecord::decode(&bytes);
    }
}
