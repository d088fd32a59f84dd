//! What is wrong with a peer's bytes, and what the protocol says to answer.
//!
//! Neighbours: `decode` makes these, the session sends [`DecodeError::answer`] and closes the connection, always:
//! there is no decoding on after an error.

use super::packet::Version;
use super::reason::ReasonCode;

/// The kind of violation; each has one reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The bytes do not parse (0x81).
    Malformed,
    /// They parse, and say what may not be said (0x82).
    ProtocolError,
    /// The packet is larger than the receiver's limit (0x95).
    PacketTooLarge,
    /// A topic alias of 0 (0x94); one above the maximum is the session's to find.
    TopicAliasInvalid,
    /// A CONNECT in a version that is not spoken here (0x84).
    UnsupportedProtocolVersion,
    /// A client identifier that this version does not allow (0x85).
    ClientIdentifierNotValid,
}

impl Violation {
    /// Its MQTT 5 reason code.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Malformed => ReasonCode::MalformedPacket,
            Self::ProtocolError => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::UnsupportedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdentifierNotValid => ReasonCode::ClientIdentifierNotValid,
        }
    }
}

/// Why bytes were refused. The connection ends: send [`DecodeError::answer`], then close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail} [{tag}]")]
pub struct DecodeError {
    /// What kind.
    pub violation: Violation,
    /// The normative statement or section that was broken: `MQTT-3.1.2-3`, `2.2.2.2`.
    pub tag: &'static str,
    /// For the log and the reason string.
    pub detail: &'static str,
    /// Where it happened; decides the answer.
    pub(super) place: Place,
}

/// Where an error happened, as far as it decides how to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not known yet: the decoder fills it in.
    Unknown,
    /// In a CONNECT of this version.
    Connect(Version),
    /// Before a version was agreed on.
    NoVersion,
    /// On an established connection.
    Established(Version),
}

/// What a server sends before it closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A CONNACK with this reason, in this version.
    ConnAck(Version, ReasonCode),
    /// A DISCONNECT with this reason (MQTT 5).
    Disconnect(ReasonCode),
    /// Nothing.
    Close,
}

impl DecodeError {
    pub(super) const fn new(violation: Violation, tag: &'static str, detail: &'static str) -> Self {
        Self { violation, tag, detail, place: Place::Unknown }
    }

    pub(super) const fn at(mut self, place: Place) -> Self {
        if matches!(self.place, Place::Unknown) {
            self.place = place;
        }
        self
    }

    /// The reason code of MQTT 5.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        self.violation.reason()
    }

    /// What the server answers: in MQTT 5 a CONNACK or DISCONNECT with the reason [MQTT-4.13.1-1]; below it a CONNACK
    /// where a return code exists for it, else nothing [MQTT-3.1.4-1, MQTT-4.8.0-1].
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self.place {
            Place::Connect(Version::V5) => Answer::ConnAck(Version::V5, self.reason()),
            Place::Connect(version) => match self.violation {
                Violation::UnsupportedProtocolVersion | Violation::ClientIdentifierNotValid => {
                    Answer::ConnAck(version, self.reason())
                }
                _ => Answer::Close,
            },
            Place::Established(Version::V5) => Answer::Disconnect(self.reason()),
            Place::Established(_) | Place::NoVersion | Place::Unknown => Answer::Close,
        }
    }
}

/// Why a packet was not written. Nothing was appended to the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The peer does not take packets this large. Leave out reason string and user properties and try again, or do
    /// not send it. [MQTT-3.1.2-24, MQTT-3.1.2-25]
    #[error("packet of {bytes} bytes is larger than the {bytes_max} that the peer takes")]
    TooLarge {
        /// Size of the packet.
        bytes: usize,
        /// What the peer takes.
        bytes_max: usize,
    },
    /// The packet may not be sent, or cannot be said in the peer's version (for example a PUBACK with an error below
    /// MQTT 5: close the connection instead).
    #[error("{detail} [{tag}]")]
    Illegal {
        /// The normative statement or section.
        tag: &'static str,
        /// For the log.
        detail: &'static str,
    },
}
