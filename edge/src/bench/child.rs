//! The server under load: `headwater run` as a child, with its CPU time and memory from /proc.
//!
//! Invariant: the child ends with this value, and so does its data. Neighbours: [`super`].

use crate::scratch;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a node may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The kernel's unit of CPU time in /proc (USER_HZ), fixed on Linux.
const TICK: Duration = Duration::from_millis(10);

/// A node in a process of its own.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    mqtt: SocketAddr,
    _data: tempfile::TempDir,
}

impl Child {
    /// Starts it and waits until it takes connections.
    pub(super) fn start(data_dir: Option<&Path>, set: &[String]) -> anyhow::Result<Self> {
        if let Some(parent) = data_dir {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making {}", parent.display()))?;
        }
        let data = scratch::folder(data_dir)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mqtt = free.local_addr()?;
        drop(free);
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("run")
            .args(["--set", &format!("storage.dir={}", data.path().join("data").display())])
            .args(["--set", &format!("listener=[{{protocol=\"mqtt\",bind=\"{mqtt}\"}}]")])
            .args(["--set", "logging.level=warn"])
            .args(set.iter().flat_map(|s| ["--set", s]))
            // No headwater.toml of the user's, no variables of theirs.
            .current_dir(data.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEADWATER_") {
                command.env_remove(name);
            }
        }
        let process = command.spawn().context("starting a node")?;
        let mut child = Self { process, mqtt, _data: data };
        child.wait_until_it_listens()?;
        Ok(child)
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let mut waited = Duration::ZERO;
        while TcpStream::connect(self.mqtt).is_err() {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!("the node ended: {status}");
            }
            anyhow::ensure!(waited < START_MAX, "the node does not listen on {}", self.mqtt);
            std::thread::sleep(ASK_AGAIN);
            waited += ASK_AGAIN;
        }
        Ok(())
    }

    /// Where it listens for MQTT.
    pub(super) fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// CPU time of all its threads so far, user and system.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        cpu_of_stat(&stat).context("/proc/PID/stat is not as it should be")
    }

    /// Resident memory.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1_024)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its data goes too: no need to end well. Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// utime and stime: fields 14 and 15; the second field is a name that may hold spaces and parentheses.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<u32>().ok();
    Some(TICK * ticks(11)?.checked_add(ticks(12)?)?)
}

/// CPU time of this process so far.
pub(super) fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 1 2 3 4 150 50 0 0 20 0 5";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_of_stat("7 (a) S 1"), None);
        assert_eq!(cpu_of_stat(""), None);
    }
}
