//! Who asks: established once, at the door, and stamped into what the request becomes.

/// The user behind a request and the revision of the auth store it was established against; both empty while
/// authentication is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub auth_revision: u64,
}
