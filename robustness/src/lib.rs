//! The robustness suite: the real server code on simulated disks, crashed at every operation, and
//! real processes killed under load.
//!
//! * [`sim`]: a member without threads, clock or network, on a simulated disk.
//! * [`script`]: what a run does, from a seed, and what it must leave behind.
//! * [`process`], [`ledger`], [`leases`], [`kill_loop`]: a real server, killed under load, and what
//!   must be left.
//! * [`fleet`]: clusters of real processes under load, and what is done to them.
//! * [`differential`]: the same random requests to Ferrite and to a real etcd.
//! * [`cluster`]: whole clusters in one thread and virtual time, under faults from a seed.
//! * [`kube`], [`history`]: a control plane's load on a real server, and the proof that what its clients
//!   and watchers saw is linearizable and complete.
//!
//! The tests in `tests/it` put these together.

pub mod cluster;
pub mod differential;
pub mod fleet;
pub mod history;
pub mod interchange;
pub mod kill_loop;
pub mod kube;
pub mod leases;
pub mod ledger;
pub mod process;
pub mod script;
pub mod sim;
