//! [`SimDisk`]: a disk in memory that fails on demand, deterministically from a seed.
//!
//! Every file has two images, a *live* one that programs see and a *durable* one that a power loss leaves, and between them
//! the ordered list of operations that no sync has covered yet. Directories have the same, on their own: a
//! file's sync does not make its name durable. Images share their pages, so a copy of a whole disk costs almost nothing.
//!
//! What a test can do:
//!
//! * crash the process: [`SimDisk::crash`] fences every handle and session, the live image stays;
//! * lose the power: [`SimDisk::power_loss`] gives a *new* disk with what survived, by a [`PowerLoss`] policy;
//! * do either at every single operation of a run, in one run: [`SimDisk::recording`], then [`SimDisk::history`];
//! * fail, lose, shorten or misdirect operations: by number, by predicate, at random ([`Fault`]);
//! * fill the disk: [`SimDisk::set_capacity`];
//! * damage bytes at rest: [`SimDisk::flip_bit`], [`SimDisk::corrupt`], [`SimDisk::overwrite`].
//!
//! ```
//! use std::path::Path;
//! use ferrite_disk::{Disk, sim::{PowerLoss, SimDisk}};
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = SimDisk::recording(1);
//! let file = disk.create(Path::new("f"))?;
//! file.write_at(b"x", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new(""))?;
//! for (k, fork) in disk.history() {
//!     let after = fork.power_loss(PowerLoss::LoseAll);
//!     assert_eq!(after.exists(Path::new("f"))?, k == 4);
//! }
//! # Ok(())
//! # }
//! ```

mod fault;
mod history;
mod image;
mod power;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::{DirEntry, Disk, DiskFile, DiskLock};

pub use fault::{Fault, OpKind};
pub use history::History;
pub use power::PowerLoss;

use fault::{Faults, eio, enospc};
use history::Entry;
use image::{PAGE_BYTES, check_bounds};
use state::{DirOp, FileOp, NodeId, Op, ROOT, State};

/// Free space of a disk without a capacity.
const UNLIMITED_BYTES: u64 = 1 << 40;

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    core: Arc<Mutex<Core>>,
    /// The process that this handle belongs to, see [`SimDisk::session`]; none for the test's own, which is never fenced.
    session: Option<u64>,
}

/// All of one disk. Held for one operation at a time, never while calling out, except to fault predicates.
struct Core {
    seed: u64,
    state: State,
    capacity: Option<u64>,
    faults: Faults,
    /// Counted operations so far.
    ops: u64,
    /// The state when recording began, and what was done since.
    recording: Option<(State, Vec<Entry>)>,
    /// Rises with every crash; handles of an earlier process are fenced.
    process: u64,
    /// How many handles of this process are open per file.
    open: BTreeMap<NodeId, usize>,
    /// Locked files.
    locks: BTreeMap<NodeId, LockId>,
    next_lock: LockId,
}

type LockId = u64;

