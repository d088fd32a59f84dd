//! Durations, sizes and shares as people write them: `"7d"`, `"1h30m"`, `"10GiB"`, `"80%"`.
//!
//! Invariant: nothing is rounded and nothing overflows; what cannot be represented is an error that says why.
//! Neighbours: [`crate::keys`] uses these for every default, the reader for every value.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Nanoseconds per unit; `ms` and `us` stand before `m` and `s` because the longest suffix must win.
const TIMES: [(&str, u64); 7] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 7 * 86_400 * 1_000_000_000),
];

/// Parses a number of bytes: an integer, with or without one of `B kB KB MB GB TB KiB MiB GiB TiB`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = split(text);
    if digits.is_empty() {
        return Err(format!(
            "{text:?} is not a size: write an integer and a unit, as in \"64MiB\""
        ));
    }
    let number: u64 =
        digits.replace('_', "").parse().map_err(|_| format!("{text:?} is too large a size"))?;
    let factor = match unit {
        "" | "B" => 1,
        unit => SIZES.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f).ok_or_else(|| {
            format!("{unit:?} is not a unit of size: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
        })?,
    };
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large a size"))
}

/// Parses a duration: integers, each with one of `us ms s m h d w`, largest first by custom, added up.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err("an empty text is not a duration: write \"30s\" or \"7d\"".into());
    }
    let mut total_ns: u64 = 0;
    while !rest.is_empty() {
        let (digits, tail) = split(rest);
        if digits.is_empty() {
            return Err(format!("{text:?} is not a duration: write \"30s\", \"7d\" or \"1h30m\""));
        }
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let unit = unit.trim();
        if unit.is_empty() {
            return Err(format!("{text:?} lacks a unit of time: us, ms, s, m, h, d or w"));
        }
        let factor =
            TIMES.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f).ok_or_else(|| {
                format!("{unit:?} is not a unit of time: us, ms, s, m, h, d or w")
            })?;
        let too_long = || format!("{text:?} is too long a time");
        let number: u64 = digits.replace('_', "").parse().map_err(|_| too_long())?;
        let part = number.checked_mul(factor).ok_or_else(too_long)?;
        total_ns = total_ns.checked_add(part).ok_or_else(too_long)?;
        rest = next.trim_start();
    }
    Ok(Duration::from_nanos(total_ns))
}

/// Parses a share of a whole: `"80%"`, 1 to 100. `None` where the text does not end in `%`.
pub fn parse_percent(text: &str) -> Option<Result<u8, String>> {
    let number = text.trim().strip_suffix('%')?;
    Some(match number.trim().parse::<u8>() {
        Ok(n) if (1..=100).contains(&n) => Ok(n),
        _ => Err(format!("{text:?} is not a share: write a number from 1% to 100%")),
    })
}

/// A size as it would be written: the largest binary unit that divides it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let unit = SIZES[..4].iter().rev().find(|(_, f)| bytes >= *f && bytes.is_multiple_of(*f));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// A duration as it would be written: the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // Weeks are accepted but never shown: people count retention in days.
    let unit = TIMES[..6].iter().rev().find(|(_, f)| ns >= *f && ns.is_multiple_of(*f));
    match unit {
        Some((name, factor)) => format!("{}{name}", ns / factor),
        None => format!("{}us", ns / 1_000),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("10GiB"), Ok(10 << 30));
        assert_eq!(parse_bytes("1_000_000"), Ok(1_000_000));
        assert_eq!(parse_bytes("64 kB"), Ok(64_000));
        for wrong in ["", "GiB", "10 Gib", "1.5GiB", "-1", "99999999999TiB", "18446744073709551616"]
        {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        for bytes in [0, 1, 1023, 1024, 10 << 30, 1_000_000] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "7", "7 days", "d", "1.5h", "-1s", "9999999999w", "1h30"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        for text in ["1ms", "250us", "90s", "7d", "1h"] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&show_duration(parsed)), Ok(parsed));
        }
    }

    #[test]
    fn shares() {
        assert_eq!(parse_percent("80%"), Some(Ok(80)));
        assert_eq!(parse_percent("80"), None);
        assert!(parse_percent("0%").unwrap().is_err());
        assert!(parse_percent("101%").unwrap().is_err());
    }
}
