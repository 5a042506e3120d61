//! The command line, by the rules of Go's `flag` package, and the environment, by etcd's.

use super::{
    Failure, Notice,
    flag::{Flag, Kind},
    help,
    table::{self, FLAGS},
    value::Settings,
};

/// What the command line says, beyond the values of flags.
pub(super) enum Line {
    Go(Settings),
    Help,
    Fail(Failure, u8),
}

pub(super) fn read_line(arguments: &[String]) -> Line {
    let mut settings = Settings::defaults();
    let mut rest = arguments;
    while let [argument, after @ ..] = rest {
        rest = after;
        let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return stray(argument);
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() {
            // "--" ends the flags.
            return rest.first().map_or(Line::Go(settings), |argument| stray(argument));
        }
        if name.starts_with(['-', '=']) {
            return usage(format!("bad flag syntax: {argument}"));
        }
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        let Some(flag) = table::find(name) else {
            if matches!(name, "h" | "help") {
                return Line::Help;
            }
            return usage(format!("flag provided but not defined: -{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind.stands_alone() => "true",
            None => {
                let [value, after @ ..] = rest else { return usage(format!("flag needs an argument: -{name}")) };
                rest = after;
                value
            }
        };
        if let Err(e) = settings.put(flag, value) {
            return usage(match flag.kind {
                Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {e}"),
                _ => format!("invalid value {value:?} for flag -{name}: {e}"),
            });
        }
    }
    Line::Go(settings)
}

fn usage(problem: String) -> Line {
    Line::Fail(Failure::Plain(format!("{problem}\n{}", help::USAGE)), 2)
}

fn stray(argument: &str) -> Line {
    Line::Fail(Failure::unverified(format!("{argument:?} is not a valid flag")), 1)
}

/// Takes the values of `ETCD_*`. Of several bad values etcd reports the last one, in the order of names.
pub(super) fn read_env(
    settings: &mut Settings,
    env: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), Failure> {
    let mut flags: Vec<(String, &'static Flag)> = FLAGS.iter().map(|flag| (flag.env(), flag)).collect();
    flags.sort_by_key(|(_, flag)| flag.name);
    for (key, value) in env.iter().filter(|(key, _)| key.starts_with("ETCD_")) {
        match flags.iter().find(|(known, _)| known == key) {
            Some((_, flag)) if settings.is_set(flag.name) => {
                return Err(Failure::Logged(Notice::new("fatal", SHADOWED).with("environment-variable", key)));
            }
            Some((_, flag)) if flag.name == "version" => {
                let notice = Notice::new("warn", "cannot set special environment variable");
                notices.push(notice.with("key", key).with("value", value));
            }
            Some(_) if !value.is_empty() => {}
            _ => {
                let notice = Notice::new("warn", "unrecognized environment variable");
                notices.push(notice.with("environment-variable", format!("{key}={value}")));
            }
        }
    }
    let mut outcome = Ok(());
    for (key, flag) in flags.iter().filter(|(_, flag)| flag.name != "version") {
        let Some((_, value)) = env.iter().find(|(known, value)| known == key && !value.is_empty()) else { continue };
        match settings.put(flag, value) {
            Ok(()) => {
                let notice = Notice::new("info", "recognized and used environment variable");
                let shown = if flag.name.contains("password") { "..." } else { value };
                notices.push(notice.with("variable-name", key).with("variable-value", shown));
            }
            Err(e) => outcome = Err(Failure::unverified(format!("invalid value {value:?} for {key}: {e}"))),
        }
    }
    outcome
}

const SHADOWED: &str = "conflicting environment variable is shadowed by corresponding command-line flag \
    (either unset environment variable or disable flag))";
