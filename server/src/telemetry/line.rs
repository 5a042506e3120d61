//! One line of the log, in zap's JSON and console encodings.

use std::{
    fmt::{self, Write},
    time::{Duration, SystemTime},
};

use tracing::field::{Field, Visit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Console,
}

/// The fields of an event, written down while they are visited.
pub(super) struct Fields {
    format: Format,
    message: String,
    text: String,
    /// Set by the field `level`, for the levels that `tracing` does not have: panic and fatal.
    level: Option<String>,
}

impl Fields {
    pub(super) fn new(format: Format) -> Self {
        Self { format, message: String::new(), text: String::new(), level: None }
    }

    pub(super) fn with(format: Format, message: &str, fields: &[(&str, String)]) -> Self {
        let mut all = Self::new(format);
        all.message.push_str(message);
        for (name, value) in fields {
            all.string(name, value);
        }
        all
    }

    pub(super) fn level(&self) -> Option<&str> {
        self.level.as_deref()
    }

    fn key(&mut self, name: &str) {
        let separator = if self.format == Format::Json { "," } else { ", " };
        if self.format == Format::Json || !self.text.is_empty() {
            self.text.push_str(separator);
        }
        // etcd's fields have dashes, which Rust's identifiers have not.
        push_json(&mut self.text, &name.strip_prefix("r#").unwrap_or(name).replace('_', "-"));
        self.text.push_str(if self.format == Format::Json { ":" } else { ": " });
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.key(name);
        push(&mut self.text, format_args!("{value}"));
    }

    fn string(&mut self, name: &str, value: &str) {
        match name {
            "message" => self.message.push_str(value),
            "level" => self.level = Some(value.into()),
            _ => {
                self.key(name);
                push_json(&mut self.text, value);
            }
        }
    }

    /// The whole line, with its end.
    pub(super) fn line(&self, level: &str, now: SystemTime, caller: &str) -> String {
        let mut line = String::with_capacity(128 + self.message.len() + self.text.len());
        let timestamp = timestamp(now);
        match self.format {
            Format::Json => {
                push(&mut line, format_args!("{{\"level\":\"{level}\",\"ts\":\"{timestamp}\",\"caller\":"));
                push_json(&mut line, caller);
                line.push_str(",\"msg\":");
                push_json(&mut line, &self.message);
                push(&mut line, format_args!("{}}}\n", self.text));
            }
            Format::Console => {
                push(&mut line, format_args!("{timestamp}\t{level}\t{caller}\t{}", self.message));
                if !self.text.is_empty() {
                    push(&mut line, format_args!("\t{{{}}}", self.text));
                }
                line.push('\n');
            }
        }
        line
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field.name(), value);
        } else {
            self.string(field.name(), &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            push(&mut text, format_args!(": {error}"));
            cause = error.source();
        }
        self.string(field.name(), &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.string(field.name(), &format!("{value:?}"));
    }
}

fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes all that is written");
}

fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => push(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `2026-11-24T13:34:47.123456Z`: zap's layout, always in UTC.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Days since 1970-01-01 as year, month and day. Years begin in March here, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros)
    }

    #[test]
    fn timestamps_are_those_of_zap() {
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (1_795_528_426, 29_720, "2026-11-24T13:53:46.029720Z"),
            (4_107_542_399, 999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(at(seconds, micros)), expected);
        }
    }

    /// The shapes of etcd 3.7.3's own lines.
    #[test]
    fn lines_are_those_of_zap() {
        let fields = [("data-dir", "d.etcd".to_owned()), ("error", "\"foo\" is\n\u{1}".to_owned())];
        let json = Fields::with(Format::Json, "failed", &fields).line("warn", at(0, 5), "etcdmain/etcd.go:65");
        assert_eq!(
            json,
            "{\"level\":\"warn\",\"ts\":\"1970-01-01T00:00:00.000005Z\",\"caller\":\"etcdmain/etcd.go:65\",\
             \"msg\":\"failed\",\"data-dir\":\"d.etcd\",\"error\":\"\\\"foo\\\" is\\n\\u0001\"}\n"
        );
        let console = Fields::with(Format::Console, "start", &[("a", "b".into()), ("c_d", "e".into())]);
        assert_eq!(
            console.line("info", at(0, 0), "main.rs:1"),
            "1970-01-01T00:00:00.000000Z\tinfo\tmain.rs:1\tstart\t{\"a\": \"b\", \"c-d\": \"e\"}\n"
        );
        assert_eq!(
            Fields::with(Format::Console, "bare", &[]).line("info", at(0, 0), "x.rs:1"),
            "1970-01-01T00:00:00.000000Z\tinfo\tx.rs:1\tbare\n"
        );
    }
}
