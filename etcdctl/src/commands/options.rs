//! `options`: the flags that every command takes.

use crate::cli::{Matches, help};
use crate::context::Context;
use crate::failure::Failure;
use crate::tree::GLOBAL;

pub(crate) fn run(context: &mut Context, _: &Matches) -> Result<(), Failure> {
    let flags: Vec<_> = GLOBAL.iter().collect();
    let table = help::flag_table(&flags, None);
    let intro = "The following options can be passed to any command:";
    write!(context.out(), "{intro}\n\n{table}")?;
    Ok(())
}
