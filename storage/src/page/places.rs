//! Which leaf holds a row: the greatest key and the place of every leaf of the tree of rows, in
//! memory. 20 bytes a leaf: 7 MB for a million rows of 1 KB.
//!
//! It is brought up to date with each commit. redb never changes a page that a commit can reach, so
//! a branch with the place and the checksum of one that is known has its children too, and only what
//! is new is read.
//!
//! Readers take it for a hint: a leaf may be gone when it is read. See [`Fetcher`](super::Fetcher).

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::Pages;
use super::error::Error;
use super::row::{KEY_BYTES, Key};
use super::tree::{self, Branch, MAX_DEPTH, Place, odd};

/// No row has a greater key: its kind is none.
const GREATEST: Key = [0xff; KEY_BYTES];

/// Bits of a packed place that tell the first page; the order is above them.
const FIRST_BITS: u32 = 35;

/// The leaves of a tree of rows.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The branches right above the leaves, in order, and the greatest key below each.
    parents: Vec<(Key, Arc<Parent>)>,
}

/// A branch above leaves.
#[derive(Debug)]
struct Parent {
    place: Place,
    checksum: u32,
    children: Box<[Child]>,
}

/// A leaf: the greatest key that it can hold, and its place. The last of a parent has no key of its
/// own but its parent's, which is not the parent's to know.
#[derive(Debug)]
struct Child {
    greatest: Key,
    place: [u8; 5],
}

impl Child {
    fn new(greatest: Key, place: Place) -> Result<Self, Error> {
        if place.first >> FIRST_BITS != 0 {
            return Err(odd("a page outside the file is referred to"));
        }
        let packed = u64::from(place.order) << FIRST_BITS | place.first;
        let [a, b, c, d, e, ..] = packed.to_le_bytes();
        Ok(Self {
            greatest,
            place: [a, b, c, d, e],
        })
    }

    fn place(&self) -> Place {
        let [a, b, c, d, e] = self.place;
        let packed = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
        Place {
            first: packed & ((1 << FIRST_BITS) - 1),
            order: (packed >> FIRST_BITS) as u32,
        }
    }
}

impl Places {
    /// The leaves as of the last commit, given those of an earlier one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] when a page above the leaves is damaged or not as this
    /// build knows it.
    pub(super) fn update(&self, pages: &Pages) -> Result<Self, Error> {
        let Some(root) = tree::root(pages)? else {
            return Ok(Self::default());
        };
        let mut buffer = Vec::new();
        if tree::is_leaf(tree::read(pages, root, &mut buffer)?) {
            let only = Parent {
                place: root,
                checksum: 0,
                children: Box::new([Child::new(GREATEST, root)?]),
            };
            return Ok(Self {
                parents: vec![(GREATEST, Arc::new(only))],
            });
        }
        let mut level = vec![(GREATEST, root)];
        for _ in 0..MAX_DEPTH {
            // All leaves are equally deep: the first child tells about all.
            let page = tree::read(pages, level[0].1, &mut buffer)?;
            let (first, _) = Branch::parse(page)?.bounded()?[0];
            if tree::is_leaf(tree::read(pages, first, &mut buffer)?) {
                return self.above_leaves(pages, &level);
            }
            let mut below = Vec::new();
            for (bound, place) in level {
                let branch = Branch::parse(tree::read(pages, place, &mut buffer)?)?;
                let children = branch.bounded()?.into_iter();
                below.extend(children.map(|(child, key)| (key.copied().unwrap_or(bound), child)));
                in_file(below.len(), pages)?;
            }
            level = below;
        }
        Err(odd("the tree is too high"))
    }

    fn above_leaves(&self, pages: &Pages, level: &[(Key, Place)]) -> Result<Self, Error> {
        let known: HashMap<Place, &Arc<Parent>> = self
            .parents
            .iter()
            .map(|(_, parent)| (parent.place, parent))
            .collect();
        let mut buffer = Vec::new();
        let mut leaves = 0;
        let mut parents = Vec::with_capacity(level.len());
        for (bound, place) in level {
            let checksum = pages
                .checksum_of(place.first)
                .map_err(Error::io("read checksums"))?;
            let parent = match known.get(place) {
                Some(parent) if parent.checksum == checksum && place.order == 0 => {
                    Arc::clone(parent)
                }
                _ => {
                    let branch = Branch::parse(tree::read(pages, *place, &mut buffer)?)?;
                    let children = branch.bounded()?.into_iter().map(|(child, key)| {
                        // Before anybody takes memory for it.
                        child.check(pages)?;
                        Child::new(key.copied().unwrap_or(GREATEST), child)
                    });
                    Arc::new(Parent {
                        place: *place,
                        checksum,
                        children: children.collect::<Result<_, _>>()?,
                    })
                }
            };
            leaves += parent.children.len();
            in_file(leaves, pages)?;
            parents.push((*bound, parent));
        }
        Ok(Self { parents })
    }

    /// The leaves in order, from the one that holds `key` on, if it is there.
    pub(super) fn leaves_from<'p>(
        &'p self,
        key: &Key,
    ) -> impl Iterator<Item = Place> + Clone + use<'p> {
        let parent = self.parents.partition_point(|(bound, _)| bound < key);
        let (first, rest) = match self.parents[parent..].split_first() {
            Some(((_, parent), rest)) => (&*parent.children, rest),
            None => (&[][..], &[][..]),
        };
        let child = first.partition_point(|child| &child.greatest < key);
        first[child..]
            .iter()
            .chain(rest.iter().flat_map(|(_, parent)| &parent.children))
            .map(Child::place)
    }

    /// All leaves in order.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> {
        self.leaves_from(&[0; KEY_BYTES])
    }
}

/// Fails when there are more pages of a level than pages in the file, as in a damaged tree.
fn in_file(level: usize, pages: &Pages) -> Result<(), Error> {
    match level as u64 <= pages.pages() {
        true => Ok(()),
        false => Err(odd("more pages than there are in the file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_packing() {
        for place in [(0, 0), (1, 2), ((1 << FIRST_BITS) - 1, 20)] {
            let place = Place {
                first: place.0,
                order: place.1,
            };
            assert_eq!(Child::new(GREATEST, place).unwrap().place(), place);
        }
        let outside = Place {
            first: 1 << FIRST_BITS,
            order: 0,
        };
        Child::new(GREATEST, outside).unwrap_err();
    }

    #[test]
    fn a_leaf_takes_20_bytes() {
        assert_eq!(size_of::<Child>(), 20);
    }
}
