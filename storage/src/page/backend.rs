//! redb's storage backend over a [`DiskFile`]: checksums on every page, space reserved ahead.
//!
//! Three duties beside carrying bytes:
//!
//! * **A damaged page never reaches redb**, which trusts what it reads: every page is checked
//!   against its checksum ([`layout`]) whenever it comes from the disk.
//! * **redb never meets a full disk.** It refuses everything after its first IO error, so the space
//!   that a commit may need is reserved before redb hears of the commit ([`Pages::reserve`]), and
//!   everything below redb's length is reserved too: a write can only hit blocks that exist.
//! * **A dropped file writes nothing.** redb commits once more when it is dropped; [`Pages::fence`]
//!   refuses that, so the end of a member looks the same to the disk whether it was dropped or
//!   killed, and the file is always opened by the same path.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ferrite_disk::{Disk, DiskFile};
use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use super::error::Error;
use super::gathered::Gathered;
use super::guard::{self, Mode, PageDamage};
use super::layout::{self, GROUP, HEADER_BYTES, LAYOUT_VERSION, MAGIC, PAGE, REGION_PAGES};
use super::pacing::Pacing;

/// Where a fresh header says how many pages a region has, and what redb writes there by itself.
const REGION_PAGES_AT: std::ops::Range<usize> = 20..24;
const REDB_REGION_PAGES: u32 = 1 << 20;

/// The checksums of one group of pages.
type Checksums = Box<[AtomicU32]>;

/// The pages of a file, shared between redb (through [`Backend`]) and the page file.
#[derive(Debug)]
pub(super) struct Pages {
    file: Arc<dyn DiskFile>,
    /// Length of redb's page space, in pages.
    pages: AtomicU64,
    /// Length of the file in bytes, never less than those pages need.
    physical: AtomicU64,
    /// Something was written since the last sync.
    unsynced: AtomicBool,
    /// Checksums by group, loaded when first needed. Readers share the lock; it is held exclusively
    /// only to load a group or to change their number.
    groups: RwLock<Vec<Option<Checksums>>>,
    /// Groups whose checksums are newer than the file's. Taken after `groups`, never before.
    dirty: Mutex<BTreeSet<u64>>,
    /// The file is known to have blocks for `[0, reserved)`.
    reserved: AtomicU64,
    /// The file system cannot reserve blocks: what is free has to do.
    unreservable: AtomicBool,
    /// How often redb grew the file beyond that.
    late_reservations: AtomicU64,
    /// Refuse writes.
    fenced: AtomicBool,
    /// See [`Pages::fill`].
    filling: AtomicBool,
    /// What is not yet written of a file that is being filled.
    gathered: Mutex<Gathered>,
    /// What was written to a file that is in use, and not synced yet.
    pacing: Mutex<Pacing>,
    /// The first damaged page that was reported to redb as an IO error.
    damage: Mutex<Option<String>>,
}

impl Pages {
    /// A new file without pages, for the first `len` bytes of which there is room.
    pub(super) fn create(
        file: Arc<dyn DiskFile>,
        disk: &Arc<dyn Disk>,
        directory: &Path,
        len: u64,
    ) -> Result<Arc<Self>, Error> {
        let mut superblock = vec![0; PAGE as usize];
        superblock[..MAGIC.len()].copy_from_slice(&MAGIC);
        superblock[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&superblock[..12]);
        superblock[12..16].copy_from_slice(&crc.to_le_bytes());
        let pages = Self::new(file, 0);
        if !pages.ensure(len, &**disk, directory)? {
            return Err(Error::NoSpace {
                needed: len,
                reserved: 0,
            });
        }
        pages
            .file
            .write_at(&superblock, 0)
            .map_err(Error::io("write the superblock"))?;
        Ok(pages)
    }

