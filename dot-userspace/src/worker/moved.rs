//! A worker's backends at other addresses, or with other weights.
//!
//! Before: addresses of a backend's name have changed, or an operator has switched a backend. After: new queries go to the new
//! addresses, by the new weights; those in flight end where they are.
//! Never: empties the cache: the same names answer.

use std::rc::Rc;

use super::{
    settings::{Settings, are_backends_same},
    start_backends,
};
use crate::{backend::BackendConfig, session::WorkerShared};

/// Has the worker ask `backends`; its settings from then on.
pub(super) fn to(shared: &Rc<WorkerShared>, current: &Settings, backends: Vec<BackendConfig>) -> Settings {
    let new = Settings { backends, ..current.clone() };
    if !are_backends_same(current, &new) {
        shared.reload(new.limits, Some(start_backends(&new, &shared.counters)));
    }
    shared.backends().reload(new.policy, &new.backends);
    new
}
