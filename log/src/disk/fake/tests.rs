//! The fake disk keeps to its word: what was synced survives, what was not may not, faults come when asked for.

use super::*;
use crate::disk::read_full_at;
use std::collections::BTreeSet;

fn write(disk: &FakeDisk, path: &str, bytes: &[u8], at: u64) -> io::Result<()> {
    disk.open(Path::new(path), OpenMode::Create)?.write_at(&[IoSlice::new(bytes)], at)
}

fn sync(disk: &FakeDisk, path: &str) -> io::Result<()> {
    disk.open(Path::new(path), OpenMode::Write)?.sync_data()
}

/// A file with synced bytes `a`, and `b` written over its middle.
fn half_synced() -> FakeDisk {
    let disk = FakeDisk::new(1);
    write(&disk, "/f", &[b'a'; 4096], 0).unwrap();
    sync(&disk, "/f").unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/f", &[b'b'; 1500], 600).unwrap();
    disk
}

#[test]
fn what_is_synced_survives_every_crash() {
    let disk = half_synced();
    for outcome in Outcome::ALL {
        for seed in 0..50 {
            let left = disk.after_crash(outcome, seed).contents("/f").unwrap();
            assert_eq!(left.len(), 4096);
            assert_eq!(left[..600], [b'a'; 600]);
            assert_eq!(left[2100..], [b'a'; 1996]);
        }
    }
}

#[test]
fn unsynced_bytes_are_kept_dropped_and_torn_at_sectors() {
    let disk = half_synced();
    let mut seen = BTreeSet::new();
    for outcome in Outcome::ALL {
        for seed in 0..50 {
            let left = disk.after_crash(outcome, seed).contents("/f").unwrap();
            let kinds: Vec<u8> = [600, 1024, 1536, 2048].iter().map(|at| left[*at]).collect();
            for (at, kind) in [600, 1024, 1536, 2048].into_iter().zip(&kinds) {
                let end = (at / 512 * 512 + 512).min(2100);
                assert!(left[at..end].iter().all(|b| b == kind), "a sector is never torn");
            }
            seen.insert(kinds);
        }
    }
    assert_eq!(seen.len(), 16, "every combination of the four sectors comes up");
    assert_eq!(disk.after_crash(Outcome::KeepAll, 0).contents("/f"), disk.contents("/f"));
    let dropped = disk.after_crash(Outcome::DropAll, 0).contents("/f").unwrap();
    assert_eq!(dropped, [b'a'; 4096]);
}

#[test]
fn a_crash_is_the_same_for_the_same_seed() {
    let crash = |seed| half_synced().after_crash(Outcome::Chaos, seed).contents("/f");
    assert!((0..20).all(|seed| crash(seed) == crash(seed)));
}

#[test]
fn names_are_lost_unless_their_folder_is_synced() {
    let disk = FakeDisk::new(1);
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/d/old", b"1", 0).unwrap();
    sync(&disk, "/d/old").unwrap();
    assert!(disk.after_crash(Outcome::DropAll, 0).files().is_empty(), "content without a name");
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.rename(Path::new("/d/old"), Path::new("/d/new")).unwrap();
    for seed in 0..50 {
        let files = disk.after_crash(Outcome::Chaos, seed).files();
        assert!(files == ["/d/old"] || files == ["/d/new"], "a rename is whole: {files:?}");
    }
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(disk.after_crash(Outcome::DropAll, 0).files(), ["/d/new"]);
    disk.remove_file(Path::new("/d/new")).unwrap();
    assert_eq!(disk.after_crash(Outcome::DropAll, 0).files(), ["/d/new"]);
    assert!(disk.after_kill().files().is_empty(), "the kernel knows");
}

#[test]
fn truncation_is_a_change_like_another() {
    let disk = half_synced();
    let file = disk.open(Path::new("/f"), OpenMode::Write).unwrap();
    file.truncate(100).unwrap();
    let lengths: BTreeSet<usize> = (0..50)
        .map(|seed| disk.after_crash(Outcome::Chaos, seed).contents("/f").unwrap().len())
        .collect();
    assert_eq!(lengths, BTreeSet::from([100, 4096]));
    file.sync_data().unwrap();
    assert_eq!(disk.after_crash(Outcome::DropAll, 0).contents("/f").unwrap().len(), 100);
}

