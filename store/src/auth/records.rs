//! Rows of the auth family.
//!
//! ```text
//! 0x00         state   enabled:1 revision:8, little-endian
//! 0x01 user    authpb.User
//! 0x02 role    authpb.Role
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use quorate_proto::authpb;

use super::{REVISION_FIRST, Role, User};
use crate::types::Fault;

pub(super) const STATE_KEY: Bytes = Bytes::from_static(&[TAG_STATE]);

const TAG_STATE: u8 = 0x00;
const TAG_USER: u8 = 0x01;
const TAG_ROLE: u8 = 0x02;

pub(super) enum Row {
    State {
        enabled: bool,
        revision: u64,
    },
    /// Without rights: those follow from the roles.
    User(String, User),
    Role(String, Role),
}

pub(super) fn user_key(name: &str) -> Bytes {
    key(TAG_USER, name)
}

pub(super) fn role_key(name: &str) -> Bytes {
    key(TAG_ROLE, name)
}

fn key(tag: u8, name: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + name.len());
    out.put_u8(tag);
    out.put_slice(name.as_bytes());
    out.freeze()
}

pub(super) fn encode_state(enabled: bool, revision: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(u8::from(enabled));
    out.put_u64_le(revision);
    out.freeze()
}

pub(super) fn encode_user(name: &str, user: &User) -> Vec<u8> {
    let record = authpb::User {
        name: Bytes::copy_from_slice(name.as_bytes()),
        password: user.hashed_password.clone(),
        roles: user.roles.clone(),
        options: Some(authpb::UserAddOptions { no_password: user.no_password }),
    };
    record.encode_to_vec()
}

pub(super) fn encode_role(name: &str, role: &Role) -> Vec<u8> {
    let record =
        authpb::Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: role.permissions.clone() };
    record.encode_to_vec()
}

pub(super) fn decode(key: &[u8], record: Bytes) -> Result<Row, Fault> {
    match key {
        [TAG_STATE] => decode_state(&record),
        [TAG_USER, name @ ..] => decode_user(name, record),
        [TAG_ROLE, name @ ..] => decode_role(name, record),
        _ => Err(Fault::Data(format!("an auth key of {} bytes and unknown kind", key.len()))),
    }
}

fn decode_state(mut record: &[u8]) -> Result<Row, Fault> {
    if record.len() != 9 {
        return Err(Fault::Data(format!("an auth state record of {} bytes", record.len())));
    }
    let enabled = match record.get_u8() {
        0 => false,
        1 => true,
        other => return Err(Fault::Data(format!("an auth state record with the switch at {other}"))),
    };
    let revision = record.get_u64_le();
    if revision < REVISION_FIRST {
        return Err(Fault::Data(format!("an auth state record of revision {revision}")));
    }
    Ok(Row::State { enabled, revision })
}

fn decode_user(name: &[u8], record: Bytes) -> Result<Row, Fault> {
    let record = authpb::User::decode(record).map_err(|error| Fault::Data(format!("a user record: {error}")))?;
    let name = decode_name("user", name, &record.name)?;
    if !record.roles.is_sorted_by(|one, next| one < next) {
        return Err(Fault::Data(format!("the record of user {name:?} with its roles out of order")));
    }
    let no_password = record.options.is_some_and(|options| options.no_password);
    let user = User::new(record.password, no_password, record.roles);
    Ok(Row::User(name, user))
}

fn decode_role(name: &[u8], record: Bytes) -> Result<Row, Fault> {
    let record = authpb::Role::decode(record).map_err(|error| Fault::Data(format!("a role record: {error}")))?;
    let name = decode_name("role", name, &record.name)?;
    if !record.key_permission.is_sorted_by(|one, next| one.key <= next.key) {
        return Err(Fault::Data(format!("the record of role {name:?} with its permissions out of order")));
    }
    Ok(Row::Role(name, Role { permissions: record.key_permission }))
}

/// The name stands in key and record: a row in another's place would hand over another's rights.
fn decode_name(what: &str, in_key: &[u8], in_record: &[u8]) -> Result<String, Fault> {
    if in_key != in_record || in_key.is_empty() {
        return Err(Fault::Data(format!("a {what} record under another's name")));
    }
    String::from_utf8(in_key.to_vec()).map_err(|_| Fault::Data(format!("a {what} whose name is no text")))
}
