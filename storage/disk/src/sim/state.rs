//! The whole file system at one moment: what programs see, what the platter holds, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::image::Image;

/// Names a file or directory independently of its path, as an inode does.
pub(super) type NodeId = u64;

/// The root directory.
pub(super) const ROOT: NodeId = 0;

/// Everything that a power loss or a fork needs to know. Cloning costs a pointer per file and shares all content.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(super) next_node: NodeId,
    /// Directory operations that no sync of their directory has made durable, oldest first.
    pub(super) dir_ops: Vec<DirOp>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir(Dir),
    File(File),
}

/// Invariant: `durable` with the pending [`DirOp`]s of this directory applied is `live`.
#[derive(Debug, Clone, Default)]
pub(super) struct Dir {
    pub(super) live: BTreeMap<String, NodeId>,
    pub(super) durable: BTreeMap<String, NodeId>,
}

/// Invariant: `durable` with `pending` applied is `live`, unless `diverged`.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) live: Image,
    pub(super) durable: Image,
    pub(super) pending: Vec<FileOp>,
    /// A sync failed: programs still see what was dropped, and no later sync will bring it to the platter.
    pub(super) diverged: bool,
}

/// A change of a file's content.
#[derive(Debug, Clone)]
pub(super) enum FileOp {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
    Reserve(u64),
}

/// A change of directories. It carries the node, so that it means the same when an earlier one was lost.
#[derive(Debug, Clone)]
pub(super) enum DirOp {
    Link {
        dir: NodeId,
        name: String,
        node: NodeId,
    },
    Unlink {
        dir: NodeId,
        name: String,
        node: NodeId,
    },
    Rename {
        from: (NodeId, String),
        to: (NodeId, String),
        node: NodeId,
    },
}

/// One step of the disk. All changes go through [`State::apply`], so that a recorded run can be walked again.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A new file or directory, not linked yet, and its link.
    Create {
        dir: NodeId,
        name: String,
        node: NodeId,
        is_dir: bool,
    },
    Dir(DirOp),
    File(NodeId, FileOp),
    SyncFile(NodeId),
    /// A sync that failed and dropped the dirty data.
    DropDirty(NodeId),
    SyncDir(NodeId),
    /// Damage at rest: these bytes on both images.
    Damage {
        node: NodeId,
        offset: u64,
        data: Arc<[u8]>,
    },
    /// An operation that failed or was lost without a trace.
    Nothing,
}

impl FileOp {
    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            FileOp::Write { offset, data } => image.write(data, *offset),
            FileOp::SetLen(len) => image.set_len(*len),
            FileOp::Reserve(len) => image.reserve(*len),
        }
    }
}

impl DirOp {
    fn touches(&self, dirs: &BTreeSet<NodeId>) -> bool {
        match self {
            DirOp::Link { dir, .. } | DirOp::Unlink { dir, .. } => dirs.contains(dir),
            DirOp::Rename { from, to, .. } => dirs.contains(&from.0) || dirs.contains(&to.0),
        }
    }
}

impl State {
    /// An empty file system.
    pub(super) fn new() -> State {
        let root = Arc::new(Node::Dir(Dir::default()));
        State {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_node: ROOT + 1,
            dir_ops: Vec::new(),
        }
    }

