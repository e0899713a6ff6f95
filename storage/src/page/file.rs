//! [`PageFile`]: creating, opening, committing.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrite_disk::Disk;
use parking_lot::{Mutex, RwLock};
use redb::{Builder, Database, ReadableDatabase};

use super::backend::{Backend, Pages, is_full};
use super::batch::{Batch, Initial};
use super::error::Error;
use super::guard::{self, Mode};
use super::layout::{self, PAGE, REGION_PAGES};
use super::meta::{FORMAT_VERSION, Meta};
use super::places::Places;
use super::reader::Reader;
use super::space;
use super::tables;
use super::verify::Scrub;
use super::write;
use crate::courtesy::Courtesy;

/// How a page file is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of pages that redb keeps in memory. While a commit runs, up to half of it holds pages
    /// to be written. Default: 64 MiB.
    pub cache_bytes: usize,
    /// Bytes to keep reserved beyond the end of the file, so that commits go on for a while when
    /// the disk is full (compaction above all, which gives space back). A commit that may need more
    /// reserves more, or is refused. Default: 64 MiB.
    pub headroom_bytes: u64,
    /// Bytes of a second, at most, when a file is filled, unless that is a rebuild, which keeps up with
    /// writes. Who syncs other files of the disk waits for what was written just before, so there is a
    /// pause after each piece; and the processor is yielded every few rows. Default: no limit, for tools
    /// that nobody waits beside.
    pub fill_rate: Option<NonZeroU64>,
    /// The same for commits to a file that is in use, but for those of more than 24 MB: whoever has so much
    /// is behind, and what waits meanwhile is in memory. Default: no limit.
    pub commit_rate: Option<NonZeroU64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            headroom_bytes: 64 << 20,
            fill_rate: None,
            commit_rate: None,
        }
    }
}

/// How large a page file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Bytes that the file has, all of them really allocated; etcd's `dbSize`. Grows in steps (up
    /// to twice the content below 16 MiB, then by 16 MiB) and shrinks when the end becomes free.
    pub allocated: u64,
    /// Bytes of rows and their keys, without the tree around them; etcd's `dbSizeInUse`.
    pub in_use: u64,
    /// Bytes reserved on the disk beyond [`Sizes::allocated`], for commits to come. 0 where the
    /// file system cannot reserve.
    pub headroom: u64,
}

/// The durable B-tree under the store; see the [module documentation](super). Shared as
/// `Arc<PageFile>`: commits exclude each other, and nothing else blocks on them.
pub struct PageFile {
    shared: Arc<Shared>,
}

impl fmt::Debug for PageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageFile")
            .field("sizes", &self.sizes())
            .finish_non_exhaustive()
    }
}

/// What a page file and its readers share; the file is closed when the last of them goes.
pub(super) struct Shared {
    /// `None` only while being dropped.
    database: Option<Database>,
    pages: Arc<Pages>,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: Options,
    /// Held during a verification: one at a time. Taken before all others.
    pub(super) verify: Mutex<()>,
    /// Held during a commit, and while verification reads a piece. The locks below are taken after
    /// it, in their order.
    pub(super) commit: Mutex<()>,
    /// How far verification has come, while it runs; see [`Scrub`].
    pub(super) scrub: Mutex<Option<Scrub>>,
    /// As of the last commit. Held only to copy.
    pub(super) meta: RwLock<Meta>,
    /// Where the rows are, as of the last commit; `None` if that is not known.
    pub(super) places: RwLock<Option<Arc<Places>>>,
    /// The first failure that made the file unusable.
    poison: RwLock<Option<String>>,
    /// See [`PageFile::replaced`].
    replaced: AtomicBool,
}

