//! Where the pages of the tree lie in the file, and how redb makes its page space grow.
//!
//! ```text
//! file     | superblock | checksums | page 0 | page 1 | ... | page 1023 | checksums | page 1024 | ...
//!            4 KiB        4 KiB       4 KiB    \------- one group -------/
//! ```
//!
//! A checksum page holds the CRC-32C of the 1024 pages after it, 4 bytes each (little-endian), in
//! the order of the pages; 0 stands for a page that was never written (a checksum that happens to
//! be 0 is stored as 1). The checksum of a page covers its number too, so that a page written to
//! the wrong place is noticed. Page 0 is redb's header, which is checked otherwise: see
//! [`HEADER_BYTES`].
//!
//! Checksum pages are written in place. That is safe because redb never overwrites a page that the
//! newest durable commit can reach: in any torn or lost write of a checksum page, the slots of
//! reachable pages hold the same bytes before and after, and every slot lies in one sector.

/// Bytes of a page of redb.
pub(super) const PAGE: u64 = 4096;

/// Pages that share a checksum page.
pub(super) const GROUP: u64 = PAGE / 4;

/// Bytes of redb's header, at the start of page 0. The backend puts their CRC-32C right behind
/// them. Both lie in the first sector, which a disk writes whole or not at all.
pub(super) const HEADER_BYTES: usize = 320;

/// First bytes of the file.
pub(super) const MAGIC: [u8; 8] = *b"FERRITE\0";

/// The version of this layout, which follows the magic as a u32, little-endian. Then comes the
/// CRC-32C of both, and zeros up to the end of the page.
pub(super) const LAYOUT_VERSION: u32 = 1;

/// Pages of one region of redb. redb doubles a file until it has one region, then grows it region
/// by region. Its default of 4 GiB would make every file up to there twice as large as needed, and
/// the space to reserve unbounded; 16 MiB is also the step in which etcd's bbolt grows.
pub(super) const REGION_PAGES: u32 = 4096;

/// Where the file offset of `page` is.
pub(super) fn page_offset(page: u64) -> u64 {
    (1 + page + page / GROUP + 1) * PAGE
}

/// Where the checksum page of `group` is.
pub(super) fn checksum_offset(group: u64) -> u64 {
    (1 + group * (GROUP + 1)) * PAGE
}

/// The length of a file with `pages` pages.
pub(super) fn file_len(pages: u64) -> u64 {
    (1 + pages + pages.div_ceil(GROUP)) * PAGE
}

/// The number of pages in a file of `len` bytes, if any number gives that length.
pub(super) fn pages(len: u64) -> Option<u64> {
    let blocks = (len / PAGE).checked_sub(1)?;
    let groups = blocks.div_ceil(GROUP + 1);
    let pages = blocks - groups;
    (file_len(pages) == len).then_some(pages)
}

/// An upper bound of what a page space of `pages` pages grows to while a transaction allocates
/// `needed` pages, `largest` of them at most in one run, when nothing of the present space is free.
///
/// The rule is redb's: doubling below one region; then the last region is filled, or another one
/// added where the rest of it is small against the request.
pub(super) fn grown(pages: u64, needed: u64, largest: u64) -> u64 {
    let region = u64::from(REGION_PAGES);
    // Page 0 is the header and belongs to no region.
    let mut usable = pages.saturating_sub(1).max(1);
    let mut missing = needed;
    while missing > 0 {
        let rest = usable.next_multiple_of(region) - usable;
        let step = if usable < region {
            usable.max(2 * largest)
        } else if rest > 2 * largest {
            rest
        } else {
            rest + region
        };
        usable += step;
        // In a fresh region the free runs that are too short for a request add up to less than it.
        missing = missing.saturating_sub(step.saturating_sub(largest).max(1));
    }
    usable + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_checksum_pages_alternate_without_holes() {
        let mut expected = PAGE;
        for page in 0..3 * GROUP + 5 {
            if page.is_multiple_of(GROUP) {
                assert_eq!(checksum_offset(page / GROUP), expected);
                expected += PAGE;
            }
            assert_eq!(page_offset(page), expected, "page {page}");
            expected += PAGE;
            assert_eq!(file_len(page + 1), expected);
            assert_eq!(pages(expected), Some(page + 1));
        }
        assert_eq!(pages(file_len(0)), Some(0));
        for odd in [0, 1, PAGE - 1, PAGE + 1, 2 * PAGE, file_len(GROUP) + PAGE] {
            assert_eq!(pages(odd), None, "{odd}");
        }
    }

    #[test]
    fn growth_doubles_up_to_a_region_and_then_adds_regions() {
        let region = u64::from(REGION_PAGES);
        for (pages, needed, largest, expected) in [
            (19, 0, 1, 19),
            (19, 1, 1, 37),
            (19, 18, 1, 73),
            (19, 40, 40, 99),
            (1 + region, 1, 1, 1 + 2 * region),
            (1 + region + 7, region - 8, 1, 1 + 2 * region),
            (1 + region + 7, region - 7, 1, 1 + 3 * region),
            (1 + 2 * region - 2, 1, 1, 1 + 3 * region),
            (1 + region / 2 + 1, 1, 1, 1 + region + 2),
        ] {
            assert_eq!(
                grown(pages, needed, largest),
                expected,
                "{pages} {needed} {largest}"
            );
        }
    }
}
