//! A connection to peers that misbehave: each is a socket of this test that plays a broker.

use super::*;
use crate::wire::messages::api_versions_response::ApiVersion;
use crate::wire::messages::{ApiVersionsResponse, MetadataRequest, MetadataResponse};
use crate::wire::{decode_request_head, encode_response};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_millis(300),
        frame_bytes_max: 10_000,
        in_flight_max: 2,
        ..ClientOptions::new(Vec::new(), "test")
    }
}

/// The broker's side: reads requests, answers what the test says.
struct Peer {
    stream: TcpStream,
    frames: FrameReader,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { stream, frames: FrameReader::new(1 << 20) }
    }

    /// The next request's key, version and correlation id.
    async fn request(&mut self) -> (i16, i16, i32) {
        let frame = self.frames.frame(&mut self.stream).await.unwrap().unwrap();
        let (head, _) =
            decode_request_head(frame, Limits::for_frames_of(1 << 20), |_, _| false).unwrap();
        (head.api_key, head.api_version, head.correlation_id)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn versions(&mut self, request_version: i16, error_code: i16) {
        let api =
            |key, max| message!(ApiVersion { api_key: key, min_version: 0, max_version: max });
        let answer = message!(ApiVersionsResponse {
            error_code: error_code,
            api_keys: vec![api(3, 9), api(18, 0)],
        });
        let frame = encode_response::<ApiVersionsRequest>(0, request_version, &answer).unwrap();
        self.send(&frame).await;
    }

    async fn metadata(&mut self, correlation: i32) {
        let answer = message!(MetadataResponse { controller_id: correlation });
        let frame = encode_response::<MetadataRequest>(correlation, 9, &answer).unwrap();
        self.send(&frame).await;
    }
}

/// A connection and the peer it has found.
async fn connected() -> (Connection, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = async {
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.request().await.0, 18);
        peer.versions(3, 0).await;
        peer
    };
    let options = options();
    let (connection, peer) = tokio::join!(Connection::open(&address, &options), peer);
    (connection.unwrap(), peer)
}

async fn ask(connection: &Connection) -> Result<i32, ClientError> {
    let answer = connection.call(Versions::new(4, 12), &MetadataRequest::default()).await;
    answer.map(|answer| answer.controller_id)
}

#[test]
fn an_old_broker_is_asked_again_at_version_0() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = async {
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await, (18, 3, 0));
            peer.versions(0, 35).await;
            assert_eq!(peer.request().await, (18, 0, 0));
            peer.versions(0, 0).await;
            peer
        };
        let options = options();
        let (connection, _peer) = tokio::join!(Connection::open(&address, &options), peer);
        let connection = connection.unwrap();
        assert_eq!(connection.version(ApiKey(3), Versions::new(4, 12)), Ok(9));
        let unsupported = connection.version(ApiKey::DESCRIBE_PRODUCERS, Versions::new(0, 0));
        assert!(matches!(unsupported, Err(ClientError::Unsupported { api_key: 61, .. })));
    });
}

#[test]
fn requests_are_pipelined_up_to_the_bound_and_answered_in_order() {
    run(async {
        let (connection, mut peer) = connected().await;
        let calls = async { tokio::join!(ask(&connection), ask(&connection), ask(&connection)) };
        let serve = async {
            // Two arrive before an answer, the third only after one.
            let (first, second) = (peer.request().await.2, peer.request().await.2);
            peer.metadata(first).await;
            let third = peer.request().await.2;
            peer.metadata(second).await;
            peer.metadata(third).await;
            (first, second, third)
        };
        let (answers, sent) = tokio::join!(calls, serve);
        assert_eq!((answers.0.unwrap(), answers.1.unwrap(), answers.2.unwrap()), sent);
    });
}

#[test]
fn an_overdue_answer_ends_the_connection_and_leaves_the_outcome_open() {
    run(async {
        let (connection, mut peer) = connected().await;
        let (answer, _) = tokio::join!(ask(&connection), peer.request());
        assert!(matches!(answer, Err(ClientError::Lost { .. })), "{answer:?}");
        assert!(connection.is_closed());
        let later = ask(&connection).await;
        assert!(matches!(later, Err(ClientError::Lost { .. })), "{later:?}");
        assert_eq!(peer.stream.read(&mut [0; 8]).await.unwrap(), 0, "the socket is closed");
    });
}

#[test]
fn an_answer_to_another_request_ends_the_connection() {
    run(async {
        let (connection, mut peer) = connected().await;
        let serve = async {
            let correlation = peer.request().await.2;
            peer.metadata(correlation + 1).await;
        };
        let (answer, ()) = tokio::join!(ask(&connection), serve);
        assert!(matches!(answer, Err(ClientError::Lost { .. })), "{answer:?}");
    });
}

#[test]
fn a_frame_above_the_limit_is_not_read() {
    run(async {
        let (connection, mut peer) = connected().await;
        let serve = async {
            peer.request().await;
            peer.send(&i32::MAX.to_be_bytes()).await;
        };
        let (answer, ()) = tokio::join!(ask(&connection), serve);
        let lost = answer.unwrap_err().to_string();
        assert!(lost.contains("2147483647") && lost.contains("10000"), "{lost}");
    });
}

#[test]
fn a_peer_that_does_not_speak_kafka_is_named() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = async {
            let mut peer = Peer::accept(&listener).await;
            peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            peer
        };
        let options = options();
        let (connection, _peer) = tokio::join!(Connection::open(&address, &options), peer);
        let error = connection.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&address));
    });
}

#[test]
fn nobody_there_is_unreachable() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Connection::open(&address, &options()).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    });
}
