//! Who may do what: users, roles and the switch, as replicated state.
//!
//! ```text
//! log entry ──command──▶ AuthState ──rows──▶ Overlay        the same on every member, after a restart and a snapshot too
//!                            │
//! door, before the log ──┐   │
//! apply, after it ───────┴─check(user, revision, access)    one checker: what is judged twice is judged alike
//! ```
//!
//! A request carries who asks and the revision of this state that the name was established against. Every change of users
//! or roles moves the revision, so what was decided at the door against older rights is refused by apply, everywhere.
//!
//! The rights of each user are merged when they change and not when they are asked for, and only ever from what is on
//! disk: a member that loads the state decides exactly like one that saw all its changes.
//!
//! Left out: hashing, tokens, certificates and clocks. The door turns them into a name, a revision and a finished hash.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use quorate_proto::authpb;

use crate::engine::{Direction, Family, Read, Span};
use crate::overlay::Overlay;
use crate::types::Fault;

mod check;
mod commands;
mod password;
mod reads;
mod records;
mod rights;

#[cfg(test)]
mod tests;

pub use check::{Access, AttachedKeys};

use records::Row;
use rights::Rights;

/// The user without whom authentication cannot be switched on.
pub const USER_ROOT: &str = "root";
/// The role that holds every right. It can be granted without ever having been added: etcd's rule.
pub const ROLE_ROOT: &str = "root";

/// The revision of a state that nobody has changed.
const REVISION_FIRST: u64 = 1;

/// Cheap to clone: a reader takes one and keeps it for as long as it answers.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    users: OrdMap<String, Arc<User>>,
    roles: OrdMap<String, Arc<Role>>,
}

#[derive(Clone, PartialEq)]
pub struct User {
    /// As the door's hash function wrote it; empty when no password can be right.
    pub hashed_password: Bytes,
    /// Comes in by the common name of a client certificate alone.
    pub no_password: bool,
    /// Ascending, each once.
    pub roles: Vec<String>,
    rights: Rights,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Role {
    /// Ascending by key; of one key, in the order they were granted; no two of one range.
    pub permissions: Vec<authpb::Permission>,
}

impl AuthState {
    pub fn new() -> Self {
        Self { enabled: false, revision: REVISION_FIRST, users: OrdMap::new(), roles: OrdMap::new() }
    }

    pub fn load(read: &dyn Read) -> Result<Self, Fault> {
        let mut state = Self::new();
        let mut users = Vec::new();
        for row in read.scan(Family::Auth, Span::all(), Direction::Forward) {
            let (key, record) = row?;
            match records::decode(&key, record)? {
                Row::State { enabled, revision } => (state.enabled, state.revision) = (enabled, revision),
                Row::User(name, user) => users.push((name, user)),
                Row::Role(name, role) => {
                    state.roles.insert(name, Arc::new(role));
                }
            }
        }
        for (name, user) in users {
            state.users.insert(name, Arc::new(user.with_rights(&state.roles)));
        }
        Ok(state)
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Moves at every change, except when authentication is switched on (etcd's rule).
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(Arc::as_ref)
    }

    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(Arc::as_ref)
    }

    fn put_user(&mut self, name: &str, user: User, overlay: &mut Overlay<'_>) {
        let user = user.with_rights(&self.roles);
        overlay.put(Family::Auth, records::user_key(name), records::encode_user(name, &user));
        self.users.insert(name.to_owned(), Arc::new(user));
    }

    fn put_role(&mut self, name: &str, role: Role, overlay: &mut Overlay<'_>) {
        overlay.put(Family::Auth, records::role_key(name), records::encode_role(name, &role));
        self.roles.insert(name.to_owned(), Arc::new(role));
        for (user_name, user) in self.holders(name) {
            self.users.insert(user_name, Arc::new(user.with_rights(&self.roles)));
        }
    }

    fn put_state(&self, overlay: &mut Overlay<'_>) {
        overlay.put(Family::Auth, records::STATE_KEY, records::encode_state(self.enabled, self.revision));
    }

    /// Every command that changed something ends here.
    fn commit(&mut self, overlay: &mut Overlay<'_>) {
        self.revision += 1;
        self.put_state(overlay);
    }

    /// The users that a role is granted to, in order.
    fn holders(&self, role: &str) -> Vec<(String, User)> {
        let holders = self.users.iter().filter(|(_, user)| user.has_role(role));
        holders.map(|(name, user)| (name.clone(), User::clone(user))).collect()
    }
}

impl Default for AuthState {
    fn default() -> Self {
        Self::new()
    }
}

impl User {
    fn new(hashed_password: Bytes, no_password: bool, roles: Vec<String>) -> Self {
        Self { hashed_password, no_password, roles, rights: Rights::default() }
    }

    fn with_rights(mut self, roles: &OrdMap<String, Arc<Role>>) -> Self {
        let granted = self.roles.iter().filter_map(|name| roles.get(name));
        self.rights = Rights::of(granted.flat_map(|role| &role.permissions));
        self
    }

    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    pub fn is_root(&self) -> bool {
        self.has_role(ROLE_ROOT)
    }
}

/// A hash in a log file is a password to whoever has time (CVE-2021-28235): it has no text form.
impl fmt::Debug for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("User")
            .field("no_password", &self.no_password)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}
