//! Room `backend`: being built.
