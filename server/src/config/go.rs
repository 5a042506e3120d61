//! Go's notation of numbers, booleans and durations, which etcd's command line is written in, with Go's words for what
//! is wrong.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    Syntax,
    Range,
}

impl NumberError {
    /// As Go's `flag` package says it.
    pub(super) fn in_flag(self) -> &'static str {
        match self {
            NumberError::Syntax => "parse error",
            NumberError::Range => "value out of range",
        }
    }

    /// As Go's `strconv` package says it.
    pub(super) fn in_strconv(self) -> &'static str {
        match self {
            NumberError::Syntax => "invalid syntax",
            NumberError::Range => "value out of range",
        }
    }
}

/// `strconv.ParseUint(text, 0, 64)`
pub(super) fn parse_uint(text: &str) -> Result<u64, NumberError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // A base prefix counts as a digit before an underscore.
    let prefixed = digits.len() < lower.len();
    let separated = !digits.contains("__") && !digits.ends_with('_') && (prefixed || !digits.starts_with('_'));
    let digits = digits.replace('_', "");
    if digits.is_empty() || !separated || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    u64::from_str_radix(&digits, radix).map_err(|_| NumberError::Range)
}

/// `strconv.ParseInt(text, 0, 64)`
pub(super) fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let size = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| NumberError::Range)
}

/// `strconv.ParseBool`
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A span of time in nanoseconds, negative ones too: Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(pub(super) i64);

/// `time.ParseDuration`; the error is its text.
pub(super) fn parse_duration(text: &str) -> Result<Nanos, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Nanos(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(whole_end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += scaled(whole, fraction, scale).ok_or_else(invalid)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map(Nanos).map_err(|_| invalid())
}

fn scaled(whole: &str, fraction: &str, scale: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits past the eighteenth are below a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = u32::try_from(fraction.len()).ok()?;
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(scale)?.checked_add(part.checked_mul(scale)?.checked_div(10_i128.checked_pow(digits)?)?)
}

/// `time.Duration.String`
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let fractional = |f: &mut fmt::Formatter<'_>, scale: u64, unit: &str| {
            let fraction = format!("{:0width$}", nanos % scale, width = scale.ilog10() as usize);
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() || scale == 1 { "" } else { "." };
            let fraction = if scale == 1 { "" } else { fraction };
            let whole = if scale == 1_000_000_000 { nanos / scale % 60 } else { nanos / scale };
            write!(f, "{whole}{dot}{fraction}{unit}")
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => fractional(f, 1, "ns"),
            1_000..1_000_000 => fractional(f, 1_000, "µs"),
            1_000_000..1_000_000_000 => fractional(f, 1_000_000, "ms"),
            1_000_000_000.. => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes >= 1 {
                    write!(f, "{}m", minutes % 60)?;
                }
                fractional(f, 1_000_000_000, "s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0b11", Ok(3)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("0x_f", Ok(15)),
            ("1_000", Ok(1000)),
            ("0", Ok(0)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("08", Err(NumberError::Syntax)),
            ("1__0", Err(NumberError::Syntax)),
            ("_1", Err(NumberError::Syntax)),
            ("1_", Err(NumberError::Syntax)),
            ("+5", Err(NumberError::Syntax)),
            ("-5", Err(NumberError::Syntax)),
            (" 5", Err(NumberError::Syntax)),
            ("1e3", Err(NumberError::Syntax)),
            ("", Err(NumberError::Syntax)),
            ("0x", Err(NumberError::Syntax)),
            ("99999999999999999999", Err(NumberError::Range)),
        ] {
            assert_eq!(parse_uint(text), expected, "{text}");
        }
        for (text, expected) in [
            ("+5", Ok(5)),
            ("-5", Ok(-5)),
            ("-0", Ok(0)),
            ("-0x10", Ok(-16)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(NumberError::Range)),
            ("--5", Err(NumberError::Syntax)),
            ("1.5", Err(NumberError::Syntax)),
        ] {
            assert_eq!(parse_int(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, nanos, written) in [
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("-5s", -5_000_000_000, "-5s"),
            ("+5s", 5_000_000_000, "5s"),
            (".5s", 500_000_000, "500ms"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("0", 0, "0s"),
            ("1us", 1_000, "1µs"),
            ("1µs", 1_000, "1µs"),
            ("1ns", 1, "1ns"),
            ("00.1s", 100_000_000, "100ms"),
            ("1m", 60_000_000_000, "1m0s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("61.25s", 61_250_000_000, "1m1.25s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("10ms", 10_000_000, "10ms"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!((duration.0, duration.to_string()), (nanos, written.to_string()), "{text}");
        }
        for (text, error) in [
            ("x", "time: invalid duration \"x\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("", "time: invalid duration \"\""),
            ("1h-5m", "time: unknown unit \"h-\" in duration \"1h-5m\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
            ("1m1", "time: missing unit in duration \"1m1\""),
            (".s", "time: invalid duration \".s\""),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error);
        }
    }
}
