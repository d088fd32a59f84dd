//! Frames: a signed 32-bit length, then that many bytes.
//!
//! Invariant: a length is checked against the limit before anything is allocated for it, and the
//! buffer grows with the bytes that have arrived, never with the length that was announced.
//! Neighbours: `wire::message` reads what is inside.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;

/// The buffer grows by at least this much when it is full.
const GROW_BYTES_MIN: usize = 8 * 1024;

/// A read is not begun with less room than this.
const ROOM_BYTES_MIN: usize = 1024;

/// Why no frame could be read. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced a negative length, or more than is allowed.
    #[error("frame of {length} bytes announced, {limit_bytes} are allowed")]
    Length {
        /// What was announced.
        length: i32,
        /// The limit.
        limit_bytes: usize,
    },
    /// The stream ended inside a frame.
    #[error("stream ended after {have} of {need} bytes of a frame")]
    Truncated {
        /// Bytes that came.
        have: usize,
        /// Bytes announced, with the length.
        need: usize,
    },
    /// The system's error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Splits a stream into frames. Keeps what it has read, so its methods are cancel-safe.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames above `limit_bytes` (the length not counted).
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), limit_bytes }
    }

    /// The next frame without its length; `None` when the stream ended between two frames.
    ///
    /// # Errors
    /// [`FrameError`]. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn frame<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
    ) -> Result<Option<Bytes>, FrameError> {
        match self.length(stream).await? {
            Some(_) => self.body(stream).await.map(Some),
            None => Ok(None),
        }
    }

    /// The checked length of the next frame, which is not consumed; `None` when the stream ended.
    ///
    /// For a caller that reserves memory before it reads on; [`FrameReader::body`] comes next.
    ///
    /// # Errors
    /// [`FrameError`]. Cancel-safe.
    pub async fn length<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
    ) -> Result<Option<usize>, FrameError> {
        while self.buffer.len() < LENGTH_BYTES {
            if self.fill(stream, LENGTH_BYTES).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(self.truncated(LENGTH_BYTES));
            }
        }
        self.announced().map(Some)
    }

    /// The frame whose length [`FrameReader::length`] answered, without that length.
    ///
    /// # Errors
    /// [`FrameError`]. Cancel-safe.
    pub async fn body<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
    ) -> Result<Bytes, FrameError> {
        let Some(length) = self.length(stream).await? else {
            return Err(self.truncated(LENGTH_BYTES));
        };
        let need = LENGTH_BYTES + length;
        self.fill_to(stream, need).await?;
        let mut frame = self.buffer.split_to(need);
        frame.advance(LENGTH_BYTES);
        Ok(frame.freeze())
    }

    /// The first `bytes` of the frame that [`FrameReader::length`] announced, or all of it when it is
    /// shorter. Nothing is consumed.
    ///
    /// # Errors
    /// [`FrameError`]. Cancel-safe.
    pub async fn front<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        bytes: usize,
    ) -> Result<&[u8], FrameError> {
        let Some(length) = self.length(stream).await? else {
            return Err(self.truncated(LENGTH_BYTES));
        };
        let end = LENGTH_BYTES + length.min(bytes);
        self.fill_to(stream, end).await?;
        Ok(&self.buffer[LENGTH_BYTES..end])
    }

    fn announced(&self) -> Result<usize, FrameError> {
        let mut front = [0; LENGTH_BYTES];
        front.copy_from_slice(&self.buffer[..LENGTH_BYTES]);
        let length = i32::from_be_bytes(front);
        match usize::try_from(length) {
            Ok(bytes) if bytes <= self.limit_bytes => Ok(bytes),
            _ => Err(FrameError::Length { length, limit_bytes: self.limit_bytes }),
        }
    }

    async fn fill_to<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        need: usize,
    ) -> Result<(), FrameError> {
        while self.buffer.len() < need {
            if self.fill(stream, need).await? == 0 {
                return Err(self.truncated(need));
            }
        }
        Ok(())
    }

    /// Reads once. Room doubles with what has come, so memory stays within twice the bytes received.
    async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        need: usize,
    ) -> Result<usize, FrameError> {
        let spare = self.buffer.capacity() - self.buffer.len();
        let missing = need.saturating_sub(self.buffer.len());
        let want = missing.clamp(ROOM_BYTES_MIN, self.buffer.len().max(GROW_BYTES_MIN));
        if spare < want {
            self.buffer.reserve(want.max(GROW_BYTES_MIN));
        }
        Ok(stream.read_buf(&mut self.buffer).await?)
    }

    fn truncated(&self, need: usize) -> FrameError {
        FrameError::Truncated { have: self.buffer.len(), need }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn frames_are_split_wherever_the_stream_is_cut() {
        let bytes = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02de";
        for cut in 0..bytes.len() {
            let mut stream = AsyncReadExt::chain(&bytes[..cut], &bytes[cut..]);
            let mut reader = FrameReader::new(3);
            run(async {
                for expected in [&b"abc"[..], b"", b"de"] {
                    assert_eq!(reader.frame(&mut stream).await.unwrap().unwrap(), expected);
                }
                assert!(reader.frame(&mut stream).await.unwrap().is_none());
            });
        }
    }

    #[test]
    fn a_length_above_the_limit_allocates_nothing() {
        for front in [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0, 0, 0, 4]] {
            let mut reader = FrameReader::new(3);
            let found = run(reader.frame(&mut &front[..]));
            assert!(matches!(found, Err(FrameError::Length { limit_bytes: 3, .. })));
            assert!(reader.buffer.capacity() <= 2 * GROW_BYTES_MIN);
        }
    }

    #[test]
    fn an_announced_frame_that_never_comes_costs_what_came() {
        let mut reader = FrameReader::new(1 << 30);
        let mut stream = &b"\x3f\xff\xff\xff-and-then-nothing"[..];
        let found = run(reader.frame(&mut stream));
        assert!(matches!(found, Err(FrameError::Truncated { have: 21, .. })), "{found:?}");
        assert!(reader.buffer.capacity() <= 4 * GROW_BYTES_MIN);
    }

    #[test]
    fn the_end_inside_a_length_is_truncation() {
        let mut reader = FrameReader::new(3);
        let found = run(reader.frame(&mut &b"\0\0"[..]));
        assert!(matches!(found, Err(FrameError::Truncated { have: 2, need: 4 })));
    }
}
