//! Does a flush take the time that writing takes? A drive that answers sooner has not written.
//!
//! Invariant: the verdict is about plausibility: only a power cut proves.
//!
//! What is known: flash needs about 200 us to program a page, an SD card milliseconds, a rotating disk half a turn. Only a
//! drive whose cache is backed by a capacitor may answer in tens of microseconds and keep its word.

use headwater_log::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const SAMPLES: usize = 300;
const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: usize = 4 << 20;
/// A median below this is more than flash can do.
const FLASH_NS_MIN: u64 = 40_000;
/// A rotating disk at 15,000 turns a minute needs 2 ms for half of one.
const ROTATING_NS_MIN: u64 = 1_000_000;
/// An SD card or eMMC.
const CARD_NS_MIN: u64 = 120_000;

/// What was measured, and what that means.
#[derive(Debug)]
pub(super) struct Flushes {
    /// Median and 99th percentile of a 4 KiB write with fdatasync, and median without.
    pub(super) sync_ns: (u64, u64),
    pub(super) write_ns: u64,
    pub(super) device: Device,
    pub(super) verdict: Verdict,
}

/// What the system says of the device below the folder.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Such as `mmcblk0`; nothing where the filesystem has no block device.
    pub(super) name: Option<String>,
    pub(super) rotating: bool,
    /// Whether it admits to a cache that a flush must empty.
    pub(super) caches: Option<bool>,
    pub(super) filesystem: Filesystem,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filesystem {
    Memory,
    /// A container's layer: what is below cannot be seen.
    Layered,
    Network,
    #[default]
    Other,
}

/// What a technician should think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Plausible,
    /// tmpfs and the like.
    Memory,
    /// Faster than such a device can be.
    TooFast,
    /// As fast as a write that is not flushed.
    Free,
}

impl Verdict {
    pub(super) fn is_well(self) -> bool {
        self == Self::Plausible
    }
}

/// Measures in `folder`, which is ours.
pub(super) fn measure(folder: &Path) -> anyhow::Result<Flushes> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(folder.join("flushes"))?;
    // Blocks that exist: a flush then writes data and no metadata of the filesystem.
    file.write_all_at(&vec![1; FILE_BYTES], 0)?;
    file.sync_all()?;
    let clock = SystemClock;
    let mut block = [0; BLOCK_BYTES];
    let mut timed = |sync: bool| -> anyhow::Result<Vec<u64>> {
        let mut took = Vec::with_capacity(SAMPLES);
        for i in 0..SAMPLES {
            block.fill(i as u8);
            let began = clock.monotonic_ns();
            file.write_all_at(&block, ((i * BLOCK_BYTES) % FILE_BYTES) as u64)?;
            if sync {
                file.sync_data()?;
            }
            took.push(clock.monotonic_ns() - began);
        }
        took.sort_unstable();
        Ok(took)
    };
    let (synced, written) = (timed(true)?, timed(false)?);
    let device = device(folder);
    let (sync_ns, write_ns) =
        ((synced[SAMPLES / 2], synced[SAMPLES * 99 / 100]), written[SAMPLES / 2]);
    let verdict = judge(sync_ns.0, write_ns, &device);
    Ok(Flushes { sync_ns, write_ns, device, verdict })
}

fn judge(sync_ns: u64, write_ns: u64, device: &Device) -> Verdict {
    let name = device.name.as_deref().unwrap_or("");
    let least = match device {
        Device { rotating: true, .. } if !name.starts_with("vd") && !name.starts_with("xvd") => {
            ROTATING_NS_MIN
        }
        _ if name.starts_with("mmcblk") => CARD_NS_MIN,
        _ => FLASH_NS_MIN,
    };
    match () {
        () if device.filesystem == Filesystem::Memory => Verdict::Memory,
        () if sync_ns < write_ns.saturating_mul(2) => Verdict::Free,
        () if sync_ns < least => Verdict::TooFast,
        () => Verdict::Plausible,
    }
}

