//! `defrag`: the page file rebuilt from its rows, in less space.

use std::time::Instant;

use ferrite_storage::page::{self, Options, Sizes};

use super::progress::Progress;
use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::log;
use crate::render::{bytes, quote};

const PLACE: &str = "commands/defrag.rs";

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let data_dir = matches.path("data-dir").unwrap_or_default();
    let failed = |why: String| {
        Failure::new(format!(
            "Failed to defragment etcd data[{}] ({why})",
            data_dir.display()
        ))
    };
    let dir = DataDir::open(matches).map_err(|failure| match failure {
        Failure::Exit { message, .. } => failed(message),
        other => other,
    })?;
    let path = quote(dir.db.as_os_str().as_encoded_bytes());
    let before = page::PageFile::open(&dir.read_only(), &dir.db, Options::default())
        .map_err(|error| failed(error.to_string()))?
        .sizes();
    log::info(
        PLACE,
        "defragmenting",
        &format!("{{\"path\": {path}, {}}}", sizes(&before)),
    );
    let began = Instant::now();
    let mut progress = Progress::new();
    let rebuilt = page::rebuild(&dir.disk, &dir.db, &Options::default(), &mut |done, all| {
        progress.tell("defragmenting", done, all);
    });
    drop(progress);
    let after = rebuilt.map_err(|error| failed(error.to_string()))?.after;
    let diff = |now: u64, then: u64| now.cast_signed().wrapping_sub(then.cast_signed());
    log::info(
        PLACE,
        "finished defragmenting directory",
        &format!(
            "{{\"path\": {path}, \"current-db-size-bytes-diff\": {}, {}, \
             \"current-db-size-in-use-bytes-diff\": {}, \"took\": \"{:?}\"}}",
            diff(after.allocated, before.allocated),
            sizes(&after),
            diff(after.in_use, before.in_use),
            began.elapsed()
        ),
    );
    Ok(())
}

fn sizes(sizes: &Sizes) -> String {
    format!(
        "\"current-db-size-bytes\": {}, \"current-db-size\": \"{}\", \
         \"current-db-size-in-use-bytes\": {}, \"current-db-size-in-use\": \"{}\"",
        sizes.allocated,
        bytes(sizes.allocated),
        sizes.in_use,
        bytes(sizes.in_use)
    )
}