impl PageFile {
    /// Creates a page file at `path`, replacing what is there. It is built under a temporary name
    /// in the same directory, synced, renamed, and the directory synced: a crash leaves either no
    /// file (or the old one) or the complete new one.
    ///
    /// An open page file does not care about its name: it may be renamed afterwards.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`]; [`Error::Invalid`] when `path` has no directory.
    pub fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        options: Options,
        initial: &Initial,
    ) -> Result<Self, Error> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Invalid {
                what: format!("path {} has no name", path.display()),
            });
        };
        let mut temporary = name.to_owned();
        temporary.push(".tmp");
        let temporary = directory.join(temporary);
        if disk
            .exists(&temporary)
            .map_err(Error::io("look for an old temporary file"))?
        {
            disk.remove(&temporary)
                .map_err(Error::io("remove an old temporary file"))?;
        }
        let file = disk
            .create(&temporary)
            .map_err(|error| match is_full(&error) {
                true => Error::NoSpace {
                    needed: PAGE,
                    reserved: 0,
                },
                false => Error::Io {
                    what: "create the file",
                    source: error,
                },
            })?;
        let built = Self::build(disk, directory, file, options, initial);
        let page_file = match built {
            Ok(page_file) => page_file,
            Err(error) => {
                // Best effort: the next create removes it too, and the first error is the answer.
                let _ = disk.remove(&temporary);
                return Err(error);
            }
        };
        disk.rename(&temporary, path)
            .map_err(Error::io("rename the new file"))?;
        disk.sync_dir(directory)
            .map_err(Error::io("sync the directory"))?;
        Ok(page_file)
    }

    fn build(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        file: Arc<dyn ferrite_disk::DiskFile>,
        options: Options,
        initial: &Initial,
    ) -> Result<Self, Error> {
        let batch = Batch {
            tables: initial.tables.clone(),
            meta: initial.meta.clone(),
            ..Batch::default()
        };
        // redb starts with 18 pages and a header, and grows from there.
        const FIRST_PAGES: u64 = 19;
        let need = space::need(&batch, FIRST_PAGES);
        let len = layout::file_len(layout::grown(FIRST_PAGES, need.pages, need.largest));
        let pages = Pages::create(file, disk, directory, len)?;
        let shared = Shared::start(disk, directory, pages, options, |_| {
            Ok(Meta::new(initial.cluster_id, initial.member_id))
        })?;
        let page_file = Self { shared };
        page_file.commit(&batch)?;
        page_file
            .shared
            .pages
            .sync_all()
            .map_err(Error::io("sync the new file"))?;
        Ok(page_file)
    }

    /// Opens the page file at `path`. Fast after a crash too: nothing is scanned or repaired.
    ///
    /// What comes out is the state of one commit, the last that was durable. The caller checks
    /// [`Meta::consistent_index`] against its log: the log must reach back to it.
    ///
    /// # Errors
    /// [`Error::Io`], of kind `NotFound` when there is no file; [`Error::Corrupt`] when header,
    /// tree or meta record are damaged where opening has to read them; [`Error::Unsupported`].
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, options: Options) -> Result<Self, Error> {
        let file = disk.open(path).map_err(Error::io("open the file"))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let pages = Pages::open(file)?;
        let shared = Shared::start(disk, directory, pages, options, read_meta)?;
        let format = shared.meta.read().format_version;
        if format != FORMAT_VERSION {
            let what = format!("format {format}, this build reads {FORMAT_VERSION}");
            return Err(Error::Unsupported { what });
        }
        // What was found may not be on the disk yet, if the last process was killed. The caller may
        // drop its log on the strength of it.
        shared
            .pages
            .sync_data()
            .map_err(Error::io("sync the file"))?;
        shared.tidy();
        Ok(Self { shared })
    }

    /// The meta record as of the last commit.
    pub fn meta(&self) -> Meta {
        self.shared.meta.read().clone()
    }

    /// Sizes as of now; costs nothing.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            allocated: self.shared.pages.file_len(),
            in_use: self.shared.meta.read().live_bytes,
            headroom: self.shared.pages.headroom(),
        }
    }

    /// Another file has taken its name, durably. Its room is given back little by little when the last of
    /// its readers goes.
    pub fn replaced(&self) {
        self.shared.replaced.store(true, Ordering::Release);
    }

    /// Starts reading the state as of the last commit. While a reader lives, pages that later
    /// commits replace are not reused and the file grows: keep it under a second.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Corrupt`], [`Error::Io`].
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::new(&self.shared)
    }

    /// Makes `batch` durable, all of it or nothing, and returns the new meta record.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Invalid`] change nothing, and the file works on. After any
    /// other error the batch may or may not be there when the file is opened again, and this
    /// `PageFile` refuses every later call.
    pub fn commit(&self, batch: &Batch) -> Result<Meta, Error> {
        let shared = &self.shared;
        let _one_at_a_time = shared.commit.lock();
        shared.usable()?;
        write::check(batch)?;
        let old = shared.meta.read().clone();
        shared
            .make_room(batch, old.rows)
            .map_err(|error| shared.fail(error))?;
        let mut scrub = shared.scrub.lock();
        let rate = match shared.pages.filling() {
            true => shared.options.fill_rate,
            false => shared.options.commit_rate.filter(|_| !is_large(batch)),
        };
        shared.pages.limit(rate);
        let courtesy = rate.map(|_| Courtesy::default());
        let result = guard::run(Mode::Fail, "page tree", || {
            write::transact(shared.database(), batch, old, scrub.as_mut(), courtesy)
        });
        let meta = match result {
            Ok(meta) => meta,
            Err(error) => return Err(shared.fail(error)),
        };
        *shared.meta.write() = meta.clone();
        if let Err(error) = shared.update_places() {
            // Nothing is lost by that, and the tree will tell what is damaged.
            tracing::warn!(%error, "rows are read through the page tree");
        }
        shared.tidy();
        Ok(meta)
    }

    /// From now on, or no longer, the file counts for nothing, and a commit need not be durable. Of
    /// those before the end of it, the first commit after it makes everything durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn fill(&self, filling: bool) -> Result<(), Error> {
        let rate = self.shared.options.fill_rate;
        let filled = self.shared.pages.fill(filling, rate);
        filled.map_err(Error::io("write what was gathered"))
    }

    /// The disk that it lies on, and how it is run.
    pub(super) fn origin(&self) -> (&Arc<dyn Disk>, &Options) {
        (&self.shared.disk, &self.shared.options)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// See [`Options::commit_rate`].
fn is_large(batch: &Batch) -> bool {
    const LARGE: usize = 24 << 20;
    let bytes = batch.rows.iter().map(|row| row.record.len());
    bytes.sum::<usize>() > LARGE
}

impl Shared {
    fn start(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        pages: Arc<Pages>,
        options: Options,
        meta: impl FnOnce(&Database) -> Result<Meta, Error>,
    ) -> Result<Arc<Self>, Error> {
        let opened = guard::run(Mode::Fail, "page tree", || {
            let mut builder = Builder::new();
            builder
                .set_cache_size(options.cache_bytes)
                .set_repair_callback(|_| {
                    // Every commit of ours records what a repair would find out.
                    tracing::warn!(
                        "page file was not left by one of our commits; checking all of it"
                    );
                });
            let database = builder.create_with_backend(Backend(pages.clone()))?;
            let meta = meta(&database)?;
            Ok((database, meta))
        });
        let (database, meta) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                pages.fence();
                return Err(pages.explain(error));
            }
        };
        Ok(Arc::new(Self {
            database: Some(database),
            pages,
            disk: disk.clone(),
            directory: directory.to_owned(),
            options,
            meta: RwLock::new(meta),
            verify: Mutex::new(()),
            commit: Mutex::new(()),
            scrub: Mutex::new(None),
            places: RwLock::new(None),
            poison: RwLock::new(None),
            replaced: AtomicBool::new(false),
        }))
    }

    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    pub(super) fn database(&self) -> &Database {
        self.database.as_ref().expect("taken only by drop")
    }

    /// Fails if an earlier failure made the file unusable.
    pub(super) fn usable(&self) -> Result<(), Error> {
        match &*self.poison.read() {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned {
                reason: reason.clone(),
            }),
        }
    }

    /// Notes a failure after which the file is unusable, and returns it.
    pub(super) fn fail(&self, error: Error) -> Error {
        let error = self.pages.explain(error);
        if matches!(
            error,
            Error::Invalid { .. } | Error::NoSpace { .. } | Error::Missing { .. }
        ) {
            return error;
        }
        self.poison.write().get_or_insert_with(|| error.to_string());
        error
    }

    /// Notes a failure of the disk, and returns any error as it is. For reads, which leave nothing
    /// behind when they fail otherwise.
    pub(super) fn fail_io(&self, error: Error) -> Error {
        match error {
            Error::Io { .. } => self.fail(error),
            error => error,
        }
    }

    /// Finds the rows where the last commit has left them. `commit` is locked.
    pub(super) fn update_places(&self) -> Result<Arc<Places>, Error> {
        let old = self.places.read().clone().unwrap_or_default();
        let new = old.update(&self.pages).map(Arc::new);
        *self.places.write() = new.as_ref().ok().cloned();
        new
    }

    /// Reserves what a commit to a file of `rows` rows may need, or refuses it.
    fn make_room(&self, batch: &Batch, rows: u64) -> Result<(), Error> {
        let mut pages = self.pages.pages();
        let need = space::need(batch, pages);
        pages = layout::grown(pages, need.pages, need.largest);
        if !batch.rows.is_empty() {
            let spare = space::spare(rows + batch.rows.len() as u64, pages);
            pages = layout::grown(pages, spare.pages, spare.largest);
        }
        let len = layout::file_len(pages);
        if self.pages.ensure(len, &*self.disk, &self.directory)? {
            return Ok(());
        }
        let needed = len - self.pages.file_len();
        Err(Error::NoSpace {
            needed,
            reserved: self.pages.headroom(),
        })
    }

    #[cfg(test)]
    pub(super) fn late_reservations(&self) -> u64 {
        self.pages.late_reservations()
    }

    /// Gives back what is free at the end of the file, and restores the headroom, if the disk has
    /// plenty of room.
    fn tidy(&self) {
        let keep = self
            .options
            .headroom_bytes
            .max(2 * u64::from(REGION_PAGES) * PAGE);
        if let Err(source) = self.pages.give_back(keep) {
            // What was committed is. The next call says that the disk fails.
            self.fail(Error::Io {
                what: "shorten the file",
                source,
            });
        }
        // Reserving is an entry in the file system's journal, and syncs of other files wait for those.
        let plenty = self.options.headroom_bytes / 2;
        if self.pages.filling() && self.pages.headroom() >= plenty {
            return;
        }
        let len = self.pages.file_len() + self.options.headroom_bytes;
        self.pages.top_up(len, &*self.disk, &self.directory);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pages.fence();
        let database = self.database.take();
        // The closing commit is refused by the fence. Should redb panic about that, it must not
        // take the thread with it.
        let _ = guard::run(Mode::Fail, "page tree", || {
            drop(database);
            Ok(())
        });
        if self.replaced.load(Ordering::Acquire) {
            self.pages.free_gently();
        }
    }
}

fn read_meta(database: &Database) -> Result<Meta, Error> {
    let transaction = database.begin_read()?;
    tables::load_meta(&transaction)
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for Error {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError
);

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => Self::Io {
                what: "access the file",
                source,
            },
            redb::Error::PreviousIo => Self::Io {
                what: "access the file",
                source: std::io::Error::other("an earlier access failed"),
            },
            error => Self::corrupt("page tree", error.to_string()),
        }
    }
}