    pub(super) fn dir(&self, node: NodeId) -> Option<&Dir> {
        match self.nodes.get(&node).map(|node| &**node) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn file(&self, node: NodeId) -> Option<&File> {
        match self.nodes.get(&node).map(|node| &**node) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn dir_mut(&mut self, node: NodeId) -> Option<&mut Dir> {
        match self.nodes.get_mut(&node).map(Arc::make_mut) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> Option<&mut File> {
        match self.nodes.get_mut(&node).map(Arc::make_mut) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Carries out one step. Steps on nodes that are gone do nothing: they concern files that were removed while open,
    /// and those end with the run.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create {
                dir,
                name,
                node,
                is_dir,
            } => {
                let new = if *is_dir {
                    Node::Dir(Dir::default())
                } else {
                    Node::File(File::default())
                };
                self.nodes.insert(*node, Arc::new(new));
                self.next_node = self.next_node.max(node + 1);
                self.change_dirs(DirOp::Link {
                    dir: *dir,
                    name: name.clone(),
                    node: *node,
                });
            }
            Op::Dir(op) => self.change_dirs(op.clone()),
            Op::File(node, op) => {
                if let Some(file) = self.file_mut(*node) {
                    op.apply(&mut file.live);
                    file.pending.push(op.clone());
                }
            }
            Op::SyncFile(node) => {
                if let Some(file) = self.file_mut(*node) {
                    file.sync();
                }
            }
            Op::DropDirty(node) => {
                if let Some(file) = self.file_mut(*node)
                    && !file.pending.is_empty()
                {
                    file.pending.clear();
                    file.diverged = true;
                }
            }
            Op::SyncDir(node) => self.sync_dir(*node),
            Op::Damage { node, offset, data } => {
                if let Some(file) = self.file_mut(*node) {
                    file.damage(*offset, data);
                }
            }
            Op::Nothing => {}
        }
    }

    fn change_dirs(&mut self, op: DirOp) {
        self.apply_dir_op(&op, |dir| &mut dir.live);
        self.dir_ops.push(op);
    }

    /// Applies a directory operation to one of the two images of all directories.
    pub(super) fn apply_dir_op(
        &mut self,
        op: &DirOp,
        image: fn(&mut Dir) -> &mut BTreeMap<String, NodeId>,
    ) {
        let mut link = |dir: NodeId, name: &String, node| {
            if let Some(dir) = self.dir_mut(dir) {
                image(dir).insert(name.clone(), node);
            }
        };
        match op {
            DirOp::Link { dir, name, node } => link(*dir, name, *node),
            DirOp::Unlink { dir, name, node } => self.unlink(*dir, name, *node, image),
            DirOp::Rename { from, to, node } => {
                link(to.0, &to.1, *node);
                self.unlink(from.0, &from.1, *node, image);
            }
        }
    }

    fn unlink(
        &mut self,
        dir: NodeId,
        name: &str,
        node: NodeId,
        image: fn(&mut Dir) -> &mut BTreeMap<String, NodeId>,
    ) {
        if let Some(dir) = self.dir_mut(dir)
            && image(dir).get(name) == Some(&node)
        {
            image(dir).remove(name);
        }
    }

    /// Makes the operations of one directory durable, and those that they build on: an atomic rename between
    /// two directories takes along what happened before it in both.
    fn sync_dir(&mut self, dir: NodeId) {
        let mut dirs = BTreeSet::from([dir]);
        let mut synced = BTreeSet::new();
        for (i, op) in self.dir_ops.iter().enumerate().rev() {
            if op.touches(&dirs) {
                synced.insert(i);
                if let DirOp::Rename { from, to, .. } = op {
                    dirs.extend([from.0, to.0]);
                }
            }
        }
        let ops = std::mem::take(&mut self.dir_ops);
        for (i, op) in ops.into_iter().enumerate() {
            if synced.contains(&i) {
                self.apply_dir_op(&op, |dir| &mut dir.durable);
            } else {
                self.dir_ops.push(op);
            }
        }
    }

    /// Forgets nodes that no directory names, on either image, and that nobody holds open.
    pub(super) fn forget_unreachable(&mut self, is_open: impl Fn(NodeId) -> bool) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Dir(dir) = &**node {
                named.extend(dir.live.values());
                named.extend(dir.durable.values());
            }
        }
        for op in &self.dir_ops {
            let (DirOp::Link { node, .. }
            | DirOp::Unlink { node, .. }
            | DirOp::Rename { node, .. }) = op;
            named.insert(*node);
        }
        self.nodes
            .retain(|node, _| named.contains(node) || is_open(*node));
    }

    /// A path by which programs can reach the node.
    pub(super) fn live_path(&self, node: NodeId) -> Option<PathBuf> {
        let mut todo = vec![(ROOT, PathBuf::from("/"))];
        while let Some((dir, path)) = todo.pop() {
            for (name, &child) in &self.dir(dir)?.live {
                if child == node {
                    return Some(path.join(name));
                }
                if self.dir(child).is_some() {
                    todo.push((child, path.join(name)));
                }
            }
        }
        None
    }

    /// Nodes that programs can reach by a path.
    pub(super) fn live_nodes(&self) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(node) = todo.pop() {
            if let Some(dir) = self.dir(node) {
                for &child in dir.live.values() {
                    if reached.insert(child) {
                        todo.push(child);
                    }
                }
            }
        }
        reached
    }
}

impl File {
    fn sync(&mut self) {
        if self.diverged {
            for op in self.pending.drain(..) {
                op.apply(&mut self.durable);
            }
        } else {
            self.pending.clear();
            self.durable = self.live.clone();
        }
    }

    fn damage(&mut self, offset: u64, data: &[u8]) {
        for image in [&mut self.live, &mut self.durable] {
            let keep = image.len().saturating_sub(offset).min(data.len() as u64);
            image.write(&data[..keep as usize], offset);
        }
    }
}
