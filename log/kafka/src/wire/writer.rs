//! Writes the parts of a message by hand, where the codec would copy records.
//!
//! Invariant: what a [`Writer`] makes is byte for byte what the codec would make; the tests of its
//! users compare the two. Neighbours: `server::fetch` puts stored batches between what is written here.

use bytes::{BufMut, Bytes, BytesMut};

/// The front and the gaps of a frame, with foreign bytes between them.
#[derive(Debug)]
pub struct Writer {
    flexible: bool,
    own: BytesMut,
    parts: Vec<Bytes>,
    parts_bytes: usize,
}

impl Writer {
    /// Begins a response frame: room for its length, the correlation id, and tags when flexible.
    #[must_use]
    pub fn response(correlation_id: i32, flexible: bool) -> Self {
        let mut own = BytesMut::with_capacity(256);
        own.put_i32(0);
        own.put_i32(correlation_id);
        let mut writer = Self { flexible, own, parts: Vec::new(), parts_bytes: 0 };
        writer.tags();
        writer
    }

    /// An `INT16`.
    pub fn i16(&mut self, value: i16) {
        self.own.put_i16(value);
    }

    /// An `INT32`.
    pub fn i32(&mut self, value: i32) {
        self.own.put_i32(value);
    }

    /// An `INT64`.
    pub fn i64(&mut self, value: i64) {
        self.own.put_i64(value);
    }

    /// A `STRING` or `COMPACT_STRING` of at most 32,767 bytes (topic names have at most 249).
    pub fn string(&mut self, value: &str) {
        let bytes = &value.as_bytes()[..value.len().min(32_767)];
        if self.flexible {
            self.varint(bytes.len() + 1);
        } else {
            self.own.put_i16(bytes.len() as i16);
        }
        self.own.put_slice(bytes);
    }

    /// The length of an array, `None` for a null one. The elements come next.
    pub fn array(&mut self, elements: Option<usize>) {
        self.length(elements);
    }

    /// `RECORDS`: their length, then the slices as they are, without a copy.
    pub fn records(&mut self, slices: &[Bytes]) {
        self.length(Some(slices.iter().map(Bytes::len).sum()));
        for slice in slices {
            self.cut();
            self.parts_bytes += slice.len();
            self.parts.push(slice.clone());
        }
    }

    /// No tagged fields, where the version has them.
    pub fn tags(&mut self) {
        if self.flexible {
            self.own.put_u8(0);
        }
    }

    /// The frame with its length, in the pieces to be written one after the other.
    ///
    /// `None` when it is longer than a frame can be.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Bytes>> {
        self.cut();
        let length = i32::try_from(self.parts_bytes - super::LENGTH_BYTES).ok()?;
        let front = self.parts.first_mut()?;
        let mut fixed = BytesMut::from(&front[..]);
        fixed[..super::LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        *front = fixed.freeze();
        Some(self.parts)
    }

    fn cut(&mut self) {
        if !self.own.is_empty() {
            let own = self.own.split().freeze();
            self.parts_bytes += own.len();
            self.parts.push(own);
        }
    }

    /// A length: null is -1, or 0 in the compact form that counts from one. Lengths above what 31 bits
    /// hold cannot occur: responses are bounded far below; they saturate rather than wrap.
    fn length(&mut self, length: Option<usize>) {
        if self.flexible {
            self.varint(length.map_or(0, |length| length.saturating_add(1)));
        } else {
            let length = length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX));
            self.own.put_i32(length);
        }
    }

    fn varint(&mut self, value: usize) {
        let mut rest = u32::try_from(value).unwrap_or(u32::MAX);
        while rest >= 0x80 {
            self.own.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.own.put_u8(rest as u8);
    }
}
