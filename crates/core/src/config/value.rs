//! Values as `ha.cf` writes them: times and booleans. Facts: `docs/heartbeat.md`, section 2; `docs/wire.md`,
//! section 8.

use alloc::{format, string::String};
use core::fmt;

use crate::model::time::{Duration, DurationText, UNITS};

/// Longest time in a file; a longer one is a typing error.
pub(super) const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads a number with optional decimals and the unit `ms`, `us` or `usec`; without a unit it means seconds. The result
/// is rounded to milliseconds.
///
/// # Errors
/// A message, with the cure if there is one.
pub(super) fn time(text: &str) -> Result<Duration, (String, Option<String>)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && decimals.is_empty()) || decimals.contains('.') {
        return Err(("this is not a time".into(), Some("write seconds as `10` or `2.5`, or `500ms`".into())));
    }
    let unit_nanos = match unit.trim() {
        "" => 1_000_000_000,
        unit if unit.eq_ignore_ascii_case("ms") => 1_000_000,
        unit if unit.eq_ignore_ascii_case("us") || unit.eq_ignore_ascii_case("usec") => 1_000,
        unit if unit.eq_ignore_ascii_case("s") => {
            return Err((
                "`s` is not a unit of time here".into(),
                Some(format!("seconds have none: write `{number}`")),
            ));
        }
        _ => {
            return Err((
                "this is not a unit of time".into(),
                Some("known are none (seconds), `ms` and `us`".into()),
            ));
        }
    };
    let nanos = scaled(whole, decimals, unit_nanos);
    match u64::try_from((nanos + 500_000) / 1_000_000).map(Duration::from_millis) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        _ => Err((
            format!("this is longer than {}", Shown(TIME_MAX)),
            Some("write a shorter time; without a unit it is in seconds".into()),
        )),
    }
}

/// A decimal number of units, in nanoseconds; both parts are digits, and may be empty.
fn scaled(whole: &str, decimals: &str, unit_nanos: u128) -> u128 {
    // u64::MAX hours still fit into 128 bits of nanoseconds.
    let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    let fraction = decimals.bytes().take(9).fold((0_u128, 1_000_000_000_u128), |(sum, place), digit| {
        let place = place / 10;
        (sum + u128::from(digit - b'0') * place, place)
    });
    u128::from(whole) * unit_nanos + fraction.0 * unit_nanos / 1_000_000_000
}

/// Reads a time of `locum.toml`: a number with optional decimals and its unit, `300ms`, `1.5s`, `5min`, `1h`.
///
/// # Errors
/// A message, with the cure if there is one.
pub(super) fn united_time(text: &str) -> Result<Duration, (String, Option<String>)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && decimals.is_empty()) || decimals.contains('.') {
        let cure = r#"write a number with its unit: `"300ms"`, `"1s"`, `"5min"`"#;
        return Err(("this is not a time".into(), Some(cure.into())));
    }
    let unit = unit.trim();
    let Some((_, size)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
        let message = if unit.is_empty() { "the unit is missing" } else { "this is not a unit of time" };
        let meant = match unit {
            "m" | "mins" | "minute" | "minutes" => "min",
            "msec" => "ms",
            "usec" => "us",
            "hour" | "hours" => "h",
            _ => "s",
        };
        let cure = format!(r#"is `"{number}{meant}"` meant? Units are `ms`, `s`, `min` and `h`"#);
        return Err((message.into(), Some(cure)));
    };
    match u64::try_from(scaled(whole, decimals, size)).map(Duration::from_nanos) {
        Ok(time) if time <= TIME_MAX => Ok(time),
        _ => Err((
            format!("this is longer than {}", DurationText(TIME_MAX)),
            Some("write a shorter time".into()),
        )),
    }
}

