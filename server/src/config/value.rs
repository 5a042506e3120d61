//! The value of a flag, and how it is read from the command line, the environment and the configuration file.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::Value as Yaml;

use super::{
    LogLevel,
    flag::{Flag, Kind},
    gates::FeatureGates,
    go::{self, Nanos},
    heartbeat::Heartbeat,
    table::FLAGS,
    url::Url,
};

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Uint(u64),
    Heartbeat(Heartbeat),
    Duration(Nanos),
    Urls(Vec<Url>),
    List(Vec<String>),
    Level(LogLevel),
    Gates(FeatureGates),
}

impl Value {
    /// From the command line or the environment; none: the text leaves the value as it was.
    fn read(kind: Kind, text: &str) -> Result<Option<Self>, String> {
        let number = |e: go::NumberError| e.in_flag().to_owned();
        let strings = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let value = match kind {
            Kind::Text => Value::Text(text.into()),
            Kind::Bool => Value::Bool(go::parse_bool(text).ok_or("parse error")?),
            Kind::Int => Value::Int(go::parse_int(text).map_err(number)?),
            Kind::Uint => Value::Uint(go::parse_uint(text).map_err(number)?),
            Kind::Uint32 => Value::Uint(read_uint32(text)?),
            Kind::Heartbeat => Value::Heartbeat(Heartbeat::parse(text)?),
            Kind::Duration => Value::Duration(go::parse_duration(text).map_err(|_| "parse error")?),
            Kind::Urls if text.is_empty() => return Ok(None),
            Kind::Urls => Value::Urls(Url::parse_list(text)?),
            Kind::Origins if text == "*" => Value::List(vec!["*".into()]),
            Kind::Origins => Value::List(Url::parse_list(text)?.iter().map(Url::to_string).collect()),
            Kind::Hosts | Kind::Set => {
                Value::List(strings(text).into_iter().collect::<BTreeSet<_>>().into_iter().collect())
            }
            Kind::List => Value::List(strings(text)),
            Kind::OneOf(valid) => match valid.contains(&text) {
                true => Value::Text(text.into()),
                false => return Err("invalid value".into()),
            },
            Kind::ManyOf(valid) => match text.split(',').find(|part| !valid.contains(part)) {
                None => Value::Text(text.into()),
                Some(part) => return Err(format!("invalid value {part:?}")),
            },
            Kind::Level => Value::Level(LogLevel::parse(text).ok_or_else(|| format!("unrecognized level: {text:?}"))?),
            Kind::Gates => Value::Gates(FeatureGates::parse(text)?),
            Kind::Ignored => return Ok(None),
        };
        Ok(Some(value))
    }

    fn default_of(flag: &Flag) -> Self {
        let empty_list = matches!(flag.kind, Kind::Set | Kind::List) && flag.default.is_empty();
        let read = match flag.kind {
            Kind::Urls if flag.default.is_empty() => Ok(Some(Value::Urls(Vec::new()))),
            Kind::ManyOf(_) | Kind::Ignored => Ok(Some(Value::Text(String::new()))),
            _ if empty_list => Ok(Some(Value::List(Vec::new()))),
            kind => Value::read(kind, flag.default),
        };
        read.ok().flatten().expect("the defaults of the table are valid: a test reads them all")
    }

