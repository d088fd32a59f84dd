//! What the door counts, for the metrics page.
//!
//! Invariant: the number of series is fixed by the tables of APIs and error codes, never by clients.
//! Neighbours: `edge` renders [`DoorFigures`].

use super::apis;
use crate::wire::{ApiKey, ErrorCode};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters at one moment. Totals since the process started, but for `connections_open`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorFigures {
    /// Requests by the name of their API, those without any left out.
    pub requests: Vec<(&'static str, u64)>,
    /// Errors in responses by Kafka's name of the code, those without any left out.
    pub errors: Vec<(&'static str, u64)>,
    /// Bytes of request frames.
    pub bytes_in: u64,
    /// Bytes of response frames.
    pub bytes_out: u64,
    /// Batches appended for producers.
    pub batches_in: u64,
    /// Open now.
    pub connections_open: u64,
    /// Accepted in all.
    pub connections_total: u64,
    /// Closed at once because too many were open.
    pub connections_refused: u64,
    /// Closed because of what the peer sent.
    pub connections_malformed: u64,
}

pub(super) struct Figures {
    requests: [AtomicU64; apis::TABLE.len()],
    errors: [AtomicU64; ErrorCode::ALL.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    batches_in: AtomicU64,
    connections_open: AtomicU64,
    connections_total: AtomicU64,
    connections_refused: AtomicU64,
    connections_malformed: AtomicU64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; apis::TABLE.len()],
            errors: [const { AtomicU64::new(0) }; ErrorCode::ALL.len()],
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            batches_in: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_malformed: AtomicU64::new(0),
        }
    }
}

impl Figures {
    pub(super) fn request(&self, key: ApiKey, frame_bytes: usize) {
        self.bytes_in.fetch_add(frame_bytes as u64, Relaxed);
        if let Some(index) = apis::TABLE.iter().position(|api| api.key == key) {
            self.requests[index].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn response(&self, frame_bytes: usize) {
        self.bytes_out.fetch_add(frame_bytes as u64, Relaxed);
    }

    pub(super) fn batch(&self) {
        self.batches_in.fetch_add(1, Relaxed);
    }

    pub(super) fn error(&self, code: ErrorCode) {
        // The table begins at -1 and has no gaps, which its own test checks.
        let index = usize::try_from(code.code() + 1).unwrap_or(0);
        if code != ErrorCode::None {
            self.errors[index].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn connection_opened(&self) {
        self.connections_open.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Relaxed);
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_malformed(&self) {
        self.connections_malformed.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> DoorFigures {
        let named = |names: &mut dyn Iterator<Item = &'static str>, counts: &[AtomicU64]| {
            names
                .zip(counts)
                .map(|(name, count)| (name, count.load(Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        DoorFigures {
            requests: named(&mut apis::TABLE.iter().map(|api| api.name), &self.requests),
            errors: named(&mut ErrorCode::ALL.iter().map(|code| code.name()), &self.errors),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            batches_in: self.batches_in.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            connections_malformed: self.connections_malformed.load(Relaxed),
        }
    }
}
