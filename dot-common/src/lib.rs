//! The contract between dotd's kernel half and its engine.
#![no_std]
