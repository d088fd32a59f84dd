//! Which key and value the records of the account have: it keeps one text per record, and all else follows from that.
//!
//! A text ends its name with a number, `topic/partition#17|...`. Seven keys are so few that each comes up again soon. `|!` is a
//! tombstone, whose text travels in a header since it has no value; `|?` has no key.

use headwater_log::record::{Headers, Record};

const KEYS: u64 = 7;
const TEXT_HEADER: &str = "text";

/// The first byte behind the bar of the text with this number, if it is not a plain record.
pub(crate) fn mark_of(number: u64) -> Option<u8> {
    match number {
        n if n % 11 == 3 => Some(b'!'),
        n if n % 29 == 5 => Some(b'?'),
        _ => None,
    }
}

/// Number and mark of a text that has them.
fn parts_of(text: &[u8]) -> Option<(u64, Option<u8>)> {
    let bar = text.iter().position(|byte| *byte == b'|')?;
    let hash = text[..bar].iter().rposition(|byte| *byte == b'#')?;
    let number = std::str::from_utf8(&text[hash + 1..bar]).ok()?.parse().ok()?;
    Some((number, text.get(bar + 1).copied()))
}

pub(crate) fn key_of(text: &[u8]) -> Option<Vec<u8>> {
    let (number, mark) = parts_of(text)?;
    (mark != Some(b'?')).then(|| format!("key {}", number % KEYS).into_bytes())
}

pub(crate) fn is_tombstone(text: &[u8]) -> bool {
    parts_of(text).is_some_and(|(_, mark)| mark == Some(b'!'))
}

pub(crate) fn value_of(text: &[u8]) -> Option<&[u8]> {
    (!is_tombstone(text)).then_some(text)
}

pub(crate) fn headers_of(text: &[u8]) -> Headers {
    let mut headers = Headers::default();
    headers.push("h", b"x");
    if is_tombstone(text) {
        headers.push(TEXT_HEADER, text);
    }
    headers
}

/// The text of a record that was read.
pub(crate) fn text_of(record: &Record) -> Vec<u8> {
    let named = |(name, _): &&(_, _)| *name == TEXT_HEADER.as_bytes();
    let in_header = || record.headers.iter().find(named).and_then(|(_, text)| text.clone());
    let text = record.value.clone().or_else(in_header);
    text.expect("tombstones have their text in a header").to_vec()
}
