//! The pair (key, range end) of a request, read once: what is authorised is the very value that is then used.
//!
//! GHSA-xg4h-6gfc-h4m8 was a pair read twice, differently: authorised as one key, then watched from that key to the end.

/// Which keys a request speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRange<'a> {
    One(&'a [u8]),
    /// `[from, until)`; holds nothing when `from >= until`.
    Span(&'a [u8], &'a [u8]),
    /// From this key to the end of the keyspace.
    AtLeast(&'a [u8]),
}

impl<'a> KeyRange<'a> {
    pub fn parse(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::AtLeast(key),
            until => Self::Span(key, until),
        }
    }

    /// As a watch reads it: no key is the smallest key. Elsewhere a request without key is refused.
    pub fn parse_watch(key: &'a [u8], range_end: &'a [u8]) -> Self {
        Self::parse(if key.is_empty() { &[0] } else { key }, range_end)
    }

    pub fn from(&self) -> &'a [u8] {
        match *self {
            Self::One(from) | Self::Span(from, _) | Self::AtLeast(from) => from,
        }
    }
}
