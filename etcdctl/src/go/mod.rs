//! The spellings of Go's standard library that etcdctl's inputs and outputs are made of.

pub(crate) mod csv;
pub(crate) mod duration;
pub(crate) mod number;
pub(crate) mod quote;
pub(crate) mod scan;
pub(crate) mod urls;