    /// From the configuration file, whose values have types; none: nothing was given.
    fn read_yaml(kind: Kind, yaml: &Yaml) -> Result<Option<Self>, String> {
        let wrong = |expected: &str| Err(format!("expected {expected}, found {}", describe(yaml)));
        match (kind, yaml) {
            (_, Yaml::Null) => Ok(None),
            (Kind::Bool, Yaml::Bool(on)) => Ok(Some(Value::Bool(*on))),
            // YAML 1.1, which etcd reads, has these as booleans.
            (Kind::Bool, Yaml::String(text)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" => Ok(Some(Value::Bool(true))),
                "no" | "off" => Ok(Some(Value::Bool(false))),
                _ => wrong("true or false"),
            },
            (Kind::Bool, _) => wrong("true or false"),
            (Kind::Int, _) => yaml.as_i64().map_or_else(|| wrong("a whole number"), |n| Ok(Some(Value::Int(n)))),
            (Kind::Uint, _) => {
                yaml.as_u64().map_or_else(|| wrong("a whole number, not negative"), |n| Ok(Some(Value::Uint(n))))
            }
            (Kind::Uint32, _) => match yaml.as_u64().filter(|n| *n <= u64::from(u32::MAX)) {
                Some(n) => Ok(Some(Value::Uint(n))),
                None => wrong("a whole number of at most 4294967295"),
            },
            (Kind::Heartbeat, Yaml::String(text)) if text.starts_with("auto") => Value::read(kind, text),
            (Kind::Heartbeat, _) => match yaml.as_u64() {
                Some(millis) => Ok(Some(Value::Heartbeat(Heartbeat::Millis(millis)))),
                None => wrong("a whole number, not negative, or auto"),
            },
            (Kind::Duration, _) => match yaml.as_i64() {
                Some(nanos) => Ok(Some(Value::Duration(Nanos(nanos)))),
                None => wrong("a whole number of nanoseconds (600000000000 for 10m)"),
            },
            (Kind::Set | Kind::List, Yaml::Sequence(items)) if items.is_empty() => Ok(None),
            (Kind::Set | Kind::List, Yaml::Sequence(items)) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                texts.map_or_else(|| wrong("a list of texts"), |texts| Ok(Some(Value::List(texts))))
            }
            (Kind::Set | Kind::List, _) => wrong("a list of texts"),
            (_, Yaml::String(text)) if text.is_empty() && kind != Kind::Text => Ok(None),
            (_, Yaml::String(text)) => Value::read(kind, text),
            _ => wrong("a text"),
        }
    }
}

fn read_uint32(text: &str) -> Result<u64, String> {
    match go::parse_uint(text) {
        Ok(n) if n <= u64::from(u32::MAX) => Ok(n),
        Ok(_) => Err(go::NumberError::Range),
        Err(e) => Err(e),
    }
    .map_err(|e| format!("strconv.ParseUint: parsing {text:?}: {}", e.in_strconv()))
}

fn describe(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Null => "nothing".into(),
        Yaml::Bool(on) => on.to_string(),
        Yaml::Number(n) => n.to_string(),
        Yaml::String(text) => format!("the text {text:?}"),
        Yaml::Sequence(_) => "a list".into(),
        Yaml::Mapping(_) => "a mapping".into(),
        Yaml::Tagged(_) => "a tagged value".into(),
    }
}

/// All flags with the values they have by now, and which of them were set.
pub(super) struct Settings {
    values: BTreeMap<&'static str, Value>,
    set: BTreeSet<&'static str>,
}

macro_rules! getters {
    ($($method:ident $variant:ident $type:ty;)*) => {
        $(pub(super) fn $method(&self, name: &str) -> $type {
            match self.values.get(name) {
                Some(Value::$variant(value)) => value.clone(),
                other => unreachable!("the table has no such {} {name}: {other:?}", stringify!($variant)),
            }
        })*
    };
}

impl Settings {
    pub(super) fn defaults() -> Self {
        Self { values: FLAGS.iter().map(|flag| (flag.name, Value::default_of(flag))).collect(), set: BTreeSet::new() }
    }

    pub(super) fn put(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        let value = Value::read(flag.kind, text)?;
        self.put_value(flag, value);
        Ok(())
    }

    pub(super) fn put_yaml(&mut self, flag: &'static Flag, yaml: &Yaml) -> Result<(), String> {
        let value = Value::read_yaml(flag.kind, yaml)?;
        self.put_value(flag, value);
        Ok(())
    }

    fn put_value(&mut self, flag: &'static Flag, value: Option<Value>) {
        if let Some(value) = value {
            self.values.insert(flag.name, value);
        }
        self.set.insert(flag.name);
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    /// Whether the value asks for anything: `--client-cert-auth=false` and `--cert-file=` do not.
    pub(super) fn asks(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Text(text)) => !text.is_empty(),
            Some(Value::Bool(on)) => *on,
            Some(Value::List(items)) => items.iter().any(|item| !item.is_empty()),
            _ => false,
        }
    }

    getters! {
        text Text String;
        bool Bool bool;
        int Int i64;
        uint Uint u64;
        heartbeat Heartbeat Heartbeat;
        nanos Duration Nanos;
        urls Urls Vec<Url>;
        list List Vec<String>;
        level Level LogLevel;
        gates Gates FeatureGates;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_of_the_table_is_valid() {
        let settings = Settings::defaults();
        assert_eq!(settings.values.len(), FLAGS.len(), "each name stands once");
    }
}
