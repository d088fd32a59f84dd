//! Where batches made here are compressed: on a thread of its own, between their sealing and the cycle that journals them.
//!
//! A cycle that finds a sealed batch of a topic with a codec hands it over and goes on without it; the partition queues itself
//! again when it is done, and what is appended meanwhile gathers in the open batch. So no partition waits for another's codec,
//! the commit thread never compresses, and a slow codec makes larger batches. An acknowledgement still waits for the sync of
//! the cycle that holds its batch: offsets were given before, only bytes change here.
//!
//! Invariant: a batch is taken by a cycle either before it is handed over or after it came back, so that journal and segment
//! have the same bytes. Neighbours: `partition::compress` hands over and takes back, `threads` runs it; a node that is stepped
//! does it between two steps.

use crate::Partition;
use crate::batch;
use crate::batch::compression::Compression;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Plain bytes that may wait here. What comes above it is stored as it is: a slow codec costs space, not messages.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// A batch to compress.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) partition: Arc<Partition>,
    pub(crate) plain: Bytes,
    pub(crate) compression: Compression,
}

/// The batches of one directory that wait for their codec.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    stop: bool,
}

impl Compressor {
    /// Takes a batch over; `false` when too much waits.
    pub(crate) fn offer(&self, job: Job) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + job.plain.len() > WAITING_BYTES_MAX {
            return false;
        }
        waiting.bytes += job.plain.len();
        waiting.jobs.push_back(job);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Compresses all that waits, on the calling thread; `false` when nothing did.
    pub(crate) fn run_waiting(&self) -> bool {
        let mut ran = false;
        loop {
            let job = {
                let mut waiting = self.waiting.lock();
                waiting.take()
            };
            let Some(job) = job else { return ran };
            run(&job);
            ran = true;
        }
    }

    /// Compresses what comes, until [`Compressor::stop`].
    pub(crate) fn run_until_stopped(&self) {
        loop {
            let job = {
                let mut waiting = self.waiting.lock();
                loop {
                    if waiting.stop {
                        // What is left is compressed by who closes the log.
                        return;
                    }
                    if let Some(job) = waiting.take() {
                        break job;
                    }
                    self.arrived.wait(&mut waiting);
                }
            };
            run(&job);
        }
    }

    /// Ends the thread that runs it.
    pub(crate) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.arrived.notify_all();
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.bytes -= job.plain.len();
        Some(job)
    }
}

fn run(job: &Job) {
    // A codec that panics costs the space, not the partition, which waits for this answer.
    let small =
        catch_unwind(AssertUnwindSafe(|| batch::compressed(&job.plain, job.compression))).ok();
    job.partition.take_compressed(&job.plain, small.flatten().map(Bytes::from));
}