    /// The pages of an existing file.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> Result<Arc<Self>, Error> {
        const TABLE: &str = "superblock";
        let len = file.len().map_err(Error::io("read the length"))?;
        if len < PAGE {
            return Err(Error::corrupt(TABLE, format!("the file has {len} bytes")));
        }
        let mut superblock = [0; 16];
        file.read_at(&mut superblock, 0)
            .map_err(Error::io("read the superblock"))?;
        let [magic @ .., _, _, _, _] = &superblock[..12] else {
            unreachable!("a slice of 12 has 4 bytes at its end")
        };
        if magic != MAGIC {
            return Err(Error::corrupt(
                TABLE,
                format!("the file begins with {magic:02x?}"),
            ));
        }
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| superblock[at + byte]));
        let (version, stored) = (number(8), number(12));
        let computed = crc32c::crc32c(&superblock[..12]);
        if stored != computed {
            let what = format!("checksum {stored:08x} stored, {computed:08x} computed");
            return Err(Error::corrupt(TABLE, what));
        }
        if version != LAYOUT_VERSION {
            let what = format!("layout {version}, this build reads {LAYOUT_VERSION}");
            return Err(Error::Unsupported { what });
        }
        // redb syncs a new length before its header tells of it, and shortens a file after, so a
        // length that no number of pages gives was not left behind by a crash.
        let pages = layout::pages(len)
            .ok_or_else(|| Error::corrupt(TABLE, format!("no file has {len} bytes")))?;
        Ok(Self::new(file, pages))
    }

    fn new(file: Arc<dyn DiskFile>, pages: u64) -> Arc<Self> {
        Arc::new(Self {
            file,
            pages: AtomicU64::new(pages),
            physical: AtomicU64::new(layout::file_len(pages)),
            // What a killed process wrote may not be on the disk yet.
            unsynced: AtomicBool::new(true),
            groups: RwLock::new((0..pages.div_ceil(GROUP)).map(|_| None).collect()),
            dirty: Mutex::default(),
            reserved: AtomicU64::new(0),
            unreservable: AtomicBool::new(false),
            late_reservations: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            filling: AtomicBool::new(false),
            gathered: Mutex::default(),
            pacing: Mutex::default(),
            damage: Mutex::default(),
        })
    }

    /// Length of redb's page space, in pages.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Acquire)
    }

    /// Length of a file of that many pages in bytes, all of them allocated.
    pub(super) fn file_len(&self) -> u64 {
        layout::file_len(self.pages())
    }

    /// Bytes that are reserved beyond that.
    pub(super) fn headroom(&self) -> u64 {
        self.reserved
            .load(Ordering::Acquire)
            .saturating_sub(self.file_len())
    }

    /// Makes sure that the first `len` bytes of the file have blocks. `Ok(false)` if the disk has no
    /// room for them.
    pub(super) fn ensure(&self, len: u64, disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
        // Asked first, because a reservation that fails half-way keeps what it got.
        match self
            .missing(len)
            .map_err(Error::io("ask for allocated space"))?
        {
            0 if len <= self.reserved.load(Ordering::Acquire) => Ok(true),
            missing
                if disk
                    .free_bytes(dir)
                    .map_err(Error::io("ask for free space"))?
                    < missing =>
            {
                Ok(false)
            }
            _ => self.reserve(len).map_err(Error::io("reserve space")),
        }
    }

    /// Reserves up to `len`, unless that takes more than half of what the disk has left. Not being
    /// able to is for the commit to find out that needs it.
    pub(super) fn top_up(&self, len: u64, disk: &dyn Disk, dir: &Path) {
        let Ok(missing) = self.missing(len) else {
            return;
        };
        if missing == 0 || disk.free_bytes(dir).is_ok_and(|free| free / 2 > missing) {
            let _ = self.reserve(len);
        }
    }

    /// Blocks that a file of `len` bytes lacks. After a restart the file may have more of them than
    /// is known here.
    fn missing(&self, len: u64) -> io::Result<u64> {
        let reserved = self.reserved.load(Ordering::Acquire);
        if len <= reserved {
            return Ok(0);
        }
        Ok(len.saturating_sub(reserved.max(self.file.allocated_len()?)))
    }

    /// Reserves blocks for the first `len` bytes of the file. `Ok(false)` if they are not there.
    fn reserve(&self, len: u64) -> io::Result<bool> {
        if len <= self.reserved.load(Ordering::Acquire) || self.unreservable() {
            return Ok(true);
        }
        match self.file.allocate(len) {
            Ok(()) => {
                self.reserved.store(len, Ordering::Release);
                Ok(true)
            }
            Err(error) if is_full(&error) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.unreservable.store(true, Ordering::Release);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn unreservable(&self) -> bool {
        self.unreservable.load(Ordering::Acquire)
    }

    /// How often redb grew the file beyond what was reserved.
    #[cfg(test)]
    pub(super) fn late_reservations(&self) -> u64 {
        self.late_reservations.load(Ordering::Relaxed)
    }

    /// Refuses every later write, so that dropping redb changes nothing.
    pub(super) fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// `error`, or the damaged page that is behind it.
    pub(super) fn explain(&self, error: Error) -> Error {
        match (&error, &*self.damage.lock()) {
            (Error::Io { .. } | Error::Corrupt { .. }, Some(what)) => {
                Error::corrupt("page tree", what.clone())
            }
            _ => error,
        }
    }

    /// Nobody reads or writes them any more, and another file has their name.
    pub(super) fn free_gently(&self) {
        self.file.free_gently();
    }

    /// Makes everything written durable, metadata included.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Makes everything written durable. A sync that fails is never repeated: redb, and the page file
    /// with it, refuses everything afterwards.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.write_checksums()?;
        if self.filling() && !self.gathered.lock().write_if_many(&*self.file)? {
            return Ok(());
        }
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.pacing.lock().write(&*self.file);
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Limits the bytes of a second that commits write while the file is not filled.
    pub(super) fn limit(&self, rate: Option<NonZeroU64>) {
        self.pacing.lock().limit(rate);
    }

    /// From now on, or no longer, the file counts for nothing: what is written is [`Gathered`], and a
    /// sync does not make it durable; `rate` limits the bytes of a second. Whoever ends it commits
    /// afterwards, which does.
    ///
    /// # Errors
    /// What was gathered cannot be written.
    pub(super) fn fill(&self, filling: bool, rate: Option<NonZeroU64>) -> io::Result<()> {
        let mut gathered = self.gathered.lock();
        gathered.limit(rate);
        gathered.write(&*self.file)?;
        drop(gathered);
        self.filling.store(filling, Ordering::Release);
        Ok(())
    }

    /// Whether that is so.
    pub(super) fn filling(&self) -> bool {
        self.filling.load(Ordering::Acquire)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(out, offset)?;
        if self.filling() {
            self.gathered.lock().read(out, offset);
        }
        Ok(())
    }

    /// Writes whole pages.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.filling() {
            self.gathered.lock().put(bytes, offset);
            return Ok(());
        }
        self.file.write_at(bytes, offset)?;
        self.pacing.lock().written(offset, bytes.len() as u64);
        Ok(())
    }

    fn writable(&self) -> io::Result<()> {
        if self.fenced.load(Ordering::Acquire) {
            return Err(io::Error::other("the page file is closed"));
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> io::Error {
        match guard::mode() {
            Mode::Throw => std::panic::resume_unwind(Box::new(PageDamage { what })),
            Mode::Fail => {
                let error = io::Error::new(io::ErrorKind::InvalidData, what.clone());
                self.damage.lock().get_or_insert(what);
                error
            }
        }
    }

    fn read_header(&self, out: &mut [u8]) -> io::Result<()> {
        let header = self.checked_header()?.map_err(|what| self.damaged(what))?;
        out.copy_from_slice(&header[..out.len()]);
        Ok(())
    }

    /// Reads redb's header and checks it. The inner error says what is damaged.
    pub(super) fn checked_header(&self) -> io::Result<Result<[u8; HEADER_BYTES], String>> {
        let mut block = [0; HEADER_BYTES + 4];
        self.file.read_at(&mut block, layout::page_offset(0))?;
        let (header, stored) = block.split_at(HEADER_BYTES);
        let computed = crc32c::crc32c(header).to_le_bytes();
        if stored != computed {
            return Ok(Err(format!(
                "header at file offset {}: checksum {stored:02x?} stored, {computed:02x?} computed",
                layout::page_offset(0)
            )));
        }
        let header = header.try_into();
        Ok(Ok(header.expect("the block was split behind the header")))
    }

    fn write_header(&self, header: &[u8]) -> io::Result<()> {
        let mut block = [0; HEADER_BYTES + 4];
        block[..HEADER_BYTES].copy_from_slice(header);
        // redb takes the size of its regions from the header and offers no way to choose it. Here
        // is the moment: it reads the header of a new file back before it uses it.
        if block[REGION_PAGES_AT] == REDB_REGION_PAGES.to_le_bytes() {
            block[REGION_PAGES_AT].copy_from_slice(&REGION_PAGES.to_le_bytes());
        }
        let crc = crc32c::crc32c(&block[..HEADER_BYTES]);
        block[HEADER_BYTES..].copy_from_slice(&crc.to_le_bytes());
        self.unsynced.store(true, Ordering::Release);
        self.file.write_at(&block, layout::page_offset(0))
    }

    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_checked(first, out)?
            .map_err(|what| self.damaged(what))
    }

    /// Reads whole pages and checks them. The inner error says what is damaged; `out` must not be
    /// used then.
    pub(super) fn read_checked(
        &self,
        first: u64,
        out: &mut [u8],
    ) -> io::Result<Result<(), String>> {
        let end = first.saturating_add(out.len() as u64 / PAGE);
        if end > self.pages() {
            // Only a damaged reference leads there.
            return Ok(Err(format!(
                "page {end} of {} is referred to",
                self.pages()
            )));
        }
        for (page, chunk) in runs(first, out.len()) {
            let bytes = &mut out[chunk];
            self.read_at(bytes, layout::page_offset(page))?;
            let bytes = &*bytes;
            let checked = self.with_checksums(page / GROUP, |checksums| {
                for (page, bytes) in (page..).zip(bytes.chunks_exact(PAGE as usize)) {
                    let stored = checksums[(page % GROUP) as usize].load(Ordering::Acquire);
                    let computed = checksum(page, bytes);
                    if stored != computed {
                        return Err(format!(
                            "page at file offset {}: checksum {stored:08x} stored, \
                             {computed:08x} computed",
                            layout::page_offset(page)
                        ));
                    }
                }
                Ok(())
            })?;
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }

    /// Reads adjacent pages without a look at their checksums. `None`: it cannot be done; whoever
    /// reads them through redb hears why. A page may be half overwritten: it is not pinned.
    pub(super) fn read_unchecked(&self, first: u64, out: &mut [u8]) -> Option<()> {
        let end = first.saturating_add(out.len() as u64 / PAGE);
        if end > self.pages() {
            return None;
        }
        for (page, chunk) in runs(first, out.len()) {
            let offset = layout::page_offset(page);
            self.read_at(&mut out[chunk], offset).ok()?;
        }
        Some(())
    }

    /// The checksum of a page as it is now.
    pub(super) fn checksum_of(&self, page: u64) -> io::Result<u32> {
        self.with_checksums(page / GROUP, |checksums| {
            checksums[(page % GROUP) as usize].load(Ordering::Acquire)
        })
    }

    fn write_pages(&self, first: u64, data: &[u8]) -> io::Result<()> {
        self.unsynced.store(true, Ordering::Release);
        for (page, chunk) in runs(first, data.len()) {
            let bytes = &data[chunk];
            let offset = layout::page_offset(page);
            self.write_at(bytes, offset)?;
            self.with_checksums(page / GROUP, |checksums| {
                for (page, bytes) in (page..).zip(bytes.chunks_exact(PAGE as usize)) {
                    let slot = &checksums[(page % GROUP) as usize];
                    slot.store(checksum(page, bytes), Ordering::Release);
                }
            })?;
            self.dirty.lock().insert(page / GROUP);
        }
        Ok(())
    }

    /// Calls `use_them` with the checksums of a group, which are read from the file if need be.
    fn with_checksums<T>(
        &self,
        group: u64,
        use_them: impl FnOnce(&[AtomicU32]) -> T,
    ) -> io::Result<T> {
        let at = usize::try_from(group).map_err(io::Error::other)?;
        {
            let groups = self.groups.read();
            match groups.get(at) {
                Some(Some(checksums)) => return Ok(use_them(checksums)),
                Some(None) => {}
                None => {
                    let what = format!("group {group} of {}", groups.len());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
            }
        }
        let mut page = vec![0; PAGE as usize];
        self.read_at(&mut page, layout::checksum_offset(group))?;
        let loaded = page
            .chunks_exact(4)
            .map(|slot| AtomicU32::new(u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]])))
            .collect();
        match self.groups.write().get_mut(at) {
            // Another thread may have been faster, and checksums been changed since.
            Some(slot) => Ok(use_them(slot.get_or_insert(loaded))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_checksums(&self) -> io::Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for group in dirty {
            let page: Vec<u8> = self.with_checksums(group, |checksums| {
                checksums
                    .iter()
                    .flat_map(|slot| slot.load(Ordering::Acquire).to_le_bytes())
                    .collect()
            })?;
            self.write_at(&page, layout::checksum_offset(group))?;
        }
        Ok(())
    }

    /// Changes redb's length. The file only grows here: what redb cuts off mostly comes back within
    /// a few commits, and until then it is headroom. Pages that come back hold what they held; redb
    /// writes a page before it reads it.
    fn resize(&self, pages: u64) -> io::Result<()> {
        let len = layout::file_len(pages);
        if len > self.reserved.load(Ordering::Acquire) && !self.unreservable() {
            // The bound of the commit's need was wrong. Not yet too late.
            self.late_reservations.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                len,
                "page file grows beyond the space reserved for the commit"
            );
            if !self.reserve(len)? {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if len > self.physical.load(Ordering::Acquire) {
            self.unsynced.store(true, Ordering::Release);
            self.file.set_len(len)?;
            self.physical.store(len, Ordering::Release);
            let groups = usize::try_from(pages.div_ceil(GROUP)).map_err(io::Error::other)?;
            self.groups.write().resize_with(groups, || None);
        }
        self.pages.store(pages, Ordering::Release);
        Ok(())
    }

    /// Cuts the file to redb's length if it is more than `keep` bytes longer. Called after a commit:
    /// a header that knows the shorter length is durable.
    pub(super) fn give_back(&self, keep: u64) -> io::Result<()> {
        let pages = self.pages();
        let len = layout::file_len(pages);
        if self.physical.load(Ordering::Acquire) <= len + keep {
            return Ok(());
        }
        let count = usize::try_from(pages.div_ceil(GROUP)).map_err(io::Error::other)?;
        {
            let mut groups = self.groups.write();
            groups.truncate(count);
            self.dirty.lock().retain(|group| *group < count as u64);
            self.gathered.lock().cut(len);
        }
        self.unsynced.store(true, Ordering::Release);
        self.file.set_len(len)?;
        self.physical.store(len, Ordering::Release);
        // Blocks beyond the end are gone with it.
        self.reserved.store(len, Ordering::Release);
        Ok(())
    }
}

/// What redb writes through.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<Pages>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.pages() * PAGE)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset == 0 && out.len() <= HEADER_BYTES {
            return self.0.read_header(out);
        }
        self.0.read_pages(page_number(offset, out.len())?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.writable()?;
        if !len.is_multiple_of(PAGE) {
            return Err(unaligned(0, len));
        }
        self.0.resize(len / PAGE)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.writable()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.writable()?;
        if offset == 0 && data.len() == HEADER_BYTES {
            return self.0.write_header(data);
        }
        self.0.write_pages(page_number(offset, data.len())?, data)
    }
}

/// The number of the first page; only whole pages but the header are read and written.
fn page_number(offset: u64, len: usize) -> io::Result<u64> {
    if offset == 0 || !offset.is_multiple_of(PAGE) || !(len as u64).is_multiple_of(PAGE) {
        return Err(unaligned(offset, len as u64));
    }
    Ok(offset / PAGE)
}

fn unaligned(offset: u64, len: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{len} bytes at {offset} are no pages"),
    )
}

/// Splits `len` bytes from page `first` into runs within one group: first page and byte range.
fn runs(first: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let (mut page, mut at) = (first, 0);
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let in_group = (GROUP - page % GROUP) * PAGE;
        let end = len.min(at + in_group as usize);
        let run = (page, at..end);
        page += (end - at) as u64 / PAGE;
        at = end;
        Some(run)
    })
}

/// The checksum of a page; never 0.
fn checksum(page: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page.to_le_bytes()), bytes).max(1)
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
