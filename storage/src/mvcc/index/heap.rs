//! Estimates of the memory behind allocations, for [`KeyIndex::heap_bytes`](super::KeyIndex::heap_bytes).

/// What an allocator adds to an allocation on average (bytes).
const OVERHEAD: usize = 16;

/// The memory of a buffer of `len` bytes.
pub(super) fn buffer(len: usize) -> usize {
    if len == 0 { 0 } else { len + OVERHEAD }
}

/// The memory behind a list, without what its elements hold.
pub(super) fn vec<T>(list: &Vec<T>) -> usize {
    buffer(list.capacity() * size_of::<T>())
}

/// The memory of a `T` in an `Arc`.
pub(super) fn shared<T>() -> usize {
    // Two counters stand before the value.
    buffer(size_of::<T>() + 2 * size_of::<usize>())
}
