//! File descriptors: as many as the system lets the process have.
//!
//! Service managers start processes with a soft limit of 1,024 for the sake of programs that use `select`. Sockets and
//! segment files together would meet it, and a segment that cannot be opened is worse than a client that cannot
//! connect. Neighbours: the node asks once at its start; who accepts sockets waits and goes on when there are none.

use headwater_config::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything that is no client: journal, segments, listeners, runtimes.
const OWN_DESCRIPTORS: u64 = 1_024;

/// Raises the soft limit to the hard one, and says so when that is not enough for the connections that are allowed.
pub(super) fn raise(limits: &Limits) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Refused: the old limit stays, and the check below speaks.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let Some(have) = getrlimit(Resource::Nofile).current else { return };
    let clients =
        [limits.connections_max, limits.kafka_connections_max, limits.http_connections_max];
    let want = clients.into_iter().map(u64::from).sum::<u64>() + OWN_DESCRIPTORS;
    if have < want {
        tracing::warn!(
            have,
            want,
            "the limit on open files (ulimit -n) is below what the connection limits allow"
        );
    }
}

/// Segment files that the log keeps open where the configuration does not say: a quarter of all descriptors. Clients have the
/// rest, and more than some thousands of files are used at a time by nobody.
pub(super) fn segment_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).div_ceil(4).clamp(16, 4_096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit { current: Some(512), maximum: before.maximum };
        setrlimit(Resource::Nofile, low).unwrap();
        raise(&headwater_config::Config::default().limits);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        assert!((16..=4_096).contains(&segment_files()));
    }
}
