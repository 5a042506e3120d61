//! What one flag is: a row of the table in `table.rs`, from which the parser, the environment, `--help`, the documents
//! and the tests are all driven.

/// The shape of a flag's value, and so how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Bool,
    /// Signed, in Go's notation: `0x`, `0o`, `0b` and `_` are allowed.
    Int,
    Uint,
    Uint32,
    /// Milliseconds, or `auto`.
    Heartbeat,
    /// Go's notation (`1h30m`, `100ms`); an integer of nanoseconds in the configuration file.
    Duration,
    /// Comma-separated, sorted, without repetition; an empty text leaves the default.
    Urls,
    /// URLs or `*`.
    Origins,
    /// Comma-separated, sorted, without repetition; one text in the configuration file.
    Hosts,
    /// Comma-separated, sorted, without repetition; a list in the configuration file.
    Set,
    /// Comma-separated, in the order given.
    List,
    OneOf(&'static [&'static str]),
    ManyOf(&'static [&'static str]),
    Level,
    Gates,
    /// What old etcd versions had: any value is taken, none has an effect.
    Ignored,
}

impl Kind {
    /// Whether the flag may stand alone (`--pre-vote`), as Go's boolean flags do.
    pub(super) fn stands_alone(self) -> bool {
        matches!(self, Kind::Bool | Kind::Ignored)
    }
}

/// What setting the flag does today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does what etcd's documentation says.
    Works,
    /// Read and checked, without an effect yet: one warning names all of these that were set.
    Accepted,
    /// Asks for what would be dangerous to leave out silently: the server refuses to start and names it.
    Refused,
    /// Ignored by etcd itself; absent from `--help`.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Quorate,
    Process,
    Ignored,
}

impl Group {
    /// In etcd's order of `--help`.
    pub(super) const SHOWN: [(Group, &'static str); 10] = [
        (Group::Member, "Member"),
        (Group::Clustering, "Clustering"),
        (Group::Security, "Security"),
        (Group::Auth, "Auth"),
        (Group::Monitoring, "Profiling and Monitoring"),
        (Group::Logging, "Logging"),
        (Group::Tracing, "Distributed tracing"),
        (Group::Features, "Features"),
        (Group::Unsafe, "Unsafe feature"),
        (Group::Quorate, "Quorate"),
    ];
}

#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written on the command line.
    pub default: &'static str,
    pub stage: Stage,
    pub group: Group,
    pub help: &'static str,
}

impl Flag {
    /// `heartbeat-interval` -> `ETCD_HEARTBEAT_INTERVAL`
    pub fn env(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}
