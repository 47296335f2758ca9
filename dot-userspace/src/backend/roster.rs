//! The backends of one worker by their index, and which of them get new queries, in the order of the config.
//!
//! Before: a start, or other addresses of a backend's name. After: `pool` chooses among those that are asked, and finds each backend that
//! still has a query.
//! Holds: a backend that is asked no more until its last query has ended; its index is free then.
//! Never: gives an index to two backends that have queries.

use std::rc::Rc;

use super::{BackendConfig, worker_backend::Backend};

/// All backends of a worker.
#[derive(Default)]
pub struct Roster {
    asked: Vec<Rc<Backend>>,
    /// By index; `None`: the index is free.
    all: Vec<Option<Rc<Backend>>>,
}

impl Roster {
    /// The backends that get new queries.
    pub fn asked(&self) -> &[Rc<Backend>] {
        &self.asked
    }

    /// The backend with this index.
    pub fn get(&self, index: usize) -> Option<&Rc<Backend>> {
        self.all.get(index)?.as_ref()
    }

    /// Asks the backends of `configs` from now on. One that is the same but for its limits goes on with its connections and what is
    /// known of it, and gets its new limits; `make` makes the others. Returns those.
    pub fn replace(
        &mut self,
        configs: &[BackendConfig],
        make: impl Fn(&BackendConfig, usize) -> Backend,
    ) -> Vec<Rc<Backend>> {
        let (mut old, mut made) = (std::mem::take(&mut self.asked), Vec::new());
        for config in configs {
            let same = old.iter().position(|backend| backend.config.is_same_but_for_limits(config));
            let backend = match same {
                Some(place) => {
                    let backend = old.swap_remove(place);
                    backend.live.set(config.live());
                    backend
                }
                None => {
                    let backend = self.enter(|index| make(config, index));
                    made.push(Rc::clone(&backend));
                    backend
                }
            };
            self.asked.push(backend);
        }
        made
    }

    fn enter(&mut self, make: impl FnOnce(usize) -> Backend) -> Rc<Backend> {
        let free = self.all.iter().position(Option::is_none);
        let index = free.unwrap_or(self.all.len());
        let backend = Rc::new(make(index));
        match self.all.get_mut(index) {
            Some(place) => *place = Some(Rc::clone(&backend)),
            None => self.all.push(Some(Rc::clone(&backend))),
        }
        backend
    }

    /// Whether a backend gets no new queries and has none any more: its index is free then.
    pub fn forgets(&mut self, backend: &Rc<Backend>) -> bool {
        let is_over = backend.outstanding() == 0 && !self.asked.iter().any(|one| Rc::ptr_eq(one, backend));
        if is_over && let Some(place) = self.all.get_mut(backend.index) {
            *place = None;
        }
        is_over
    }

    /// How many indexes there are, used or free.
    #[cfg(test)]
    pub fn indexes(&self) -> usize {
        self.all.len()
    }
}
