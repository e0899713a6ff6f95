//! `docs/coverage.md` says which test covers which row; here it is held to that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// File and name of each test that the table names.
fn named() -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(root().join("docs/coverage.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(place, name)| *name != "name" && !place.is_empty())
        .map(|(place, name)| {
            let file = if place.contains('/') {
                place.to_owned()
            } else {
                format!("robustness/tests/spec/{place}.rs")
            };
            (file, name.to_owned())
        })
        .collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let named = named();
    assert!(!named.is_empty());
    for (file, name) in named {
        let text = fs::read_to_string(root().join(&file)).expect(&file);
        assert!(
            text.contains(&format!("fn {name}(")),
            "{file} has no {name}"
        );
    }
}

/// Those whose names begin with a section of validation.md, errors.md or, on the gateway, wire.md.
#[test]
fn every_test_of_a_row_is_in_the_table() {
    let named = named();
    let mut rows = 0;
    for entry in fs::read_dir(root().join("robustness/tests/spec")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let file = format!("robustness/tests/spec/{file}");
        if !file.ends_with(".rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for line in text.lines() {
            let Some(name) = line.strip_prefix("async fn ") else {
                continue;
            };
            let name = name.split('(').next().unwrap();
            let row = name.strip_prefix(['s', 'e', 'g']);
            if row.is_some_and(|row| row.starts_with(|first: char| first.is_ascii_digit())) {
                rows += 1;
                let entry = (file.clone(), name.to_owned());
                assert!(named.contains(&entry), "{file}: {name} is in no row");
            }
        }
    }
    assert!(rows > 0);
}
