//! MQTT 5's reason codes (section 2.4) and which packet may carry which, from which side.
//!
//! Below version 5 only CONNACK (0 to 5) and SUBACK (0x80) have codes: mapped here, in one place.

use super::decode::Receiver;
use super::packet::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)+) => {
        /// A reason code. Names are those of section 2.4; 0x00 is also "normal disconnection" and "granted QoS 0".
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the names are the protocol's own")]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)+
        }

        impl ReasonCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// `None` for a byte that the protocol gives no meaning.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.byte() >= 0x80
    }

    /// Whether a packet of this type may carry this code when `receiver` gets it. [MQTT-3.2.2-8] and the tables of
    /// sections 3.2.2.2, 3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1 and 3.15.2.1.
    #[must_use]
    pub const fn is_legal(self, packet: PacketType, receiver: Receiver) -> bool {
        let to_client = matches!(receiver, Receiver::Client);
        match packet {
            PacketType::ConnAck => {
                to_client
                    && matches!(
                        self.byte(),
                        0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
                    )
            }
            PacketType::PubAck | PacketType::PubRec => {
                matches!(self.byte(), 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            PacketType::PubRel | PacketType::PubComp => matches!(self.byte(), 0x00 | 0x92),
            PacketType::SubAck => {
                to_client
                    && matches!(
                        self.byte(),
                        0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
                    )
            }
            PacketType::UnsubAck => {
                to_client && matches!(self.byte(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            PacketType::Disconnect => match self.byte() {
                0x00 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => true,
                0x04 => !to_client,
                0x87 | 0x89 | 0x8B..=0x8F | 0x9A..=0xA2 => to_client,
                _ => false,
            },
            PacketType::Auth => match self.byte() {
                0x00 => to_client,
                0x18 => true,
                0x19 => !to_client,
                _ => false,
            },
            _ => false,
        }
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 (table 3.1) that says the same, where there is one. `None`: close
    /// the connection without a CONNACK.
    #[must_use]
    pub const fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned => Some(5),
            _ => None,
        }
    }

    /// What a CONNACK return code of MQTT 3.1 and 3.1.1 says. `None` above 5: reserved.
    #[must_use]
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}