/// Reads a boolean in heartbeat's words, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "on", "yes", "y", "1"]) {
        Some(true)
    } else if is(&["false", "off", "no", "n", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// Formats a time for people: `500 ms`, `10 s`, `2.5 s`.
pub(super) struct Shown(pub(super) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match (millis / 1000, millis % 1000) {
            (0, millis) => write!(f, "{millis} ms"),
            (seconds, 0) => write!(f, "{seconds} s"),
            (seconds, millis) => {
                let decimals = format!("{millis:03}");
                write!(f, "{seconds}.{} s", decimals.trim_end_matches('0'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn times_are_read_as_heartbeat_reads_them() {
        for (text, millis) in [
            ("10", 10_000),
            ("2.5", 2_500),
            (".5", 500),
            ("5.", 5_000),
            ("500ms", 500),
            ("500MS", 500),
            ("499us", 0),
            ("500us", 1),
            ("1500usec", 2),
            ("0.0004", 0),
            ("0.0005", 1),
            ("1.23456789012345678901234567890", 1_235),
            ("0", 0),
            ("604800", 604_800_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_times_are_refused_with_a_cure() {
        for (text, message, cure) in [
            ("10s", "`s` is not a unit of time here", Some("seconds have none: write `10`")),
            ("10m", "this is not a unit of time", Some("known are none (seconds), `ms` and `us`")),
            ("ten", "this is not a time", Some("write seconds as `10` or `2.5`, or `500ms`")),
            ("-1", "this is not a time", Some("write seconds as `10` or `2.5`, or `500ms`")),
            ("1.2.3", "this is not a time", Some("write seconds as `10` or `2.5`, or `500ms`")),
            (".", "this is not a time", Some("write seconds as `10` or `2.5`, or `500ms`")),
            (
                "604801",
                "this is longer than 604800 s",
                Some("write a shorter time; without a unit it is in seconds"),
            ),
            (
                "99999999999999999999999999",
                "this is longer than 604800 s",
                Some("write a shorter time; without a unit it is in seconds"),
            ),
        ] {
            assert_eq!(time(text), Err((message.into(), cure.map(Into::into))), "{text}");
        }
    }

    #[test]
    fn times_with_units_are_read_and_written_back() {
        for (text, nanos, written) in [
            ("300ms", 300_000_000, "300ms"),
            ("1s", 1_000_000_000, "1s"),
            ("1.5s", 1_500_000_000, "1500ms"),
            ("1.5 s", 1_500_000_000, "1500ms"),
            ("5min", 300_000_000_000, "5min"),
            ("60min", 3_600_000_000_000, "1h"),
            ("90s", 90_000_000_000, "90s"),
            (".5h", 1_800_000_000_000, "30min"),
            ("7us", 7_000, "7us"),
            ("1ns", 1, "1ns"),
            ("0s", 0, "0s"),
            ("168h", 604_800_000_000_000, "168h"),
        ] {
            let time = united_time(text).unwrap();
            assert_eq!(time.as_nanos(), nanos, "{text}");
            assert_eq!(DurationText(time).to_string(), written);
            assert_eq!(united_time(written), Ok(time));
        }
    }

    #[test]
    fn times_without_a_known_unit_are_refused_with_a_cure() {
        for (text, message) in [
            ("10", "the unit is missing"),
            ("10m", "this is not a unit of time"),
            ("10S", "this is not a unit of time"),
            ("s", "this is not a time"),
            ("", "this is not a time"),
            ("-1s", "this is not a time"),
            ("1.2.3s", "this is not a time"),
            ("169h", "this is longer than 168h"),
            ("99999999999999999999999999h", "this is longer than 168h"),
        ] {
            let (said, cure) = united_time(text).unwrap_err();
            assert!(said == message && cure.is_some(), "{text}: {said}");
        }
        let (_, cure) = united_time("10m").unwrap_err();
        assert_eq!(cure.as_deref(), Some(r#"is `"10min"` meant? Units are `ms`, `s`, `min` and `h`"#));
    }

    #[test]
    fn booleans_have_many_words() {
        for word in ["true", "ON", "Yes", "y", "1"] {
            assert_eq!(boolean(word), Some(true), "{word}");
        }
        for word in ["false", "OFF", "No", "n", "0"] {
            assert_eq!(boolean(word), Some(false), "{word}");
        }
        assert_eq!(boolean("maybe"), None);
    }

    #[test]
    fn times_are_shown_for_people() {
        for (millis, text) in
            [(0, "0 ms"), (500, "500 ms"), (1000, "1 s"), (2050, "2.05 s"), (30_000, "30 s")]
        {
            assert_eq!(Shown(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
