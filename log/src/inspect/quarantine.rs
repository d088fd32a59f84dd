//! `DIR/quarantine/<time>-<n>/`: where what is damaged goes, as it was, with a report.
//!
//! A file keeps its place in the tree: `topics/t-0.1/<20 digits>.log` becomes `quarantine/<time>-<n>/topics/t-0.1/<20 digits>.log`.
//! `report.txt` has a line for each thing that was done, and grows before the thing is done.
//!
//! Invariant: nothing is deleted and nothing in a quarantine is written over: one that is there already gets a new number.

use super::survey::InspectError;
use crate::disk::{Disk, OpenMode, read_full_at};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// Copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// One repair's quarantine; its folder is made when it is first needed.
pub(crate) struct Quarantine<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    stamp: String,
    folder: Option<PathBuf>,
    report: String,
    /// What was done, a sentence each.
    pub(crate) done: Vec<String>,
}

impl<'a> Quarantine<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, dir: &Path, now_ms: i64) -> Self {
        let (dir, stamp) = (dir.to_owned(), stamp(now_ms));
        Self { disk, dir, stamp, folder: None, report: String::new(), done: Vec::new() }
    }

    /// Where it is, if anything was put there.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Notes what is about to be done.
    pub(crate) fn note(&mut self, what: String) -> Result<(), InspectError> {
        self.report += &format!("{what}\n");
        self.done.push(what);
        let folder = self.make()?;
        let path = folder.join("report.txt");
        let file = self.disk.open(&path, OpenMode::Create).map_err(InspectError::io(&path))?;
        file.write_at(&[IoSlice::new(self.report.as_bytes())], 0)
            .and_then(|()| file.sync_data())
            .map_err(InspectError::io(&path))
    }

    /// Moves a file here, durably.
    pub(crate) fn put(&mut self, file: &Path, why: &str) -> Result<(), InspectError> {
        let to = self.place(file)?;
        self.note(format!("{}: {why}; moved to {}", file.display(), to.display()))?;
        self.disk.rename(file, &to).map_err(InspectError::io(file))?;
        self.sync_above(&to)?;
        self.sync_above(file)
    }

    /// Copies a file here, durably: evidence of what is about to be written over.
    pub(crate) fn copy(&mut self, file: &Path, why: &str) -> Result<(), InspectError> {
        let to = self.place(file)?;
        self.note(format!("{}: {why}; copied to {}", file.display(), to.display()))?;
        copy(self.disk, file, &to)?;
        self.sync_above(&to)
    }

    /// A free name for a file, its folders made.
    fn place(&mut self, file: &Path) -> Result<PathBuf, InspectError> {
        let inside = file.strip_prefix(&self.dir).unwrap_or(file).to_owned();
        let mut folder = self.make()?;
        for part in inside.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            self.make_folder(&folder)?;
        }
        let name = inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut to = folder.join(&name);
        let mut n = 1;
        while self.disk.open(&to, OpenMode::Read).is_ok() {
            n += 1;
            to = folder.join(format!("{name}.{n}"));
        }
        Ok(to)
    }

    fn make(&mut self) -> Result<PathBuf, InspectError> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let all = self.dir.join("quarantine");
        self.make_folder(&all)?;
        for n in 1.. {
            let folder = all.join(format!("{}-{n}", self.stamp));
            match self.disk.create_dir(&folder) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(InspectError::io(&folder)(e)),
                Ok(()) => {
                    self.sync_above(&folder)?;
                    self.folder = Some(folder);
                    break;
                }
            }
        }
        Ok(self.folder.clone().unwrap_or(all))
    }

    fn make_folder(&self, folder: &Path) -> Result<(), InspectError> {
        match self.disk.create_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(InspectError::io(folder)(e)),
            Ok(()) => self.sync_above(folder),
        }
    }

    fn sync_above(&self, path: &Path) -> Result<(), InspectError> {
        let folder = path.parent().unwrap_or(path);
        self.disk.sync_dir(folder).map_err(InspectError::io(folder))
    }
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), InspectError> {
    let source = disk.open(from, OpenMode::Read).map_err(InspectError::io(from))?;
    let file = disk.open(to, OpenMode::Truncate).map_err(InspectError::io(to))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let n = read_full_at(&*source, &mut piece, at).map_err(InspectError::io(from))?;
        file.write_at(&[IoSlice::new(&piece[..n])], at).map_err(InspectError::io(to))?;
        at += n as u64;
        if n < piece.len() {
            return file.sync_data().map_err(InspectError::io(to));
        }
    }
}

/// `20261122T134501Z`.
fn stamp(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_dates() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(951_782_400_000), "20000229T000000Z");
        assert_eq!(stamp(1_795_355_101_999), "20261122T134501Z");
    }
}
