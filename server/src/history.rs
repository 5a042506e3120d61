//! The past, as the watch hub asks for it: pages of the store's revision log, read where waiting for a disk hurts nobody.

use quorate_store::{Failure, Reader, Rejection};

use crate::watch::{Executor, History, HistoryError, HistoryPage, Job, KeySet};

pub struct StoreHistory {
    reader: Reader,
}

impl StoreHistory {
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }
}

impl History for StoreHistory {
    fn events(&self, from: i64, until: i64, keys: &KeySet, bytes_max: usize) -> Result<HistoryPage, HistoryError> {
        let fault = |error: quorate_store::Fault| HistoryError::Fault(error.to_string());
        let view = self.reader.view().map_err(fault)?;
        match view.events(from, until, keys.ranges(), bytes_max) {
            Ok(page) => Ok(HistoryPage { revisions: page.revisions, next: page.next }),
            Err(Failure::Rejected(Rejection::Compacted)) => {
                Err(HistoryError::Compacted { compact_revision: view.compacted() })
            }
            Err(error) => Err(HistoryError::Fault(error.to_string())),
        }
    }
}

impl Executor for StoreHistory {
    fn run(&self, job: Job) {
        tokio::task::spawn_blocking(job);
    }
}
