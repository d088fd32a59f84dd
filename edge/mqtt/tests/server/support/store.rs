//! A store in memory whose every answer a test decides: what is committed, what is refused, what has left memory.

use bytes::Bytes;
use headwater_mqtt::codec::Publish;
use headwater_mqtt::{Message, Outcome, Publisher, ReadFailure, Refusal, Settled, Store, StreamId};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// The store. Times are milliseconds, offsets start at 0.
pub(crate) struct MemoryStore {
    state: Mutex<State>,
    moved: watch::Sender<u64>,
    now_ms: AtomicI64,
}

/// What tests look at and change.
pub(crate) struct State {
    pub(crate) streams: Vec<Stream>,
    /// Commit as soon as something is published.
    pub(crate) commit_at_once: bool,
    /// Messages that may be published and not committed.
    pub(crate) room: usize,
    pub(crate) refuse: Option<Refusal>,
    /// What waits is answered with this.
    pub(crate) fail: Option<Refusal>,
    pub(crate) reads: usize,
    pub(crate) cold_reads: usize,
    pub(crate) dropped: Vec<(&'static str, String, u64)>,
    pub(crate) lost: Vec<(&'static str, String, u64, u64)>,
    /// Every message taken, in order.
    pub(crate) taken: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Stream {
    messages: Vec<Arc<Message>>,
    committed: u64,
    /// Retention: records below are gone.
    pub(crate) start: u64,
    /// Records below are on disk only.
    pub(crate) in_memory: u64,
}

/// Where a message went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    stream: usize,
    offset: u64,
}

impl MemoryStore {
    /// A store of that many streams that commits at once.
    pub(crate) fn new(streams: usize) -> Arc<Self> {
        let state = State {
            streams: (0..streams).map(|_| Stream::default()).collect(),
            commit_at_once: true,
            room: usize::MAX,
            refuse: None,
            fail: None,
            reads: 0,
            cold_reads: 0,
            dropped: Vec::new(),
            lost: Vec::new(),
            taken: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            moved: watch::Sender::new(0),
            now_ms: AtomicI64::new(1_000_000),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Commits all that was published, and says so.
    pub(crate) fn commit(&self) {
        for stream in &mut self.state().streams {
            stream.committed = stream.messages.len() as u64;
        }
        self.wake();
    }

    /// Commits one more message of the stream that holds the oldest uncommitted one.
    pub(crate) fn commit_one(&self) {
        if let Some(stream) = self
            .state()
            .streams
            .iter_mut()
            .find(|stream| stream.committed < stream.messages.len() as u64)
        {
            stream.committed += 1;
        }
        self.wake();
    }

    /// Commits all of one stream.
    pub(crate) fn commit_stream(&self, number: usize) {
        let stream = &mut self.state().streams[number];
        stream.committed = stream.messages.len() as u64;
        self.wake();
    }

    /// The stream that a topic's messages go to.
    pub(crate) fn stream_of(topic: &str, streams: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        hasher.finish() as usize % streams
    }

    /// Committed messages of one topic.
    pub(crate) fn committed_of(&self, topic: &str) -> u64 {
        let state = self.state();
        let stream = &state.streams[Self::stream_of(topic, state.streams.len())];
        let visible = stream.messages.iter().take(stream.committed as usize);
        visible.filter(|message| &*message.topic == topic).count() as u64
    }

    /// What is committed now is on disk only.
    pub(crate) fn forget_memory(&self) {
        for stream in &mut self.state().streams {
            stream.in_memory = stream.committed;
        }
    }

    /// Something may have changed.
    pub(crate) fn wake(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    pub(crate) fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Messages published and not committed.
    pub(crate) fn uncommitted(&self) -> usize {
        self.state().uncommitted()
    }
}

impl State {
    fn uncommitted(&self) -> usize {
        self.streams.iter().map(|s| s.messages.len() - s.committed as usize).sum()
    }
}

fn stored(
    publish: &Publish<'_>,
    from: &Publisher,
    stream: usize,
    offset: u64,
    now: i64,
) -> Message {
    let properties = &publish.properties;
    Message {
        topic: publish.topic.into(),
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        publisher: Some((*from.client_id).into()),
        expires_at_ms: properties.message_expiry_interval_s.map(|s| now + i64::from(s) * 1_000),
        payload_format_indicator: properties.payload_format_indicator,
        content_type: properties.content_type.map(Into::into),
        response_topic: properties.response_topic.map(Into::into),
        correlation_data: properties.correlation_data.map(Bytes::copy_from_slice),
        user_properties: properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        stream: StreamId(stream as u32),
        offset,
    }
}

impl Store for MemoryStore {
    type Ticket = Ticket;

    fn publish(
        &self,
        from: &Publisher,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome<Ticket>>,
    ) {
        let mut state = self.state();
        for publish in messages {
            if let Some(refusal) = state.refuse {
                outcomes.push(Outcome::Refused(refusal));
                continue;
            }
            if state.uncommitted() >= state.room {
                break;
            }
            let number = Self::stream_of(publish.topic, state.streams.len());
            let stream = &mut state.streams[number];
            let offset = stream.messages.len() as u64;
            let now = self.now_ms.load(Ordering::Relaxed);
            stream.messages.push(Arc::new(stored(publish, from, number, offset, now)));
            state.taken.push(String::from_utf8_lossy(publish.payload).into_owned());
            outcomes.push(Outcome::Accepted(Ticket { stream: number, offset }));
        }
        let at_once = state.commit_at_once;
        drop(state);
        if at_once {
            self.commit();
        }
    }

    fn settled(&self, ticket: &Ticket) -> Settled {
        let state = self.state();
        match state.fail {
            _ if ticket.offset < state.streams[ticket.stream].committed => Settled::Passed,
            Some(refusal) => Settled::Failed(refusal),
            None => Settled::Waiting,
        }
    }

    fn receipt(&self, ticket: &Ticket, pair: &mut dyn FnMut(&str, &str)) {
        pair("topic", "memory");
        pair("partition", &ticket.stream.to_string());
        pair("offset", &ticket.offset.to_string());
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    fn streams(&self) -> u32 {
        self.state().streams.len() as u32
    }

    fn end(&self, stream: StreamId) -> u64 {
        self.state().streams[stream.0 as usize].committed
    }

    fn read(
        &self,
        stream: StreamId,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<Arc<Message>>,
    ) -> Result<u64, ReadFailure> {
        let mut state = self.state();
        state.reads += 1;
        let stream = &state.streams[stream.0 as usize];
        if from < stream.start {
            return Err(ReadFailure::Gone { first: stream.start });
        }
        let cold = from < stream.in_memory;
        let (mut next, mut bytes) = (from, 0);
        while next < stream.committed && bytes < bytes_max {
            let message = &stream.messages[next as usize];
            bytes += message.topic.len() + message.payload.len();
            out.push(message.clone());
            next += 1;
        }
        state.cold_reads += usize::from(cold);
        Ok(next)
    }

    fn is_in_memory(&self, stream: StreamId, from: u64) -> bool {
        from >= self.state().streams[stream.0 as usize].in_memory
    }

    fn dropped(&self, cause: &'static str, topic: &str, count: u64) {
        self.state().dropped.push((cause, topic.to_owned(), count));
    }

    fn lost(&self, cause: &'static str, subscriber: &str, _: StreamId, from: u64, to: u64) {
        self.state().lost.push((cause, subscriber.to_owned(), from, to));
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}
