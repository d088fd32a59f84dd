//! CONNECT: what a client asks for against what this server has.
//!
//! Invariant: what is not here yet (wills, QoS 2, retained messages, sessions that outlive the connection, enhanced
//! authentication) is answered by the protocol's own means, never silently half done.

use crate::codec::{
    ConnAck, ConnAckProperties, Connect, Packet, QoS, ReasonCode, UserProperties, Version,
};
use crate::counters::RefuseCause;
use crate::limits::Limits;
use std::time::Duration;

/// The user property of a CONNECT that asks for receipts in PUBACKs (value `1`).
const RECEIPT_PROPERTY: &str = "headwater-receipt";

/// What a CONNECT came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) version: Version,
    /// The client gave no identifier and must be told one.
    pub(crate) assign_client_id: bool,
    /// Silence after which the connection is closed: one and a half times the keep-alive. [MQTT-3.1.2-22]
    pub(crate) silence_max: Option<Duration>,
    /// Announced where it differs from what the client asked for. [MQTT-3.2.2-21]
    pub(crate) server_keep_alive_s: Option<u16>,
    /// Announced where the client asked for a session that outlives the connection.
    pub(crate) session_expiry_interval_s: Option<u32>,
    /// QoS 1 messages the client takes unacknowledged.
    pub(crate) receive_maximum: u16,
    /// Largest packet the client takes.
    pub(crate) packet_bytes_max: u32,
    pub(crate) receipts: bool,
    pub(crate) problem_information: bool,
}

/// Why a CONNECT was refused: the CONNACK to send (below MQTT 5 only where a return code says the same), and the reason
/// for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectRefused {
    pub(crate) version: Version,
    pub(crate) reason: ReasonCode,
    pub(crate) detail: &'static str,
    pub(crate) cause: RefuseCause,
}

impl ConnectRefused {
    /// The CONNACK. `None`: close without one. [MQTT-3.2.2-6] of 3.1.1
    pub(crate) fn packet(&self) -> Option<Packet<'static>> {
        if self.version != Version::V5 && self.reason.connect_return_code().is_none() {
            return None;
        }
        Some(Packet::ConnAck(ConnAck {
            session_present: false,
            reason: self.reason,
            properties: ConnAckProperties {
                reason_string: Some(self.detail),
                ..ConnAckProperties::default()
            },
        }))
    }
}

/// Decides on a CONNECT; pure.
pub(crate) fn negotiate(
    connect: &Connect<'_>,
    limits: &Limits,
) -> Result<Negotiated, ConnectRefused> {
    let refuse = |reason, cause, detail| {
        Err(ConnectRefused { version: connect.version, reason, detail, cause })
    };
    let properties = &connect.properties;
    if properties.authentication_method.is_some() {
        // [MQTT-4.12.0-1]: a method that the server does not have.
        return refuse(
            ReasonCode::BadAuthenticationMethod,
            RefuseCause::Unsupported,
            "enhanced authentication is not available",
        );
    }
    if let Some(will) = &connect.will {
        let (reason, detail) = match (will.qos, will.retain) {
            // [MQTT-3.2.2-12]
            (QoS::ExactlyOnce, _) => {
                (ReasonCode::QoSNotSupported, "a will with QoS 2 is not available")
            }
            // [MQTT-3.2.2-13]
            (_, true) => (ReasonCode::RetainNotSupported, "a retained will is not available"),
            _ => (ReasonCode::ImplementationSpecificError, "wills are not available yet"),
        };
        return refuse(reason, RefuseCause::Unsupported, detail);
    }
    if connect.client_id.is_empty() {
        match connect.version {
            // Version 3.1 has no assigned identifiers; 3.1.1 only with a clean session. [MQTT-3.1.3-7]
            Version::V3 => {
                return refuse(
                    ReasonCode::ClientIdentifierNotValid,
                    RefuseCause::ClientId,
                    "MQTT 3.1 needs a client identifier",
                );
            }
            Version::V311 if !connect.clean_start => {
                return refuse(
                    ReasonCode::ClientIdentifierNotValid,
                    RefuseCause::ClientId,
                    "an empty client identifier needs a clean session",
                );
            }
            Version::V311 | Version::V5 => {}
        }
    }
    let keep_alive_s = match (connect.keep_alive_s, limits.keep_alive_s_max) {
        (asked, 0) => asked,
        (0, max) if connect.version == Version::V5 => max,
        // Below version 5 the client cannot be told, so its own word stands.
        (asked, max) if connect.version == Version::V5 => asked.min(max),
        (asked, _) => asked,
    };
    Ok(Negotiated {
        version: connect.version,
        assign_client_id: connect.client_id.is_empty(),
        silence_max: (keep_alive_s > 0)
            .then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500)),
        server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        session_expiry_interval_s: properties
            .session_expiry_interval_s
            .is_some_and(|asked| asked > 0)
            .then_some(0),
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        packet_bytes_max: properties.maximum_packet_size_bytes.unwrap_or(u32::MAX),
        receipts: properties.user_properties.get(RECEIPT_PROPERTY) == Some("1"),
        problem_information: properties.request_problem_information.unwrap_or(true),
    })
}

impl Negotiated {
    /// The CONNACK that accepts. Session present is always 0: no session outlives its connection. [MQTT-3.2.2-3]
    pub(crate) fn connack<'a>(&self, client_id: &'a str, limits: &Limits) -> Packet<'a> {
        Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: ConnAckProperties {
                session_expiry_interval_s: self.session_expiry_interval_s,
                receive_maximum: Some(limits.receive_max),
                maximum_qos: Some(QoS::AtLeastOnce),
                retain_available: Some(false),
                maximum_packet_size_bytes: Some(
                    u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX),
                ),
                assigned_client_identifier: self.assign_client_id.then_some(client_id),
                topic_alias_maximum: (limits.topic_alias_max > 0).then_some(limits.topic_alias_max),
                shared_subscription_available: Some(false),
                server_keep_alive_s: self.server_keep_alive_s,
                user_properties: UserProperties::default(),
                ..ConnAckProperties::default()
            },
        })
    }
}
