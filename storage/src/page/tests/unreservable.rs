//! A file system that cannot reserve blocks, as some network file systems.

use std::io;

use ferrite_disk::{DirEntry, DiskFile, DiskLock};

use super::model::Model;
use super::*;

#[derive(Debug)]
struct Unreservable(SimDisk);

#[derive(Debug)]
struct UnreservableFile(Arc<dyn DiskFile>);

impl Disk for Unreservable {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnreservableFile(self.0.open(path)?)))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnreservableFile(self.0.create(path)?)))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }
}

impl DiskFile for UnreservableFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn allocated_len(&self) -> io::Result<u64> {
        self.0.allocated_len()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[test]
fn free_space_stands_in_for_what_cannot_be_reserved() {
    let sim = disk_with_directory(SimDisk::new(4));
    let disk: Arc<dyn Disk> = Arc::new(Unreservable(sim.clone()));
    sim.set_capacity(Some(24 << 20));
    let file = PageFile::create(&disk, Path::new(FILE), options(), &initial()).unwrap();
    let mut model = Model::new();
    let mut next = 2;
    let refused = loop {
        let batch = puts(next..=next + 19, 2000);
        match file.commit(&batch) {
            Ok(_) => model.commit(&batch),
            Err(Error::NoSpace { .. }) => break batch,
            Err(error) => panic!("{error:?}"),
        }
        next += 20;
    };
    assert!(next > 300, "refused at {next}");
    assert_eq!(file.sizes().headroom, 0);
    model.assert_in(&file);
    sim.set_capacity(None);
    file.commit(&refused).unwrap();
    model.commit(&refused);
    drop(file);
    let file = PageFile::open(&disk, Path::new(FILE), options()).unwrap();
    model.assert_in(&file);
    assert_intact(&file);
}
