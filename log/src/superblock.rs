//! The superblock: what a data directory is, and which programs may touch it.
//!
//! File `superblock`, little-endian, written to a temporary name, synced and renamed, so it is whole or absent. It is the last
//! file of a new directory: without it a directory is not one yet.
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic `HWSUPERB` |
//! | 8 | version u32 = 1 |
//! | 12 | compatible features u32: unknown bits do not matter |
//! | 16 | read-only compatible features u32: unknown bits forbid writing |
//! | 20 | incompatible features u32: unknown bits forbid everything |
//! | 24 | directory id, 16 bytes |
//! | 40 | machine id, 16 bytes, zero when the machine has none |
//! | 56 | CRC-32C u32 of bytes 0..56 |
//!
//! Invariant: a directory with a newer version or an unknown forbidding bit is not changed in any way.
//! Neighbours: `recovery` reads it first.

use crate::disk::{Disk, OpenMode, read_full_at};
use crate::encoding::{Fields, Put, crc32c};
use crate::log::OpenError;
use std::io::{self, IoSlice};
use std::path::Path;

const MAGIC: &[u8; 8] = b"HWSUPERB";
const VERSION: u32 = 1;
const BYTES: usize = 60;
const READ_ONLY_COMPATIBLE_KNOWN: u32 = 0;
const INCOMPATIBLE_KNOWN: u32 = 0;
const NAME: &str = "superblock";

/// The identity of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) directory_id: [u8; 16],
    pub(crate) machine_id: [u8; 16],
}

impl Superblock {
    /// Reads it; `None` when the directory has none.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(NAME);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut bytes = [0; BYTES];
        let n = read_full_at(&*file, &mut bytes, 0).map_err(io)?;
        Self::decode(dir, &bytes[..n]).map(Some)
    }

    fn decode(dir: &Path, bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |why: &str| OpenError::Damaged {
            dir: dir.to_owned(),
            detail: format!("superblock: {why}"),
        };
        let future = |detail: String| OpenError::FromTheFuture { dir: dir.to_owned(), detail };
        let mut fields = Fields::new(bytes);
        if fields.array::<8>().as_ref() != Some(MAGIC) {
            return Err(damaged("byte 0 is not its magic number"));
        }
        let version = fields.u32().ok_or_else(|| damaged("cut short"))?;
        if version > VERSION {
            return Err(future(format!(
                "superblock has version {version}, this program knows {VERSION}"
            )));
        }
        let parsed = (|| {
            fields.u32()?;
            Some((fields.u32()?, fields.u32()?, fields.array()?, fields.array()?, fields.u32()?))
        })();
        let (read_only, incompatible, directory_id, machine_id, crc) =
            parsed.ok_or_else(|| damaged("cut short"))?;
        if crc != crc32c(&bytes[..BYTES - 4]) {
            return Err(damaged("its CRC does not match"));
        }
        let unknown =
            (read_only & !READ_ONLY_COMPATIBLE_KNOWN) | (incompatible & !INCOMPATIBLE_KNOWN);
        if unknown != 0 {
            return Err(future(format!(
                "superblock names features {unknown:#x}, which this program does not know"
            )));
        }
        Ok(Self { directory_id, machine_id })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put_u32(READ_ONLY_COMPATIBLE_KNOWN);
        out.put_u32(INCOMPATIBLE_KNOWN);
        out.extend_from_slice(&self.directory_id);
        out.extend_from_slice(&self.machine_id);
        let crc = crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// Writes it durably.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
        let temporary = dir.join("superblock.new");
        let io = |source| OpenError::Io { path: temporary.clone(), source };
        let file = disk.open(&temporary, OpenMode::Truncate).map_err(io)?;
        file.write_at(&[IoSlice::new(&self.encode())], 0).map_err(io)?;
        file.sync_data().map_err(io)?;
        disk.rename(&temporary, &dir.join(NAME)).map_err(io)?;
        disk.sync_dir(dir).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_and_unknown_features_are_refused() {
        let dir = Path::new("d");
        let block = Superblock { directory_id: [1; 16], machine_id: [2; 16] };
        let bytes = block.encode();
        assert_eq!(Superblock::decode(dir, &bytes).unwrap(), block);
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(matches!(Superblock::decode(dir, &newer), Err(OpenError::FromTheFuture { .. })));
        for feature in [16, 20] {
            let mut newer = bytes.clone();
            newer[feature] = 1;
            let crc = crc32c(&newer[..56]);
            newer[56..].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(
                Superblock::decode(dir, &newer),
                Err(OpenError::FromTheFuture { .. })
            ));
        }
        let mut compatible = bytes.clone();
        compatible[12] = 1;
        let crc = crc32c(&compatible[..56]);
        compatible[56..].copy_from_slice(&crc.to_le_bytes());
        assert!(Superblock::decode(dir, &compatible).is_ok());
        for at in 0..BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(Superblock::decode(dir, &bad).is_err(), "byte {at}");
            assert!(Superblock::decode(dir, &bytes[..at]).is_err(), "length {at}");
        }
    }
}
