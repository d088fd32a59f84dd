//! How bytes and answers are written for people and for programs.
//!
//! Invariant: one line per answer, whatever is in it: control characters never reach a terminal.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;

/// For people, or for programs: a JSON object per line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Prints a line; `false` when the reader has gone away (`| head`), which is no error.
pub(crate) fn print_line(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).is_ok()
}

/// Bytes as text where they are text, else in base64 (RFC 4648) with `base64:` before it.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("base64:{}", base64(bytes)),
    }
}

/// As [`text`], told apart by the shape: a string, or `{"base64": "..."}`; `null` for none.
pub(crate) fn value(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => json!(text),
        Some((bytes, Err(_))) => json!({ "base64": base64(bytes) }),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            out.push(match digit <= group.len() {
                true => char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfc]), "//79/A==");
    }

    #[test]
    fn what_is_not_text_is_marked() {
        assert_eq!(text("21.5 °C".as_bytes()), "21.5 °C");
        assert_eq!(text(b"a\x1b[2J"), "base64:YRtbMko=");
        assert_eq!(value(Some(&[0xff])), json!({ "base64": "/w==" }));
        assert_eq!(value(Some(b"a\nb")), json!("a\nb"));
        assert_eq!(value(None), Value::Null);
        assert_eq!(hex(&[0, 171]), "00ab");
    }
}
