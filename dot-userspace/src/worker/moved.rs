//! A worker's backends at other addresses, or with other weights.
//!
//! Before: addresses of a backend's name have changed, or an operator has switched a backend. After: new queries go to the new
//! addresses, by the new weights; those in flight end where they are.
//! Never: empties the cache: the same names answer.

use std::rc::Rc;

use super::{
    settings::{Settings, are_backends_same, may_replace},
    start_backends, tenancy, tenants,
};
use crate::{backend::BackendConfig, session::WorkerShared};

/// Has the worker ask the backends of `new`. Those that stay keep their connections and what is known of them.
pub(super) fn change(shared: &Rc<WorkerShared>, current: &Settings, new: &Settings) {
    let is_same = are_backends_same(current, new);
    let is_done = is_same || (may_replace(current, new) && shared.backends().replace(&new.backends));
    shared.reload(new.limits, (!is_done).then(|| start_backends(new, &shared.counters)));
    shared.backends().reload(new.policy, &new.backends);
}

/// Has the worker ask `backends`, and each tenant its own; its settings from then on.
pub(super) fn to(
    shared: &Rc<WorkerShared>,
    current: &Settings,
    (backends, own): (Vec<BackendConfig>, Vec<tenants::Own>),
) -> Settings {
    let tenancy = tenants::Plan { own, ..current.tenancy.clone() };
    let new = Settings { backends, tenancy, ..current.clone() };
    if are_backends_same(current, &new) {
        shared.backends().reload(new.policy, &new.backends);
    } else {
        change(shared, current, &new);
    }
    tenancy::reload(shared, current, &new, true);
    new
}
