//! Keys and values: get, put, delete.

use quorate_proto::etcdserverpb as pb;

use crate::{Client, Error};

pub use quorate_proto::mvccpb::KeyValue;

impl Client {
    fn kv(&self) -> pb::kv_client::KvClient<tonic::transport::Channel> {
        pb::kv_client::KvClient::new(self.channel.clone())
    }

    /// The newest version of `key`, linearizable.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let request = pb::RangeRequest { key: key.as_ref().to_vec().into(), ..Default::default() };
        let answer = self.kv().range(request).await.map_err(|status| self.refused(status))?;
        Ok(answer.into_inner().kvs.into_iter().next())
    }

    /// Every key that starts with `prefix`, in key order, linearizable.
    pub async fn get_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KeyValue>, Error> {
        let (key, range_end) = prefix_range(prefix.as_ref());
        let request = pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        let answer = self.kv().range(request).await.map_err(|status| self.refused(status))?;
        Ok(answer.into_inner().kvs)
    }

    /// Returns the revision of the write.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<i64, Error> {
        let (key, value) = (key.as_ref().to_vec().into(), value.as_ref().to_vec().into());
        let request = pb::PutRequest { key, value, ..Default::default() };
        let answer = self.kv().put(request).await.map_err(|status| self.refused(status))?;
        Ok(answer.into_inner().header.map_or(0, |header| header.revision))
    }

    /// Returns how many keys were deleted: 0 or 1.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<i64, Error> {
        let request = pb::DeleteRangeRequest { key: key.as_ref().to_vec().into(), ..Default::default() };
        let answer = self.kv().delete_range(request).await.map_err(|status| self.refused(status))?;
        Ok(answer.into_inner().deleted)
    }
}

/// The range of all keys with `prefix`, in etcd's form: an end of one zero byte means "to the end".
fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        return (vec![0], vec![0]);
    }
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (prefix.to_vec(), end);
        }
    }
    (prefix.to_vec(), vec![0])
}

#[cfg(test)]
mod tests {
    use super::prefix_range;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(prefix_range(b"ab"), (b"ab".to_vec(), b"ac".to_vec()));
        assert_eq!(prefix_range(b"a\xff"), (b"a\xff".to_vec(), b"b".to_vec()));
    }

    #[test]
    fn a_prefix_without_a_successor_reaches_to_the_end() {
        assert_eq!(prefix_range(b"\xff\xff"), (b"\xff\xff".to_vec(), vec![0]));
        assert_eq!(prefix_range(b""), (vec![0], vec![0]));
    }
}
