//! A whole data directory with some of its bytes changed: it opens or is refused, and what is read from it is what was
//! written. The input is a list of changes: which file, which byte (two), and what it becomes.

#![no_main]

use headwater_fuzz::{PARTITIONS, options, populated, value};
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::{Log, ReadError, ReadLimit, batch};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};

fn changed(input: &[u8]) -> FakeDisk {
    static WHOLE: OnceLock<FakeDisk> = OnceLock::new();
    let disk = WHOLE.get_or_init(populated).after_kill();
    let files: Vec<String> =
        disk.files().into_iter().filter(|name| !name.ends_with("lock")).collect();
    for change in input.as_chunks::<4>().0.iter().take(64) {
        let name = &files[usize::from(change[0]) % files.len()];
        let mut bytes = disk.contents(name).expect("it was listed");
        let at = usize::from(u16::from_le_bytes([change[1], change[2]]));
        let Some(byte) = bytes.get_mut(at) else { continue };
        *byte = change[3];
        disk.plant(name, &bytes);
    }
    disk
}

fuzz_target!(|input: &[u8]| {
    let disk = Arc::new(changed(input));
    let clock = Arc::new(FakeClock::new(1_800_000_000_000));
    let Ok((log, _)) = Log::open(options(), disk, clock) else { return };
    let Some(topic) = log.topic("t") else { return };
    for partition in topic.partitions().iter().take(PARTITIONS) {
        let mut from = partition.positions().log_start;
        let end = partition.positions().high_watermark;
        while from < end {
            let read = match partition.read(from, 4096, ReadLimit::HighWatermark) {
                Ok(read) => read,
                Err(ReadError::Damaged { next_good: Some(next), .. }) if next > from => {
                    from = next;
                    continue;
                }
                Err(_) => break,
            };
            for bytes in &read.batches {
                batch::verify(bytes).expect("what is served is whole");
                for record in batch::records(bytes).expect("what is served is whole") {
                    let record = record.expect("what is served is whole");
                    let expected = value(partition.id().get(), record.offset);
                    assert_eq!(record.value.as_deref(), Some(expected.as_bytes()));
                }
            }
            assert!(read.next > from, "a reader that stands still");
            from = read.next;
        }
    }
});