impl SimDisk {
    /// An empty disk of unlimited size.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with_state(seed, None, State::new())
    }

    /// An empty disk that records what is done to it, see [`SimDisk::history`].
    pub fn recording(seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        disk.start_recording();
        disk
    }

    fn with_state(seed: u64, capacity: Option<u64>, state: State) -> SimDisk {
        let core = Core {
            seed,
            state,
            capacity,
            faults: Faults::new(seed),
            ops: 0,
            recording: None,
            process: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            next_lock: 0,
        };
        SimDisk {
            core: Arc::new(Mutex::new(core)),
            session: None,
        }
    }

    /// Records from here on, forgetting what was recorded before.
    pub fn start_recording(&self) {
        let mut core = self.core.lock();
        core.recording = Some((core.state.clone(), Vec::new()));
    }

    /// What was recorded so far; recording goes on. Empty if nothing is being recorded.
    pub fn history(&self) -> History {
        let core = self.core.lock();
        let (base, entries) = match &core.recording {
            Some((base, entries)) => (base.clone(), entries.clone()),
            None => (core.state.clone(), Vec::new()),
        };
        History::new(core.seed, core.capacity, base, entries)
    }

    /// Number of mutating and syncing operations so far, failed ones included: the number the next one gets.
    pub fn op_count(&self) -> u64 {
        self.core.lock().ops
    }

    /// A handle for one process: it and everything opened through it stop working at the next [`SimDisk::crash`].
    pub fn session(&self) -> SimDisk {
        SimDisk {
            core: self.core.clone(),
            session: Some(self.core.lock().process),
        }
    }

    /// The process dies: open files, locks and sessions are dead from now on, what was written stays visible, and
    /// what was not synced is still not synced.
    pub fn crash(&self) {
        let mut core = self.core.lock();
        core.process += 1;
        core.open.clear();
        core.locks.clear();
        core.forget_unreachable();
    }

    /// A new disk with what is left after a power loss, all of it durable. This one is untouched.
    /// The new one has the same capacity, no faults, nothing locked, and records nothing.
    pub fn power_loss(&self, policy: PowerLoss) -> SimDisk {
        let core = self.core.lock();
        SimDisk::with_state(core.seed, core.capacity, power::after(&core.state, policy))
    }

    /// A copy of this disk as it is, pending operations included, that goes its own way.
    pub fn fork(&self) -> SimDisk {
        let core = self.core.lock();
        SimDisk::with_state(core.seed, core.capacity, core.state.clone())
    }

    /// Bounds the allocated bytes of all files; none: unlimited. Below what is in use, only writes in place succeed.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.core.lock().capacity = bytes;
    }

    /// Allocated bytes of all files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.core.lock().used_bytes()
    }

    /// The operation with this number ([`SimDisk::op_count`] gives the next one's) meets `fault`, once.
    pub fn fail_op(&self, number: u64, fault: Fault) {
        self.core.lock().faults.arm_number(number, fault);
    }

    /// Every operation that matches meets `fault`, until [`SimDisk::clear_faults`]. Also reads. Paths are absolute,
    /// and those that the files have at that moment, whatever name they were opened by.
    /// The predicate must not use the disk.
    pub fn fail_when(
        &self,
        matches: impl Fn(&Path, OpKind) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) {
        self.core
            .lock()
            .faults
            .arm_predicate(Arc::new(matches), fault);
    }

    /// Every operation, reads included, fails with EIO with this probability, decided from the disk's seed.
    pub fn fail_randomly(&self, probability: f64) {
        self.core.lock().faults.set_rate(probability);
    }

    /// Disarms everything; the capacity stays.
    pub fn clear_faults(&self) {
        self.core.lock().faults.clear();
    }

    /// Flips one bit of a file at rest, on both images; `bit` is 0..8. Bytes beyond the end stay absent.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.damage(path, offset..offset.saturating_add(1), |bytes, _| {
            for byte in bytes {
                *byte ^= 1 << (bit % 8);
            }
        })
    }

    /// Replaces these bytes by random ones, on both images.
    pub fn corrupt(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.damage(path, range, |bytes, rng| rng.fill(bytes))
    }

    /// Replaces bytes within the file by others, on both images: a zeroed sector, stale content.
    pub fn overwrite(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        self.damage(path, offset..end, |bytes, _| {
            let n = bytes.len();
            bytes.copy_from_slice(&data[..n]);
        })
    }

    /// The whole content of a file as programs see it.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.content(path, |file| &file.live)
    }

    /// The whole content of a file as it would be if all power were lost and nothing unsynced survived.
    pub fn read_durable(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.content(path, |file| &file.durable)
    }

    fn content(
        &self,
        path: &Path,
        image: fn(&state::File) -> &image::Image,
    ) -> io::Result<Vec<u8>> {
        let core = self.core.lock();
        let image = image(core.file_at(path)?.1);
        let mut bytes = vec![0; image.len() as usize];
        image.read(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn damage(
        &self,
        path: &Path,
        range: Range<u64>,
        change: impl FnOnce(&mut [u8], &mut ChaCha8Rng),
    ) -> io::Result<()> {
        let mut core = self.core.lock();
        let (node, file) = core.file_at(path)?;
        let end = range.end.min(file.live.len());
        let mut data = vec![0; end.saturating_sub(range.start) as usize];
        if data.is_empty() {
            return Ok(());
        }
        file.live.read(&mut data, range.start)?;
        let mut rng = ChaCha8Rng::seed_from_u64(core.seed ^ core.ops.rotate_left(32));
        change(&mut data, &mut rng);
        let op = Op::Damage {
            node,
            offset: range.start,
            data: data.into(),
        };
        core.ops += 1;
        core.carry_out(OpKind::Damage, &Core::absolute(path), op);
        Ok(())
    }

    /// The disk, if this handle's process is alive.
    fn enter(&self) -> io::Result<parking_lot::MutexGuard<'_, Core>> {
        let core = self.core.lock();
        if self.session.is_some_and(|session| session != core.process) {
            return Err(fenced());
        }
        Ok(core)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.enter()?;
        let (node, _) = core.file_at(path)?;
        Ok(core.handle(&self.core, node, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.enter()?;
        let node = core.create(path, OpKind::Create)?;
        Ok(core.handle(&self.core, node, path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.enter()?.resolve(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut core = self.enter()?;
        let (from_dir, from_name) = core.resolve_parent(from)?;
        let (to_dir, to_name) = core.resolve_parent(to)?;
        let node = core.resolve(from)?;
        if let Ok(replaced) = core.resolve(to) {
            if replaced == node {
                return Ok(());
            }
            match (core.state.dir(node), core.state.dir(replaced)) {
                (None, None) => {}
                (Some(_), Some(dir)) if dir.live.is_empty() => {}
                (Some(_), Some(_)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (None, Some(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Some(_), None) => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        let from = &Core::absolute(from);
        core.begin(OpKind::Rename, from)?;
        let op = DirOp::Rename {
            from: (from_dir, from_name),
            to: (to_dir, to_name),
            node,
        };
        core.carry_out(OpKind::Rename, from, Op::Dir(op));
        core.forget_unreachable();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut core = self.enter()?;
        let (dir, name) = core.resolve_parent(path)?;
        let node = core.resolve(path)?;
        if core.state.dir(node).is_some_and(|dir| !dir.live.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let path = &Core::absolute(path);
        core.begin(OpKind::Remove, path)?;
        let op = DirOp::Unlink { dir, name, node };
        core.carry_out(OpKind::Remove, path, Op::Dir(op));
        core.forget_unreachable();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let core = self.enter()?;
        let node = core.resolve(dir)?;
        let Some(dir) = core.state.dir(node) else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let entries = dir.live.iter().map(|(name, &node)| DirEntry {
            name: name.clone(),
            is_dir: core.state.dir(node).is_some(),
        });
        Ok(entries.collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut core = self.enter()?;
        let mut path = PathBuf::new();
        for component in dir.components() {
            path.push(component);
            match core.resolve(&path) {
                Ok(node) if core.state.dir(node).is_some() => {}
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    core.create(&path, OpKind::CreateDir)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut core = self.enter()?;
        let node = core.resolve(dir)?;
        if core.state.dir(node).is_none() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let dir = &Core::absolute(dir);
        core.begin(OpKind::SyncDir, dir)?;
        core.carry_out(OpKind::SyncDir, dir, Op::SyncDir(node));
        core.forget_unreachable();
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let core = self.enter()?;
        core.resolve(dir)?;
        Ok(core.free_bytes())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut core = self.enter()?;
        let node = match core.resolve(path) {
            Ok(node) => node,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                core.create(path, OpKind::Create)?
            }
            Err(error) => return Err(error),
        };
        if core.locks.contains_key(&node) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = core.next_lock;
        core.next_lock += 1;
        core.locks.insert(node, id);
        Ok(Box::new(SimLock {
            core: self.core.clone(),
            node,
            id,
        }))
    }
}

impl Core {
    /// The path as faults and histories show it.
    fn absolute(path: &Path) -> PathBuf {
        let names = Self::names(path).unwrap_or_default();
        Path::new("/").join(names.iter().collect::<PathBuf>())
    }

    /// The names along a path. Absolute and relative paths are the same: there is one root and no working directory.
    fn names(path: &Path) -> io::Result<Vec<&str>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?);
                }
                Component::ParentDir => {
                    names.pop();
                }
                Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(names)
    }

    fn walk(&self, names: &[&str]) -> io::Result<NodeId> {
        let mut node = ROOT;
        for name in names {
            let Some(dir) = self.state.dir(node) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            node = *dir.live.get(*name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        self.walk(&Self::names(path)?)
    }

    /// The directory that holds the last name of `path`, and that name, which need not exist.
    fn resolve_parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let names = Self::names(path)?;
        let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.walk(parents)?;
        if self.state.dir(dir).is_none() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok((dir, (*name).to_owned()))
    }

    fn file_at(&self, path: &Path) -> io::Result<(NodeId, &state::File)> {
        let node = self.resolve(path)?;
        let file = self.state.file(node);
        Ok((node, file.ok_or(io::ErrorKind::IsADirectory)?))
    }

    fn file(&self, node: NodeId) -> io::Result<&state::File> {
        self.state.file(node).ok_or_else(fenced)
    }

    fn used_bytes(&self) -> u64 {
        let named = self.state.live_nodes();
        let counts = |node: &NodeId| named.contains(node) || self.open.contains_key(node);
        let nodes = self.state.nodes.keys().filter(|node| counts(node));
        nodes
            .filter_map(|&node| self.state.file(node))
            .map(|file| file.live.allocated_bytes())
            .sum()
    }

    fn free_bytes(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.used_bytes()),
            None => UNLIMITED_BYTES,
        }
    }

    /// The absolute path by which a file can be reached now; `opened` if it has no name any more.
    fn path_of(&self, node: NodeId, opened: &Arc<Path>) -> Arc<Path> {
        if self.recording.is_none() && !self.faults.need_paths() {
            return opened.clone();
        }
        let path = self.state.live_path(node);
        path.map_or_else(|| opened.clone(), Arc::from)
    }

    /// Gives the operation its number and the fault it meets. What fails without effect fails here.
    fn begin(&mut self, kind: OpKind, path: &Path) -> io::Result<Option<Fault>> {
        let number = self.ops;
        self.ops += 1;
        let fault = self.faults.meet(Some(number), path, kind);
        let error = match fault {
            Some(Fault::Io) => eio(),
            Some(Fault::NoSpace) => enospc(),
            Some(Fault::Short(_)) if kind != OpKind::Write => eio(),
            other => return Ok(other),
        };
        if kind != OpKind::Sync {
            self.carry_out(kind, path, Op::Nothing);
        }
        Err(error)
    }

    fn carry_out(&mut self, kind: OpKind, path: &Path, op: Op) {
        self.state.apply(&op);
        if let Some((_, entries)) = &mut self.recording {
            entries.push(Entry {
                kind,
                path: path.into(),
                op,
            });
        }
    }

    fn create(&mut self, path: &Path, kind: OpKind) -> io::Result<NodeId> {
        let (dir, name) = self.resolve_parent(path)?;
        if self.resolve(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let path = &Self::absolute(path);
        self.begin(kind, path)?;
        let node = self.state.next_node;
        let op = Op::Create {
            dir,
            name,
            node,
            is_dir: kind == OpKind::CreateDir,
        };
        self.carry_out(kind, path, op);
        Ok(node)
    }

    fn handle(&mut self, core: &Arc<Mutex<Core>>, node: NodeId, path: &Path) -> Arc<dyn DiskFile> {
        *self.open.entry(node).or_default() += 1;
        Arc::new(SimFile {
            core: core.clone(),
            process: self.process,
            node,
            path: Self::absolute(path).into(),
        })
    }

    fn forget_unreachable(&mut self) {
        let open = &self.open;
        self.state
            .forget_unreachable(|node| open.contains_key(&node));
    }
}

struct SimFile {
    core: Arc<Mutex<Core>>,
    process: u64,
    node: NodeId,
    /// The absolute path it was opened by.
    path: Arc<Path>,
}

impl SimFile {
    fn enter(&self) -> io::Result<parking_lot::MutexGuard<'_, Core>> {
        let core = self.core.lock();
        if self.process != core.process {
            return Err(fenced());
        }
        Ok(core)
    }

    fn sync(&self) -> io::Result<()> {
        let mut core = self.enter()?;
        let path = &core.path_of(self.node, &self.path);
        let op = match core.begin(OpKind::Sync, path) {
            Ok(Some(Fault::Lost)) => Op::Nothing,
            Ok(_) => Op::SyncFile(self.node),
            Err(error) => {
                core.carry_out(OpKind::Sync, path, Op::DropDirty(self.node));
                return Err(error);
            }
        };
        core.carry_out(OpKind::Sync, path, op);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut core = self.enter()?;
        let path = &core.path_of(self.node, &self.path);
        match core.faults.meet(None, path, OpKind::Read) {
            None | Some(Fault::Lost | Fault::Misdirected(_)) => {}
            Some(_) => return Err(eio()),
        }
        core.file(self.node)?.live.read(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut core = self.enter()?;
        check_bounds(offset, buf.len() as u64)?;
        let path = &core.path_of(self.node, &self.path);
        let (mut offset, mut data, mut result) = (offset, buf, Ok(()));
        match core.begin(OpKind::Write, path)? {
            Some(Fault::Lost) => {
                core.carry_out(OpKind::Write, path, Op::Nothing);
                return Ok(());
            }
            Some(Fault::Short(bytes)) => {
                data = &data[..bytes.min(data.len())];
                result = Err(eio());
            }
            Some(Fault::Misdirected(to)) => {
                check_bounds(to, data.len() as u64)?;
                offset = to;
            }
            _ => {}
        }
        if core.capacity.is_some() {
            let free_pages = core.free_bytes() / PAGE_BYTES;
            let live = &core.file(self.node)?.live;
            let fits = live.writable(offset, data.len(), free_pages);
            if fits < data.len() {
                data = &data[..fits];
                result = Err(enospc());
            }
        }
        let op = if data.is_empty() {
            Op::Nothing
        } else {
            let data = data.into();
            Op::File(self.node, FileOp::Write { offset, data })
        };
        core.carry_out(OpKind::Write, path, op);
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.enter()?.file(self.node)?.live.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut core = self.enter()?;
        check_bounds(len, 0)?;
        let path = &core.path_of(self.node, &self.path);
        core.begin(OpKind::SetLen, path)?;
        let op = Op::File(self.node, FileOp::SetLen(len));
        core.carry_out(OpKind::SetLen, path, op);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut core = self.enter()?;
        check_bounds(len, 0)?;
        let path = &core.path_of(self.node, &self.path);
        core.begin(OpKind::Allocate, path)?;
        let missing = core.file(self.node)?.live.missing_for_reserve(len) * PAGE_BYTES;
        if missing > core.free_bytes() {
            core.carry_out(OpKind::Allocate, path, Op::Nothing);
            return Err(enospc());
        }
        let op = Op::File(self.node, FileOp::Reserve(len));
        core.carry_out(OpKind::Allocate, path, op);
        Ok(())
    }

    fn allocated_len(&self) -> io::Result<u64> {
        Ok(self.enter()?.file(self.node)?.live.allocated_bytes())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut core = self.core.lock();
        if self.process != core.process {
            return;
        }
        if let Some(count) = core.open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                core.open.remove(&self.node);
                core.forget_unreachable();
            }
        }
    }
}

struct SimLock {
    core: Arc<Mutex<Core>>,
    node: NodeId,
    id: LockId,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut core = self.core.lock();
        // After a crash somebody else may hold the lock.
        if core.locks.get(&self.node) == Some(&self.id) {
            core.locks.remove(&self.node);
        }
    }
}

// Owners derive `Debug` and are printed when a test fails: none of these shows the content of the disk.

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SimDisk");
        if let Some(core) = self.core.try_lock() {
            out.field("seed", &core.seed).field("ops", &core.ops);
        }
        out.field("session", &self.session).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimFile").field(&self.path).finish()
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimLock").field(&self.id).finish()
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// What a dead process gets from the disk.
fn fenced() -> io::Error {
    io::Error::other("the simulated process that opened this has crashed")
}
