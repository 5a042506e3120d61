//! Where tests stop a replacement: at the moments at which a crash may come, or a full disk.

use std::cell::RefCell;

use crate::types::Fault;

type OnStep = Box<dyn FnMut(&'static str) -> Result<(), Fault>>;

thread_local! {
    static ON_STEP: RefCell<Option<OnStep>> = const { RefCell::new(None) };
}

/// From now on, on this thread. Steps within steps are not reported.
pub(crate) fn watch(on_step: impl FnMut(&'static str) -> Result<(), Fault> + 'static) {
    ON_STEP.set(Some(Box::new(on_step)));
}

pub(crate) fn unwatch() {
    ON_STEP.set(None);
}

pub(super) fn take(name: &'static str) -> Result<(), Fault> {
    let Some(mut on_step) = ON_STEP.take() else { return Ok(()) };
    let taken = on_step(name);
    ON_STEP.set(Some(on_step));
    taken
}
