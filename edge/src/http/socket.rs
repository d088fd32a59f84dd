//! The HTTP listener's bounds: so many connections, so long without a byte, so long in all.
//!
//! Invariant: a connection that is not served is closed, never kept. axum serves what [`Bounded`] accepts; hyper reads
//! heads into a buffer of bounded size by itself. Neighbours: [`super::serve`].

use axum::serve::Listener;
use headwater_config::Limits;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Life of a connection, in units of the time for one request: a scraper that keeps its connection opens a new one
/// every ten requests' worth of time, and a peer that drips bytes gains nothing.
const LIFE_IN_TIMEOUTS: u32 = 10;

/// Wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts up to the limit; further connections wait in the kernel's backlog.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    timeout: Duration,
}

impl Bounded {
    pub(super) fn new(listener: std::net::TcpListener, limits: &Limits) -> io::Result<Self> {
        let slots = usize::try_from(limits.http_connections_max).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            slots: Arc::new(Semaphore::new(slots)),
            timeout: limits.http_timeout,
        })
    }
}

impl Listener for Bounded {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        loop {
            let Ok(slot) = self.slots.clone().acquire_owned().await else {
                // Nobody closes the semaphore; waiting for ever is what "no more connections" means.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Socket::new(stream, slot, self.timeout), peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its slot and its deadlines.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    timeout: Duration,
    /// End of its life.
    end: Instant,
    alarm: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Socket {
    fn new(stream: TcpStream, slot: OwnedSemaphorePermit, timeout: Duration) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now + timeout));
        Self { stream, timeout, end: now + timeout * LIFE_IN_TIMEOUTS, alarm, _slot: slot }
    }

    /// Bytes moved: the wait begins anew, within the connection's life.
    fn moved(&mut self) {
        let next = (Instant::now() + self.timeout).min(self.end);
        self.alarm.as_mut().reset(next);
    }

    /// Nothing moved: an error once the wait is over.
    fn waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.alarm.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn after<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.waits(cx),
            ready => {
                self.moved();
                ready
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.after(cx, polled)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