fn device(folder: &Path) -> Device {
    // The magic numbers of statfs(2).
    let filesystem = match rustix::fs::statfs(folder).map(|stat| stat.f_type) {
        Ok(0x0102_1994 | 0x8584_58f6) => Filesystem::Memory,
        Ok(0x794c_7630) => Filesystem::Layered,
        Ok(0x6969 | 0xff53_4d42 | 0xfe53_4d42 | 0x0102_1997) => Filesystem::Network,
        _ => Filesystem::Other,
    };
    let mut device = Device { filesystem, ..Device::default() };
    let Ok(metadata) = std::fs::metadata(folder) else { return device };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let Ok(mut path) = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return device;
    };
    if path.join("partition").exists() {
        path.pop();
    }
    device.name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let said = |file: &str| std::fs::read_to_string(path.join("queue").join(file)).ok();
    device.rotating = said("rotational").is_some_and(|text| text.trim() == "1");
    device.caches = said("write_cache").map(|text| text.trim() == "write back");
    device
}

impl Flushes {
    /// For programs.
    pub(super) fn object(&self) -> Value {
        json!({
            "well": self.verdict.is_well(),
            "verdict": match self.verdict {
                Verdict::Plausible => "plausible",
                Verdict::Memory => "memory",
                Verdict::TooFast => "too_fast",
                Verdict::Free => "free",
            },
            "sync_us_p50": self.sync_ns.0 as f64 / 1e3,
            "sync_us_p99": self.sync_ns.1 as f64 / 1e3,
            "write_us_p50": self.write_ns as f64 / 1e3,
            "device": self.device.name,
            "rotating": self.device.rotating,
            "write_cache": self.device.caches,
            "layered": self.device.filesystem == Filesystem::Layered,
            "network": self.device.filesystem == Filesystem::Network,
        })
    }
}

impl fmt::Display for Flushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.sync_ns.0 / 1_000;
        let device = self.device.name.as_deref().unwrap_or("this filesystem");
        match self.verdict {
            Verdict::Memory => {
                return write!(
                    f,
                    "This is memory, not a disk: everything in it is gone with the power."
                );
            }
            Verdict::TooFast => write!(
                f,
                "This drive ({device}) answers flushes in {us} us: it very likely lies; a power cut can lose acknowledged messages. Only a drive with power-loss protection (a capacitor) may be that fast and keep its word.",
            )?,
            Verdict::Free => write!(
                f,
                "On this drive ({device}) a flush costs no more than a write ({us} us): flushes do nothing here; a power cut can lose acknowledged messages.",
            )?,
            Verdict::Plausible => write!(
                f,
                "Flushes on {device} take {us} us (median; {} us at the 99th percentile): that is time enough to have written.",
                self.sync_ns.1 / 1_000
            )?,
        }
        match self.device.filesystem {
            Filesystem::Layered => {
                write!(
                    f,
                    "\nThe folder is a container's layer: test the volume that the data will be on."
                )
            }
            Filesystem::Network => {
                write!(
                    f,
                    "\nThe folder is on a network: what the server does with a flush cannot be seen from here."
                )
            }
            _ if self.device.caches == Some(false) => {
                write!(
                    f,
                    "\nThe drive says that it has no cache to flush; the kernel believes it and sends no flushes."
                )
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_from_what_the_device_is() {
        let flash = Device { name: Some("nvme0n1".into()), ..Device::default() };
        let card = Device { name: Some("mmcblk0".into()), ..Device::default() };
        let turning = Device { name: Some("sda".into()), rotating: true, ..Device::default() };
        let memory = Device { filesystem: Filesystem::Memory, ..Device::default() };
        for (sync_us, write_us, device, verdict) in [
            (310, 3, &flash, Verdict::Plausible),
            (9, 3, &flash, Verdict::TooFast),
            (5, 3, &flash, Verdict::Free),
            (90, 3, &card, Verdict::TooFast),
            (2_000, 3, &card, Verdict::Plausible),
            (310, 3, &turning, Verdict::TooFast),
            (8_000, 3, &turning, Verdict::Plausible),
            (310, 3, &memory, Verdict::Memory),
        ] {
            assert_eq!(judge(sync_us * 1_000, write_us * 1_000, device), verdict, "{device:?}");
        }
    }

    #[test]
    fn a_measurement_says_something_of_the_folder_it_was_made_in() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let flushes = measure(folder.path()).unwrap();
        assert!(flushes.sync_ns.0 > 0 && flushes.sync_ns.0 <= flushes.sync_ns.1);
        assert!(!flushes.to_string().is_empty() && flushes.object()["sync_us_p50"].is_number());
    }
}
