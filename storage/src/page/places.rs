//! Which leaf holds a row: the greatest key and the place of every leaf of the tree of rows, in
//! memory. 20 bytes a leaf: 7 MB for a million rows of 1 KB.
//!
//! It is brought up to date with each commit. redb never changes a page that a commit can reach, so
//! a branch with the place and the checksum of one that is known has its children too, and only what
//! is new is read.
//!
//! Readers take it for a hint: a leaf may be gone when it is read. See [`Fetcher`](super::Fetcher).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::backend::Pages;
use super::error::Error;
use super::row::{self, KEY_BYTES, Key};
use super::tree::{self, Branch, MAX_DEPTH, Place, odd};

/// No row has a greater key: its kind is none.
const GREATEST: Key = [0xff; KEY_BYTES];

/// Bits of a packed place that tell the first page; the order is above them.
const FIRST_BITS: u32 = 35;

/// The leaves of a tree of rows.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The branches right above the leaves, in order.
    parents: Vec<Parent>,
}

/// A branch above leaves.
#[derive(Debug)]
struct Parent {
    /// The greatest key that can be below it.
    greatest: Key,
    place: Place,
    checksum: u32,
    children: Arc<[Child]>,
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

/// Where a leaf is among [`Places`]: for these very ones.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Spot {
    parent: usize,
    child: usize,
}

/// A search for a [`Spot`] that has begun.
struct Begun {
    parent: usize,
    /// The number of the child that is looked at first.
    guess: usize,
    /// The main revision of its greatest key.
    main: u64,
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
                greatest: GREATEST,
                place: root,
                checksum: 0,
                children: Arc::new([Child::new(GREATEST, root)?]),
            };
            return Ok(Self {
                parents: vec![only],
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
        let known: HashMap<Place, &Parent> = self
            .parents
            .iter()
            .map(|parent| (parent.place, parent))
            .collect();
        let mut buffer = Vec::new();
        let mut leaves = 0;
        let mut parents = Vec::with_capacity(level.len());
        for &(greatest, place) in level {
            let checksum = pages
                .checksum_of(place.first)
                .map_err(Error::io("read checksums"))?;
            let children = match known.get(&place) {
                Some(parent) if parent.checksum == checksum && place.order == 0 => {
                    Arc::clone(&parent.children)
                }
                _ => {
                    let branch = Branch::parse(tree::read(pages, place, &mut buffer)?)?;
                    let children = branch.bounded()?.into_iter().map(|(child, key)| {
                        // Before anybody takes memory for it.
                        child.check(pages)?;
                        Child::new(key.copied().unwrap_or(GREATEST), child)
                    });
                    children.collect::<Result<_, _>>()?
                }
            };
            leaves += children.len();
            in_file(leaves, pages)?;
            parents.push(Parent {
                greatest,
                place,
                checksum,
                children,
            });
        }
        Ok(Self { parents })
    }

    /// Where the leaf is that holds `key`, if it is there.
    pub(super) fn spot(&self, key: &Key) -> Spot {
        self.finish(key, self.begin(key))
    }

    /// As [`Places::spot`], for many keys, which may be none.
    ///
    /// What is looked at first is not in the processor's cache, mostly. Here nothing that is done
    /// for one key depends on what was found for another, so these fetches from memory overlap.
    pub(super) fn spots(&self, keys: &[Option<Key>]) -> Vec<Option<Spot>> {
        let begun: Vec<_> = keys
            .iter()
            .map(|key| key.map(|key| self.begin(&key)))
            .collect();
        let both = keys.iter().zip(begun);
        both.map(|(key, begun)| Some(self.finish(key.as_ref()?, begun?)))
            .collect()
    }

    /// Decides where the search begins, and has a first look there. No branch depends on what is
    /// seen.
    fn begin(&self, key: &Key) -> Begun {
        let parent = self
            .parents
            .partition_point(|parent| below(&parent.greatest, key));
        let (children, mains) = self.children(parent);
        let guess = share(row::main(key), &mains, children.len());
        let main = children
            .get(guess)
            .map_or(0, |child| row::main(&child.greatest));
        Begun {
            parent,
            guess,
            main,
        }
    }

    fn finish(&self, key: &Key, begun: Begun) -> Spot {
        let (children, _) = self.children(begun.parent);
        Spot {
            parent: begun.parent,
            child: search(children, key, begun.guess, begun.main),
        }
    }

    /// The children of a parent and the revisions they are of; none of the parent behind the last.
    fn children(&self, parent: usize) -> (&[Child], Range<u64>) {
        let Some(parent_there) = self.parents.get(parent) else {
            return (&[], 0..0);
        };
        let before = parent.checked_sub(1).map(|before| &self.parents[before]);
        let least = before.map_or(0, |before| row::main(&before.greatest));
        let mains = least..row::main(&parent_there.greatest);
        (&parent_there.children, mains)
    }

    /// The leaves in order, from `spot` on.
    pub(super) fn leaves_from(&self, spot: Spot) -> impl Iterator<Item = Place> + Clone {
        let mut parents = self.parents[spot.parent..].iter();
        let first = parents
            .next()
            .map_or(&[][..], |parent| &parent.children[spot.child..]);
        first
            .iter()
            .chain(parents.flat_map(|parent| &*parent.children))
            .map(Child::place)
    }

    /// All leaves in order.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> {
        self.leaves_from(Spot::default())
    }
}

