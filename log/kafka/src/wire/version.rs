//! API keys and version ranges.
//!
//! Invariant: a version is used only after it was found in both sides' ranges.
//! Neighbours: `server::api_versions` prints the server's table, the client negotiates with it.

use super::messages::KafkaRequest;

/// The number of an API, as in a request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Produce
    pub const PRODUCE: Self = Self(0);
    /// Fetch
    pub const FETCH: Self = Self(1);
    /// ListOffsets
    pub const LIST_OFFSETS: Self = Self(2);
    /// Metadata
    pub const METADATA: Self = Self(3);
    /// FindCoordinator
    pub const FIND_COORDINATOR: Self = Self(10);
    /// SaslHandshake
    pub const SASL_HANDSHAKE: Self = Self(17);
    /// ApiVersions
    pub const API_VERSIONS: Self = Self(18);
    /// CreateTopics
    pub const CREATE_TOPICS: Self = Self(19);
    /// DeleteTopics
    pub const DELETE_TOPICS: Self = Self(20);
    /// InitProducerId
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// OffsetForLeaderEpoch
    pub const OFFSET_FOR_LEADER_EPOCH: Self = Self(23);
    /// DescribeConfigs
    pub const DESCRIBE_CONFIGS: Self = Self(32);
    /// CreatePartitions
    pub const CREATE_PARTITIONS: Self = Self(37);
    /// DescribeCluster
    pub const DESCRIBE_CLUSTER: Self = Self(60);
    /// DescribeProducers
    pub const DESCRIBE_PRODUCERS: Self = Self(61);

    /// The key of a request type.
    #[must_use]
    pub fn of<R: KafkaRequest>() -> Self {
        Self(R::API_KEY.value())
    }
}

/// A range of versions, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Lowest.
    pub min: i16,
    /// Highest.
    pub max: i16,
}

impl Versions {
    /// From the lowest to the highest, inclusive.
    #[must_use]
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// Whether `version` lies in the range.
    #[must_use]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// The highest version that both ranges have, `None` when they do not meet.
#[must_use]
pub fn negotiate(ours: Versions, theirs: Versions) -> Option<i16> {
    let version = ours.max.min(theirs.max);
    (ours.contains(version) && theirs.contains(version)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_takes_the_highest_common_version() {
        let cases = [
            ((3, 11), (0, 13), Some(11)),
            ((3, 11), (0, 8), Some(8)),
            ((3, 11), (0, 2), None),
            ((3, 11), (12, 13), None),
            ((0, 0), (0, 0), Some(0)),
        ];
        for ((a, b), (c, d), expected) in cases {
            assert_eq!(negotiate(Versions::new(a, b), Versions::new(c, d)), expected);
        }
    }
}
