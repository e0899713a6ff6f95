//! Integration tests of the storage crate: models and crash tests.

mod harness;
mod model;
mod model_index;
mod model_mvcc;
