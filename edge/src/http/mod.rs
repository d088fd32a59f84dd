//! HTTP: health for people and supervisors, metrics for Prometheus.
//!
//! `GET /health`, `/health/live`, `/health/ready`, `/metrics`, `/metrics/detailed?family=partition&topic=NAME`,
//! `/ledger?limit=N&cause=CAUSE&topic=NAME`.
//! Invariant: bounded in connections, in the time of each, and in what is read of a request; nothing here changes the
//! node. Neighbours: `health` judges, `metrics` renders, `socket` keeps the bounds.

mod health;
mod metrics;
mod render;
mod socket;

pub(crate) use health::Progress;

use crate::node::{Bound, Parts};
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What handlers see.
#[derive(Clone)]
struct Seen {
    parts: Arc<Parts>,
    progress: Arc<Progress>,
}

/// Serves one listener until `stopping` becomes true.
pub(crate) async fn serve(
    bound: Bound,
    parts: Arc<Parts>,
    progress: Arc<Progress>,
    mut stopping: watch::Receiver<bool>,
) {
    let limits = parts.config.limits.clone();
    let listener = match socket::Bounded::new(bound.listener, &limits) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve HTTP");
            return;
        }
    };
    let app = Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/metrics/detailed", get(detailed))
        .route("/ledger", get(ledger))
        .layer(middleware::from_fn_with_state(limits.http_body_bytes_max, no_large_bodies))
        .with_state(Seen { parts, progress });
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "HTTP ended");
    }
}

/// No handler reads a body; one that announces more than the limit is not even drained.
async fn no_large_bodies(State(bytes_max): State<u32>, request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.unwrap_or(0) > u64::from(bytes_max) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    next.run(request).await
}

async fn health(State(seen): State<Seen>) -> Response {
    let judged = health::judge(&seen.parts, &seen.progress);
    let status =
        if judged.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(judged.into_json())).into_response()
}

/// The process answers: a supervisor restarts what does not.
async fn live() -> &'static str {
    "live\n"
}

/// Recovered and writable. A centre that cannot be reached is no reason to take devices away from a node.
async fn ready(State(seen): State<Seen>) -> Response {
    match health::why_not_ready(&seen.parts) {
        None => "ready\n".into_response(),
        Some(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
        }
    }
}

async fn metrics(State(seen): State<Seen>) -> Response {
    text(metrics::render(&seen.parts))
}

async fn detailed(
    State(seen): State<Seen>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let usage = "write /metrics/detailed?family=partition&topic=NAME\n";
    if query.get("family").map(String::as_str) != Some("partition") {
        return (StatusCode::BAD_REQUEST, usage).into_response();
    }
    let Some(topic) = query.get("topic") else {
        return (StatusCode::BAD_REQUEST, usage).into_response();
    };
    match metrics::render_partitions(&seen.parts, topic) {
        Some(body) => text(body),
        None => (StatusCode::NOT_FOUND, "there is no such topic\n").into_response(),
    }
}

/// Entries of the ledger that are shown when nobody says how many, and at most.
const LEDGER_ENTRIES: usize = 100;
const LEDGER_ENTRIES_MAX: usize = 1_000;

/// What was dropped, and why: the newest entries of `__headwater_ledger`, one JSON object per line.
async fn ledger(
    State(seen): State<Seen>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let limit = match query.get("limit").map(|limit| limit.parse::<usize>()) {
        None => LEDGER_ENTRIES,
        Some(Ok(limit)) if limit <= LEDGER_ENTRIES_MAX => limit,
        Some(_) => {
            let usage = format!("limit is a number up to {LEDGER_ENTRIES_MAX}\n");
            return (StatusCode::BAD_REQUEST, usage).into_response();
        }
    };
    let log = seen.parts.log.clone();
    let read = tokio::task::spawn_blocking(move || {
        let is = |value: &serde_json::Value, member: &str, wanted: &str| {
            value.get(member).and_then(serde_json::Value::as_str) == Some(wanted)
        };
        headwater_bridge::ledger::newest(&log, limit, |value| {
            let cause = query.get("cause").is_none_or(|cause| is(value, "cause", cause));
            // The log's topic, or a device's.
            let topic = query
                .get("topic")
                .is_none_or(|topic| is(value, "topic", topic) || is(value, "mqtt_topic", topic));
            cause && topic
        })
    });
    match read.await {
        Ok(Ok(entries)) => {
            let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
            ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
        }
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}