/// The number of the child that holds `key`, if it is there, given the main revision of the greatest key
/// of the child `guess`.
///
/// Rows are written in the order of revisions, so leaves have about equally many, and the search
/// begins where the leaf would be if they had exactly so many. It ends there mostly, so that it
/// costs one or two fetches from memory; halving would cost one each time, and those were a fifth
/// of the cost of a long list of rows of 1 KB.
fn search(children: &[Child], key: &Key, guess: usize, main: u64) -> usize {
    let is_below = |child: &Child| below(&child.greatest, key);
    let (mut low, mut high, mut step) = (0, children.len(), 1);
    let guess_is_below = match main.cmp(&row::main(key)) {
        Ordering::Less => guess < children.len(),
        Ordering::Equal => children.get(guess).is_some_and(is_below),
        Ordering::Greater => false,
    };
    if guess_is_below {
        low = guess + 1;
        while let Some(child) = children.get(low + step - 1) {
            if !is_below(child) {
                high = low + step - 1;
                break;
            }
            (low, step) = (low + step, 2 * step);
        }
    } else {
        high = guess;
        while let Some(at) = high.checked_sub(step) {
            if is_below(&children[at]) {
                low = at + 1;
                break;
            }
            (high, step) = (at, 2 * step);
        }
    }
    low + children[low..high].partition_point(is_below)
}

/// Whether `key` is less than `other`: by their revisions mostly, which are compared at once.
fn below(key: &Key, other: &Key) -> bool {
    let (main, of_other) = (row::main(key), row::main(other));
    main < of_other || (main == of_other && key < other)
}

/// The part of `all` that `value` is of the way through `range`; `all` at most.
fn share(value: u64, range: &Range<u64>, all: usize) -> usize {
    let way = value.saturating_sub(range.start);
    let length = range.end.saturating_sub(range.start).max(1);
    let share = u128::from(way) * all as u128 / u128::from(length);
    usize::try_from(share).map_or(all, |share| share.min(all))
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
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

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

    /// Whatever the leaves hold, the guess only decides how fast the right one is found.
    #[test]
    fn the_leaf_of_a_key_is_found_wherever_the_search_begins() {
        let key = |main: u64| -> Key {
            let mut key = [0; KEY_BYTES];
            key[..8].copy_from_slice(&main.to_be_bytes());
            key
        };
        let mut rng = SmallRng::seed_from_u64(1);
        for len in [0, 1, 2, 3, 7, 150] {
            let mut bounds: Vec<u64> = (0..len).map(|_| rng.random_range(0..1000)).collect();
            bounds.sort_unstable();
            bounds.dedup();
            let place = |at: usize| Place {
                first: at as u64,
                order: 0,
            };
            let children = bounds.iter().enumerate();
            let children = children.map(|(at, bound)| Child::new(key(*bound), place(at)).unwrap());
            let children: Vec<_> = children.collect();
            for main in 0..1002 {
                let expected = bounds.partition_point(|bound| *bound < main);
                for guess in 0..=children.len() {
                    let first = bounds.get(guess).copied().unwrap_or_default();
                    let found = search(&children, &key(main), guess, first);
                    assert_eq!(found, expected, "{main} of {bounds:?}");
                }
            }
        }
    }

    #[test]
    fn a_leaf_takes_20_bytes() {
        assert_eq!(size_of::<Child>(), 20);
    }
}
