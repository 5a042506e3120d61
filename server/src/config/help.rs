//! `--help`, printed from the table in etcd's grouping, and the usage that follows a bad flag.

use std::fmt::Write;

use super::{
    flag::{Flag, Group, Stage},
    gates::GATES,
    table::FLAGS,
};

pub(super) const USAGE: &str = "\
Usage:

  etcd [flags]
    Start a server.

  etcd --version
    Show the version.

  etcd -h | --help
    Show the flags.

  etcd --config-file
    Path of a configuration file in YAML or JSON. All other flags and the environment are then ignored.
    Durations are whole numbers of nanoseconds in the file (600000000000 for 10m), but for --heartbeat-interval
    and --election-timeout, which are milliseconds everywhere.

Every flag can be given in the environment as well: --data-dir as ETCD_DATA_DIR. A flag that is set twice is an error.
";

pub(super) fn text() -> String {
    let mut text = USAGE.to_owned();
    for (group, title) in Group::SHOWN {
        line(&mut text, format_args!("\n{title}:"));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            line(&mut text, format_args!("  --{} '{}'", flag.name, shown_default(flag)));
            line(&mut text, format_args!("    {}", flag.help));
            match flag.stage {
                Stage::Accepted => text.push_str("    Accepted, without an effect yet.\n"),
                Stage::Refused => text.push_str("    Not built yet: the server refuses to start with it.\n"),
                Stage::Works | Stage::Ignored => {}
            }
        }
    }
    line(&mut text, format_args!("\nFeature gates:"));
    for gate in GATES {
        line(&mut text, format_args!("  {}={} ({:?})", gate.name, gate.default, gate.stage));
    }
    text.push_str("\nThe flags under \"Unsafe feature\" can lose acknowledged data.\n");
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a String takes all that is written");
}

fn shown_default(flag: &Flag) -> &str {
    if flag.name == "data-dir" { "${name}.etcd" } else { flag.default }
}
