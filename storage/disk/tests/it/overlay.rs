//! The overlay against a disk that really changes, and the disk below against its former self.

use std::path::Path;
use std::sync::Arc;

use ferrite_disk::sim::SimDisk;
use ferrite_disk::{Disk, OverlayDisk};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Rename(usize, usize),
    Remove(usize),
    Create(usize),
}

const NAMES: [&str; 3] = ["/d/a", "/d/b", "/d/c"];

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let data = prop_oneof![
        1 => Just(Vec::new()),
        9 => prop::collection::vec(1u8.., 1..6000),
    ];
    prop_oneof![
        4 => (name(), 0u64..20_000, data).prop_map(|(name, at, data)| Step::Write(name, at, data)),
        2 => (name(), 0u64..20_000).prop_map(|(name, len)| Step::SetLen(name, len)),
        1 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name().prop_map(Step::Remove),
        1 => name().prop_map(Step::Create),
    ]
}

/// Whether the step worked.
fn carry_out(disk: &dyn Disk, step: &Step) -> bool {
    let name = |name: &usize| Path::new(NAMES[*name]);
    match step {
        Step::Write(file, at, data) => disk
            .open(name(file))
            .and_then(|file| file.write_at(data, *at)),
        Step::SetLen(file, len) => disk.open(name(file)).and_then(|file| file.set_len(*len)),
        Step::Rename(from, to) => disk.rename(name(from), name(to)),
        Step::Remove(file) => disk.remove(name(file)),
        Step::Create(file) => disk.create(name(file)).map(drop),
    }
    .is_ok()
}

fn content(disk: &dyn Disk) -> Vec<(String, Vec<u8>)> {
    let entries = disk.list(Path::new("/d")).unwrap();
    let read = |name: String| {
        let file = disk.open(&Path::new("/d").join(&name)).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(file.read_at(&mut [0], bytes.len() as u64).is_err());
        (name, bytes)
    };
    entries.into_iter().map(|entry| read(entry.name)).collect()
}

fn disk_with_a_file() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/d")).unwrap();
    let file = disk.create(Path::new(NAMES[0])).unwrap();
    let bytes: Vec<u8> = (0..10_000u32).map(|at| at as u8 | 1).collect();
    file.write_at(&bytes, 0).unwrap();
    disk
}

proptest! {
    #[test]
    fn an_overlay_is_like_a_disk_and_changes_nothing(steps in prop::collection::vec(step(), 0..30)) {
        let below = disk_with_a_file();
        let before = content(&below);
        let overlay = OverlayDisk::new(Arc::new(below.clone()));
        let model = disk_with_a_file();
        for step in &steps {
            prop_assert_eq!(carry_out(&overlay, step), carry_out(&model, step), "{:?}", step);
            prop_assert!(content(&overlay) == content(&model), "after {:?}", step);
        }
        prop_assert!(content(&below) == before, "the disk below has changed");
    }
}

#[test]
fn a_lock_is_the_one_of_the_disk_below() {
    let below = disk_with_a_file();
    let overlay = OverlayDisk::new(Arc::new(below.clone()));
    let held = overlay.lock(Path::new("/d/lock")).unwrap();
    assert!(below.lock(Path::new("/d/lock")).is_err());
    drop(held);
    assert!(below.lock(Path::new("/d/lock")).is_ok());
}
