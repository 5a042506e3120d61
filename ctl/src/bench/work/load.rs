//! Keys that have to be there before a row begins: written in transactions, many at once, unmeasured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use quorate_client::proto::etcdserverpb as pb;
use quorate_client::proto::etcdserverpb::request_op::Request;
use tokio::task::JoinSet;

use crate::bench::connection::Method;
use crate::bench::data::Keys;
use crate::bench::drive::{Bench, in_time};

/// etcd allows 128 operations and 1.5 MiB in a transaction.
const BATCH_KEYS_MAX: u64 = 100;
const BATCH_BYTES_MAX: u64 = 1 << 20;
const WRITERS: usize = 16;

impl Bench {
    /// All keys of the row that number `0..count`, each with the value of its number, and nothing else.
    pub(crate) async fn load(&self, keys: Keys, count: u64) -> Result<()> {
        self.clear(&keys).await?;
        let bytes = u64::try_from(self.row.value_size + self.row.key_size)?;
        let batch = (BATCH_BYTES_MAX / bytes.max(1)).clamp(1, BATCH_KEYS_MAX);
        let next = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (mut connection, values, next) = (self.connection(writer), self.values.clone(), Arc::clone(&next));
            writers.spawn(async move {
                loop {
                    let first = next.fetch_add(batch, Ordering::Relaxed);
                    if first >= count {
                        return anyhow::Ok(());
                    }
                    let put = |number| pb::RequestOp {
                        request: Some(Request::RequestPut(pb::PutRequest {
                            key: keys.key(number),
                            value: values.value(number),
                            ..Default::default()
                        })),
                    };
                    let success = (first..count.min(first + batch)).map(put).collect();
                    let request = pb::TxnRequest { success, ..Default::default() };
                    in_time(connection.unary::<pb::TxnResponse>(Method::Txn, &request))
                        .await
                        .context("load the keys")?;
                }
            });
        }
        while let Some(written) = writers.join_next().await {
            written.context("run a writer")??;
            self.progress.preparing(&format!("{} of {count} keys loaded", next.load(Ordering::Relaxed).min(count)));
        }
        Ok(())
    }
}
