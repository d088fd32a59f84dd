//! DescribeCluster (key 60), versions 0-1 (KIP-700): the cluster is this node.
//!
//! v1 tells brokers from controllers (KIP-919).
//! Invariant: the same id and address as in Metadata.
//! Neighbours: `metadata`.

use super::{Door, NODE_ID, metadata};
use crate::message;
use crate::wire::messages::{
    DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response,
};
use crate::wire::{ErrorCode, Versions};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 1);

/// The client asks for brokers, not for controllers.
const ENDPOINT_BROKERS: i8 = 1;

/// This node.
pub(super) async fn answer(
    door: &Door,
    request: DescribeClusterRequest,
    _version: i16,
) -> DescribeClusterResponse {
    if request.endpoint_type != ENDPOINT_BROKERS {
        return message!(DescribeClusterResponse {
            error_code: door.code(ErrorCode::MismatchedEndpointType),
            error_message: Some("this is a broker's listener".into()),
        });
    }
    let broker = message!(describe_cluster_response::DescribeClusterBroker {
        broker_id: NODE_ID,
        host: door.advertised.0.as_str().into(),
        port: i32::from(door.advertised.1),
    });
    let operations = request.include_cluster_authorized_operations;
    message!(DescribeClusterResponse {
        cluster_id: door.cluster_id().into(),
        controller_id: NODE_ID,
        brokers: vec![broker],
        cluster_authorized_operations: if operations {
            metadata::CLUSTER_OPERATIONS
        } else {
            metadata::OPERATIONS_UNKNOWN
        },
    })
}
