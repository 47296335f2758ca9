//! Tests of certificate files.
