//! What is left after a power loss.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::image::Image;
use super::state::{DirOp, File, FileOp, Node, ROOT, State};
use crate::SECTOR_BYTES;

/// Which of the operations that were never synced survive a power loss. Synced ones always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// None.
    LoseAll,
    /// All, as if everything had been written back just before.
    KeepAll,
    /// Decided from the seed, for each file and for the directories on their own: none, a prefix, or any subset. The last
    /// write of a prefix and every write of a subset may be torn in sectors of 512 bytes.
    Random(u64),
}

/// How one list of operations fares.
enum Fate {
    None,
    All,
    Prefix(usize),
    Subset,
}

/// The file system as a machine finds it after the power came back: everything in it is durable.
pub(super) fn after(state: &State, policy: PowerLoss) -> State {
    let seed = match policy {
        PowerLoss::Random(seed) => seed,
        PowerLoss::LoseAll | PowerLoss::KeepAll => 0,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut after = state.clone();
    for op in surviving_dir_ops(&state.dir_ops, policy, &mut rng) {
        after.apply_dir_op(op, |dir| &mut dir.durable);
    }
    after.dir_ops.clear();
    for node in after.nodes.values_mut() {
        match &**node {
            Node::Dir(dir) => {
                let mut dir = dir.clone();
                dir.live = dir.durable.clone();
                *node = Arc::new(Node::Dir(dir));
            }
            Node::File(file) => {
                let image = surviving_image(file, policy, &mut rng);
                *node = Arc::new(Node::File(File {
                    live: image.clone(),
                    durable: image,
                    pending: Vec::new(),
                    diverged: false,
                }));
            }
        }
    }
    let reached = after.live_nodes();
    after
        .nodes
        .retain(|node, _| *node == ROOT || reached.contains(node));
    after
}

fn fate(count: usize, policy: PowerLoss, rng: &mut ChaCha8Rng) -> Fate {
    match policy {
        PowerLoss::LoseAll => Fate::None,
        PowerLoss::KeepAll => Fate::All,
        PowerLoss::Random(_) if count == 0 => Fate::None,
        PowerLoss::Random(_) => match rng.random_range(0..8) {
            0 => Fate::None,
            1 => Fate::All,
            2..5 => Fate::Prefix(rng.random_range(0..=count)),
            _ => Fate::Subset,
        },
    }
}

fn surviving_dir_ops<'a>(
    ops: &'a [DirOp],
    policy: PowerLoss,
    rng: &mut ChaCha8Rng,
) -> Vec<&'a DirOp> {
    match fate(ops.len(), policy, rng) {
        Fate::None => Vec::new(),
        Fate::All => ops.iter().collect(),
        Fate::Prefix(n) => ops.iter().take(n).collect(),
        Fate::Subset => ops.iter().filter(|_| rng.random()).collect(),
    }
}

fn surviving_image(file: &File, policy: PowerLoss, rng: &mut ChaCha8Rng) -> Image {
    let mut image = file.durable.clone();
    let ops = &file.pending;
    match fate(ops.len(), policy, rng) {
        Fate::None => {}
        Fate::All => ops.iter().for_each(|op| op.apply(&mut image)),
        Fate::Prefix(n) => {
            ops.iter().take(n).for_each(|op| op.apply(&mut image));
            if let Some(op) = ops.get(n) {
                apply_torn(op, &mut image, rng);
            }
        }
        Fate::Subset => {
            for op in ops {
                match rng.random_range(0..3) {
                    0 => {}
                    1 => op.apply(&mut image),
                    _ => apply_torn(op, &mut image, rng),
                }
            }
        }
    }
    image
}

/// Applies some sectors of a write: the first ones, the last ones, or any.
fn apply_torn(op: &FileOp, image: &mut Image, rng: &mut ChaCha8Rng) {
    let FileOp::Write { offset, data } = op else {
        // Changes of the length are single updates of metadata: whole or not at all.
        if rng.random() {
            op.apply(image);
        }
        return;
    };
    let sectors = sectors(*offset, data.len());
    let cut = rng.random_range(0..=sectors.len());
    let way = rng.random_range(0..3);
    for (i, &(start, end)) in sectors.iter().enumerate() {
        let survives = match way {
            0 => i < cut,
            1 => cut <= i,
            _ => rng.random(),
        };
        if survives {
            image.write(&data[start..end], offset + start as u64);
        }
    }
    // The file's new length may have been written back without the data.
    let end = offset + data.len() as u64;
    if image.len() < end && rng.random() {
        image.set_len(end);
    }
}

/// Splits `[offset, offset + len)` at sector boundaries of the file; ranges within the data.
fn sectors(offset: u64, len: usize) -> Vec<(usize, usize)> {
    let mut sectors = Vec::new();
    let mut start = 0;
    while start < len {
        let within = ((offset + start as u64) % SECTOR_BYTES as u64) as usize;
        let end = len.min(start + SECTOR_BYTES - within);
        sectors.push((start, end));
        start = end;
    }
    sectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_split_at_the_sectors_of_the_file() {
        assert_eq!(sectors(0, 1024), [(0, 512), (512, 1024)]);
        assert_eq!(sectors(500, 600), [(0, 12), (12, 524), (524, 600)]);
        assert_eq!(sectors(512, 10), [(0, 10)]);
        assert!(sectors(7, 0).is_empty());
    }

    #[test]
    fn a_torn_write_leaves_whole_sectors_of_old_or_new() {
        let mut torn = 0;
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut image = Image::default();
            image.write(&[1; 4096], 0);
            let op = FileOp::Write {
                offset: 100,
                data: Arc::from([2; 3000]),
            };
            apply_torn(&op, &mut image, &mut rng);
            let mut bytes = [0; 4096];
            image.read(&mut bytes, 0).unwrap();
            assert!(bytes[..100].iter().all(|&b| b == 1));
            assert!(bytes[3100..].iter().all(|&b| b == 1));
            let mut seen = [false; 2];
            for (start, end) in sectors(100, 3000) {
                let sector = &bytes[100 + start..100 + end];
                assert!(sector.iter().all(|b| *b == sector[0]), "seed {seed}");
                seen[usize::from(sector[0] == 2)] = true;
            }
            torn += usize::from(seen == [true, true]);
        }
        assert!(torn > 100, "only {torn} of 200 writes were torn");
    }
}