#[test]
fn a_failed_sync_loses_pages_for_good() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = FakeDisk::new(seed);
        write(&disk, "/f", &[b'x'; 4096], 0).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.fail_change(disk.changes() + 1, Fault::Eio);
        assert_eq!(sync(&disk, "/f").unwrap_err().raw_os_error(), Some(5));
        assert!(disk.has_failed());
        // The second sync says all is well, and is lying.
        sync(&disk, "/f").unwrap();
        let left = disk.after_crash(Outcome::KeepAll, 0).contents("/f").unwrap();
        lost += usize::from(left != [b'x'; 4096]);
    }
    assert!(lost > 5, "{lost} of 20");
}

#[test]
fn the_world_stops() {
    let disk = half_synced();
    disk.stop_after(disk.changes() + 1);
    write(&disk, "/f", b"c", 0).unwrap();
    assert!(!disk.is_stopped());
    assert!(write(&disk, "/f", b"d", 0).is_err());
    assert!(disk.is_stopped());
    assert!(disk.list(Path::new("/")).is_err());
    assert_eq!(disk.contents("/f").unwrap()[0], b'c');
    write(&disk.after_kill(), "/f", b"d", 0).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_and_keeps_what_is_reserved() {
    let disk = FakeDisk::new(1);
    disk.set_capacity(Some(16 * 1024));
    let file = disk.open(Path::new("/reserved"), OpenMode::Create).unwrap();
    file.reserve(0, 8192).unwrap();
    assert_eq!(file.size_bytes().unwrap(), 0);
    let error = write(&disk, "/f", &[1; 9000], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.contents("/f").unwrap().len(), 8192, "in part");
    assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 0);
    file.write_at(&[IoSlice::new(&[2; 8192])], 0).unwrap();
    assert!(file.reserve(0, 8193).is_err());
    disk.remove_file(Path::new("/f")).unwrap();
    file.reserve(8192, 8192).unwrap();
    file.truncate(0).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn short_writes_and_read_errors() {
    let disk = FakeDisk::new(1);
    write(&disk, "/f", b"", 0).unwrap();
    disk.fail_change(disk.changes() + 1, Fault::Short);
    assert!(write(&disk, "/f", b"1234", 0).is_err());
    let file = disk.open(Path::new("/f"), OpenMode::Read).unwrap();
    let mut buf = [0; 4];
    assert_eq!(read_full_at(&*file, &mut buf, 0).unwrap(), 2);
    disk.fail_read(disk.reads() + 1);
    assert_eq!(file.read_at(&mut buf, 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(file.read_at(&mut buf, 1).unwrap(), 1);
}

#[test]
fn locks_end_with_their_process() {
    let disk = FakeDisk::new(1);
    let path = Path::new("/lock");
    let held = disk.lock(path, "4711\n").unwrap();
    assert!(matches!(disk.lock(path, "1").unwrap(), Lock::InUse(holder) if holder == "4711"));
    assert!(matches!(disk.after_kill().lock(path, "1").unwrap(), Lock::Held(_)));
    drop(held);
    assert!(matches!(disk.lock(path, "1").unwrap(), Lock::Held(_)));
}

#[test]
fn a_sync_of_the_filesystem_covers_its_tree_and_no_other() {
    for fails in [false, true] {
        let disk = FakeDisk::new(3);
        for path in ["/a", "/a/b", "/c"] {
            disk.create_dir(Path::new(path)).unwrap();
        }
        disk.sync_dir(Path::new("/")).unwrap();
        for path in ["/a/f", "/a/b/g", "/c/h"] {
            write(&disk, path, b"bytes", 0).unwrap();
        }
        let filesystem = disk.filesystem(Path::new("/a")).unwrap().unwrap();
        if fails {
            disk.fail_change(disk.changes() + 1, Fault::Eio);
        }
        assert_eq!(filesystem.sync().is_err(), fails);
        let left = disk.after_crash(Outcome::DropAll, 0);
        assert_eq!(left.contents("/c/h"), None);
        let synced =
            ["/a/f", "/a/b/g"].iter().all(|p| left.contents(p).as_deref() == Some(b"bytes"));
        assert_eq!(synced, !fails);
    }
}
