//! What went wrong, by what the caller can do about it.

use crate::wire::ErrorCode;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent: try again later, or another broker.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Where to.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// The connection ended with the request under way: it may have been carried out, or may yet be.
    #[error("connection to {address} lost: {reason}")]
    Lost {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
    /// The broker has no version of this API that this client speaks: do it another way.
    #[error("{address} does not offer a usable version of API key {api_key}")]
    Unsupported {
        /// Where to.
        address: String,
        /// Which API.
        api_key: i16,
    },
    /// The request could not be put into a frame, or the peer does not speak Kafka.
    #[error("{address}: {reason}")]
    Protocol {
        /// Where to.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// The broker said no.
    #[error("{} {message}", code_name(*code))]
    Refused {
        /// Kafka's error code.
        code: i16,
        /// The broker's words, perhaps empty.
        message: String,
    },
}

impl ClientError {
    /// The broker's error code, where this is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => ErrorCode::from_i16(*code),
            _ => None,
        }
    }
}

/// `Ok` for code 0, else [`ClientError::Refused`].
pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), ClientError> {
    if code == 0 {
        return Ok(());
    }
    Err(ClientError::Refused { code, message: message.unwrap_or_default().to_owned() })
}

/// Kafka's name of a code, or its number.
#[must_use]
pub(crate) fn code_name(code: i16) -> String {
    ErrorCode::from_i16(code).map_or_else(|| format!("error {code}"), |c| c.to_string())
}

/// What an error code on a produced batch means for an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceVerdict {
    /// It is there, now or from before.
    Stored,
    /// It is not there, and the same bytes may be sent again: after a look at who leads, if `refresh`.
    NotStored {
        /// The leader or the topic may have changed.
        refresh: bool,
    },
    /// It may or may not be there: find out before sending anything more.
    Unknown,
    /// The centre's idea of this producer differs from ours: find out what it has.
    Sequence,
    /// It will be refused again as long as nobody changes the centre or the records.
    Fatal,
}

/// Maps the code of one partition's answer. A code that is not known counts as [`ProduceVerdict::Fatal`]
/// (a loud stop is better than a guess).
#[must_use]
pub fn produce_verdict(code: i16) -> ProduceVerdict {
    use ErrorCode as E;
    let Some(code) = ErrorCode::from_i16(code) else { return ProduceVerdict::Fatal };
    match code {
        E::None | E::DuplicateSequenceNumber => ProduceVerdict::Stored,
        E::UnknownTopicOrPartition
        | E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::UnknownTopicId
        | E::InconsistentTopicId
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::ReplicaNotAvailable
        | E::BrokerNotAvailable => ProduceVerdict::NotStored { refresh: true },
        E::NotEnoughReplicas | E::ThrottlingQuotaExceeded => {
            ProduceVerdict::NotStored { refresh: false }
        }
        E::RequestTimedOut
        | E::NotEnoughReplicasAfterAppend
        | E::NetworkException
        | E::KafkaStorageError
        | E::UnknownServerError => ProduceVerdict::Unknown,
        E::OutOfOrderSequenceNumber
        | E::UnknownProducerId
        | E::InvalidProducerEpoch
        | E::InvalidProducerIdMapping
        | E::ProducerFenced => ProduceVerdict::Sequence,
        _ => ProduceVerdict::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_what_an_idempotent_producer_may_do() {
        let cases = [
            (0, ProduceVerdict::Stored),
            (46, ProduceVerdict::Stored),
            (6, ProduceVerdict::NotStored { refresh: true }),
            (3, ProduceVerdict::NotStored { refresh: true }),
            (19, ProduceVerdict::NotStored { refresh: false }),
            (7, ProduceVerdict::Unknown),
            (20, ProduceVerdict::Unknown),
            (45, ProduceVerdict::Sequence),
            (59, ProduceVerdict::Sequence),
            (10, ProduceVerdict::Fatal),
            (29, ProduceVerdict::Fatal),
            (32, ProduceVerdict::Fatal),
            (87, ProduceVerdict::Fatal),
            (9_999, ProduceVerdict::Fatal),
        ];
        for (code, expected) in cases {
            assert_eq!(produce_verdict(code), expected, "code {code}");
        }
    }

    #[test]
    fn a_refusal_prints_kafkas_name_and_the_brokers_words() {
        let refused = check(10, Some("too big")).unwrap_err();
        assert_eq!(refused.to_string(), "MESSAGE_TOO_LARGE (10) too big");
        assert_eq!(refused.code(), Some(ErrorCode::MessageTooLarge));
    }
}
