//! Tests of the self-signed certificate.
