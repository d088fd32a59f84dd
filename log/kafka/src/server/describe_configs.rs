//! DescribeConfigs (key 32), versions 1-4: the settings of topics and of this broker.
//!
//! v1 adds sources and synonyms (KIP-226), v3 types and documentation (KIP-569), v4 tagged fields.
//! Invariant: what is shown is what is in force.
//! Neighbours: `configs` names the settings.

use super::create_topics::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::{Door, NODE_ID, configs, lookup};
use crate::message;
use crate::wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, StrBytes, describe_configs_request,
    describe_configs_response,
};
use crate::wire::{ErrorCode, Versions};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(1, 4);

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

/// `ConfigSource`: from the configuration file.
const SOURCE_STATIC: i8 = 4;

/// Describes each resource by itself.
pub(super) async fn answer(
    door: &Door,
    request: DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let documented = request.include_documentation && version >= 3;
    let results = request.resources.into_iter().map(|resource| {
        let found = match resource.resource_type {
            RESOURCE_TOPIC => topic(door, &resource),
            RESOURCE_BROKER => broker(door, &resource),
            _ => Err((ErrorCode::InvalidRequest, "only topics and the broker have configs")),
        };
        let (code, text, entries) = match found {
            Ok(entries) => (ErrorCode::None, None, entries),
            Err((code, text)) => (code, Some(text), Vec::new()),
        };
        let keys = resource.configuration_keys.as_deref();
        let wanted = |key: &str| keys.is_none_or(|keys| keys.iter().any(|k| k.as_str() == key));
        let configs = entries.into_iter().filter(|(entry, _)| wanted(entry.key));
        let configs = configs.map(|(entry, source)| shown(entry, source, documented, version));
        let configs = configs.collect();
        message!(describe_configs_response::DescribeConfigsResult {
            error_code: door.code(code),
            error_message: text.map(StrBytes::from),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs: configs,
        })
    });
    message!(DescribeConfigsResponse { results: results.collect() })
}

type Found = Result<Vec<(configs::Entry, i8)>, (ErrorCode, &'static str)>;

fn topic(door: &Door, resource: &describe_configs_request::DescribeConfigsResource) -> Found {
    let topic = lookup::topic(door, &resource.resource_name)
        .ok_or((ErrorCode::UnknownTopicOrPartition, "no such topic"))?;
    let defaults = configs::entries(&door.shared.topics.rule(topic.name()).settings);
    let entries = configs::entries(topic.settings()).into_iter().zip(defaults);
    Ok(entries
        .map(|(entry, default)| {
            let source = if entry == default { SOURCE_DEFAULT } else { SOURCE_TOPIC };
            (entry, source)
        })
        .collect())
}

fn broker(door: &Door, resource: &describe_configs_request::DescribeConfigsResource) -> Found {
    let name = resource.resource_name.as_str();
    if !name.is_empty() && name != NODE_ID.to_string() {
        return Err((ErrorCode::InvalidRequest, "the only broker is 0"));
    }
    let settings = door.settings();
    let entry =
        |key, value: String, kind, text| (configs::Entry { key, value, kind, text }, SOURCE_STATIC);
    use configs::Kind::{Int, Long};
    Ok(vec![
        entry(
            "connections.max.idle.ms",
            settings.idle_max.as_millis().to_string(),
            Long,
            "a connection without a request for so long is closed",
        ),
        entry("default.replication.factor", "1".to_owned(), Int, "there is one node"),
        entry(
            "fetch.max.bytes",
            settings.fetch_bytes_max.to_string(),
            Int,
            "bytes of records in one fetch response",
        ),
        entry(
            "max.connections",
            settings.connections_max.to_string(),
            Int,
            "connections open at a time",
        ),
        entry(
            "socket.request.max.bytes",
            settings.request_bytes_max.to_string(),
            Int,
            "bytes of one request",
        ),
    ])
}

fn shown(
    entry: configs::Entry,
    source: i8,
    documented: bool,
    version: i16,
) -> describe_configs_response::DescribeConfigsResourceResult {
    let typed = version >= 3;
    message!(describe_configs_response::DescribeConfigsResourceResult {
        name: entry.key.into(),
        value: Some(entry.value.into()),
        read_only: true,
        config_source: source,
        config_type: if typed { entry.kind as i8 } else { 0 },
        documentation: documented.then(|| entry.text.into()),
    })
}
