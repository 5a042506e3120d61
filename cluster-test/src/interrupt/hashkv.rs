//! etcd's HashKV, from a history: what a member's own answer is held against.
//!
//! CRC32C over the word `key`, then over each change in order: `main _ sub` in big-endian (and a `t` for a deletion), then
//! the key-value as protobuf, of which a deletion has only the key. Changes at or below the compacted revision count only
//! if they are still the newest of their key at the hashed revision, and no deletions.

use std::collections::HashMap;

use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;

use super::Change;

/// `changes` from the first revision on, in order, but for what [`super::check::Model::forget`] drops; hashed up to and including `revision`.
pub fn hash(changes: &[Change], compacted: i64, revision: i64) -> u32 {
    let upto: Vec<&Change> = changes.iter().take_while(|change| change.revision <= revision).collect();
    let newest: HashMap<&[u8], usize> =
        upto.iter().enumerate().map(|(at, change)| (change.kv.key.as_ref(), at)).collect();
    let mut hash = crc32c::crc32c(b"key");
    let (mut main, mut sub) = (0, 0_i64);
    for (at, change) in upto.iter().enumerate() {
        sub = if change.revision == main { sub + 1 } else { 0 };
        main = change.revision;
        let stands = newest[change.kv.key.as_ref()] == at && !change.deletion;
        if change.revision <= compacted && !stands {
            continue;
        }
        let mut bytes = Vec::new();
        bytes.extend(main.to_be_bytes());
        bytes.push(b'_');
        bytes.extend(sub.to_be_bytes());
        if change.deletion {
            bytes.push(b't');
            bytes.extend(KeyValue { key: change.kv.key.clone(), ..Default::default() }.encode_to_vec());
        } else {
            bytes.extend(change.kv.encode_to_vec());
        }
        hash = crc32c::crc32c_append(hash, &bytes);
    }
    hash
}
