//! Keeps panics of redb inside the page file.
//!
//! redb asserts much about the bytes it reads. [`run`] turns a panic into [`Error::Corrupt`]. The
//! process-wide panic hook would still print "thread panicked" for each, so the first call puts a
//! hook in front of the one that is installed: while a thread is inside [`run`] it notes message
//! and place for the error and prints nothing; every other panic goes to the hook behind. Whoever
//! installs a hook later loses nothing: at worst these panics are printed too.
//!
//! Damage that the [backend](super::backend) notices itself, through its page checksums, is
//! reported to redb as an IO error or thrown past it as a [`PageDamage`]; see [`Mode`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::error::Error;

/// What the backend does about a damaged page on the current thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Throw a [`PageDamage`]. For reads: an IO error would make redb refuse every later call,
    /// while an unwind through its read path leaves nothing behind, no lock being held there while
    /// a page is fetched. So one damaged page costs what is on it, and scrubbing goes on.
    Throw,
    /// Return an error. For opening and writing, which cannot go on anyway, and where redb has
    /// state to take back.
    Fail,
}

/// A page whose bytes do not match their checksum. Thrown with `resume_unwind`, which runs no hook.
#[derive(Clone, Debug)]
pub(super) struct PageDamage {
    pub(super) what: String,
}

thread_local! {
    /// The mode of the innermost [`run`] of this thread.
    static MODE: Cell<Option<Mode>> = const { Cell::new(None) };
    /// The last panic inside [`run`].
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `call`; a panic becomes [`Error::Corrupt`] of `table`.
pub(super) fn run<T>(
    mode: Mode,
    table: &'static str,
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let behind = panic::take_hook();
        panic::set_hook(Box::new(move |info| match MODE.get() {
            Some(_) => PANIC.with(|last| {
                // A panic while the text of another is formatted must not find this borrowed.
                if let Ok(mut last) = last.try_borrow_mut() {
                    *last = info.to_string();
                }
            }),
            None => behind(info),
        }));
    });

    let outer = MODE.replace(Some(mode));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    MODE.set(outer);
    result.unwrap_or_else(|payload| Err(describe(table, payload.as_ref())))
}

/// The mode of the innermost [`run`]; [`Mode::Fail`] outside, as on redb's drop paths.
pub(super) fn mode() -> Mode {
    MODE.get().unwrap_or(Mode::Fail)
}

fn describe(table: &'static str, payload: &(dyn Any + Send)) -> Error {
    match payload.downcast_ref::<PageDamage>() {
        Some(damage) => Error::corrupt(table, damage.what.clone()),
        None => {
            let panic = PANIC.take().replace('\n', " ");
            Error::corrupt(table, format!("the page tree makes no sense: {panic}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_names_its_place() {
        let error = run::<()>(Mode::Fail, "leases", || panic!("odd {}", 7)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("leases") && text.contains("odd 7"), "{text}");
        assert!(text.contains("guard.rs"), "{text}");
    }

    #[test]
    fn thrown_damage_becomes_an_error_with_its_text() {
        let damage = PageDamage {
            what: "page 9".to_owned(),
        };
        let error = run::<()>(Mode::Throw, "leases", || {
            panic::resume_unwind(Box::new(damage))
        });
        assert!(matches!(error, Err(Error::Corrupt { table: "leases", what }) if what == "page 9"));
    }

    #[test]
    fn modes_nest_and_end() {
        assert_eq!(mode(), Mode::Fail);
        run(Mode::Throw, "", || {
            assert_eq!(mode(), Mode::Throw);
            run(Mode::Fail, "", || {
                assert_eq!(mode(), Mode::Fail);
                Ok(())
            })?;
            assert_eq!(mode(), Mode::Throw);
            Ok(())
        })
        .unwrap();
        assert_eq!(mode(), Mode::Fail);
    }
}
