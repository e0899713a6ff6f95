//! SimDisk: see below.
