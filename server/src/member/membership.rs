//! Changes of the membership.

use super::Member;

impl<T> Member<T> {
    pub(super) fn propose_changes(&mut self) {}
}
