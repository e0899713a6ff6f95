//! The transaction syntax, row by row of the specification's table.

use super::*;
use crate::context::tests::captured;

/// Exit code and message of a refusal.
fn refusal(failure: Failure) -> (u8, String) {
    match failure {
        Failure::Exit { code, message } => (code.code(), message.unwrap_or_default()),
        Failure::Output(error) => panic!("{error}"),
    }
}

fn compare_refused(line: &str) -> (u8, String) {
    match parse_compare(line.as_bytes()) {
        Ok(compare) => panic!("{line}: {compare:?}"),
        Err(failure) => refusal(failure),
    }
}

fn operation(line: &str) -> Result<TxnOp, Failure> {
    let (mut context, ..) = captured("");
    parse_operation(&mut context, line.as_bytes())
}

fn operation_refused(line: &str) -> (u8, String) {
    match operation(line) {
        Ok(op) => panic!("{line}: {op:?}"),
        Err(failure) => refusal(failure),
    }
}

#[test]
fn compares_of_every_target() {
    let check = |line: &str, expected: Compare| {
        let compare = parse_compare(line.as_bytes()).expect(line);
        assert_eq!(format!("{compare:?}"), format!("{expected:?}"), "{line}");
    };
    check(
        r#"ver("a") = "1""#,
        Compare::version("a", CompareOp::Equal, 1),
    );
    check(
        r#"version("a") != "-1""#,
        Compare::version("a", CompareOp::NotEqual, -1),
    );
    check(
        r#"c("a") > "2""#,
        Compare::create_revision("a", CompareOp::Greater, 2),
    );
    check(
        r#"create("a") < "2""#,
        Compare::create_revision("a", CompareOp::Less, 2),
    );
    check(
        r#"m("a") = "3""#,
        Compare::mod_revision("a", CompareOp::Equal, 3),
    );
    check(
        r#"mod( "a")  =   "3" more"#,
        Compare::mod_revision("a", CompareOp::Equal, 3),
    );
    check(
        r#"val("\x6b") = "\n""#,
        Compare::value("k", CompareOp::Equal, "\n"),
    );
    check(
        "value(`a b`) = `\\n`",
        Compare::value("a b", CompareOp::Equal, "\\n"),
    );
    check(
        r#"lease("a") = "2a""#,
        Compare::lease("a", CompareOp::Equal, LeaseId::new(42)),
    );
}

#[test]
fn malformed_compares_say_what_was_read() {
    for (line, message) in [
        ("mod \"a\"", "malformed comparison: mod \"a\""),
        (
            r#"mod("a")>"0""#,
            r#"malformed comparison: mod("a")>"0"; got mod("a")  """#,
        ),
        (
            r#"mod("a")> "0""#,
            r#"malformed comparison: mod("a")> "0"; got mod("a")  """#,
        ),
        (
            r#"mod("a") >"0""#,
            r#"malformed comparison: mod("a") >"0"; got mod("a") >"0" """#,
        ),
        (
            r#"mod(a) > "0""#,
            r#"malformed comparison: mod(a) > "0"; got mod("")  """#,
        ),
        (
            r#"mod("a") > 0"#,
            r#"malformed comparison: mod("a") > 0; got mod("a") > """#,
        ),
        (
            r#"zz("a") = "1""#,
            r#"malformed comparison: zz("a") = "1" (unknown target zz)"#,
        ),
        (
            r#"mod("a") = "x""#,
            r#"invalid txn compare request: mod("a") = "x""#,
        ),
        (
            r#"ver("a") = "99999999999999999999""#,
            r#"invalid txn compare request: ver("a") = "99999999999999999999""#,
        ),
        (
            r#"mod("a") >= "1""#,
            r#"malformed comparison: mod("a") >= "1" (unknown operator >=)"#,
        ),
        (
            r#"lease("a") = "xyz""#,
            r#"invalid txn compare request: lease("a") = "xyz""#,
        ),
    ] {
        assert_eq!(compare_refused(line), (3, message.to_owned()));
    }
}

#[test]
fn operations_are_command_lines_with_quotes() {
    let check = |line: &str, expected: TxnOp| {
        let op = operation(line).unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
        assert_eq!(format!("{op:?}"), format!("{expected:?}"), "{line}");
    };
    let put = |key: &'static str, value: &'static str| {
        TxnOp::put(key, value, ferrite_client::PutOptions::new())
    };
    check("put k v", put("k", "v"));
    check("p k v", put("k", "v"));
    check(r#"put "a\tb" 'c "d"'"#, put("a\tb", "c \"d\""));
    check("put k \"unbalanced v", put("k", "unbalanced"));
    check("put -- -k -v", put("-k", "-v"));
    check("put k it's", put("k", "it's"));
    check(
        "get k --prefix --limit 2",
        TxnOp::get("k", ferrite_client::GetOptions::new().prefix().limit(2)),
    );
    check(
        "del a b --range --prev-kv",
        TxnOp::delete(
            "a",
            ferrite_client::DeleteOptions::new().range("b").prev_kv(),
        ),
    );
}

#[test]
fn flags_do_not_carry_over_to_the_next_line() {
    operation("get k --prefix").expect("reads");
    let op = operation("get k").expect("reads");
    let plain = TxnOp::get("k", ferrite_client::GetOptions::new());
    assert_eq!(format!("{op:?}"), format!("{plain:?}"));
}

#[test]
fn refused_operations() {
    for (line, code, message) in [
        ("put", 3, "invalid txn compare request: put"),
        ("foo bar", 3, "invalid txn request: foo bar"),
        ("put k v --bogus", 3, "invalid txn request: put k v --bogus"),
        ("get k -h", 3, "invalid txn request: get k -h"),
        (r#"put "a\q" c"#, 3, "invalid syntax"),
        (
            "get k --prefix --from-key",
            128,
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ),
        ("get k --order up", 4, "bad sort order up"),
        (
            "put k",
            128,
            "put command needs 1 argument and input from stdin or 2 arguments",
        ),
        (
            "put k v --lease zz",
            128,
            "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex",
        ),
        (
            "del a b c",
            128,
            "del command needs one argument as key and an optional argument as range_end",
        ),
    ] {
        assert_eq!(
            operation_refused(line),
            (code, message.to_owned()),
            "{line}"
        );
    }
}

#[test]
fn a_bad_flag_shows_the_commands_usage() {
    let (mut context, _, err) = captured("");
    parse_operation(&mut context, b"del k --bogus").expect_err("refused");
    let text = String::from_utf8(err.bytes()).expect("text");
    assert!(
        text.starts_with("Usage:\n   del [options] <key> [range_end] [flags]\n"),
        "{text}"
    );
}

#[test]
fn lists_end_at_an_empty_line_and_input_must_not_end_before() {
    let lines = |input: &str| {
        let (mut context, ..) = captured(input);
        let mut lines = Vec::new();
        loop {
            match next_line(&mut context) {
                Ok(Some(line)) => lines.push(String::from_utf8(line).expect("text")),
                Ok(None) => return (lines, None),
                Err(failure) => return (lines, Some(refusal(failure))),
            }
        }
    };
    let owned = |lines: &[&str]| -> Vec<String> { lines.iter().map(|&line| line.into()).collect() };
    let eof = Some((3, "EOF".to_owned()));
    assert_eq!(lines("a\n  b \r\n\nc\n"), (owned(&["a", "b"]), None));
    assert_eq!(lines("a\n \t \n"), (owned(&["a"]), None));
    assert_eq!(lines("a\nb"), (owned(&["a"]), eof.clone()));
    assert_eq!(lines(""), (owned(&[]), eof));
}

#[test]
fn arbitrary_bytes_never_panic() {
    for seed in 0u32..2000 {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let line: Vec<u8> = (0..seed % 40)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let interesting = b"\"'`\\()<=>-put get\xff\xc3\xa4 ";
                interesting[(state >> 16) as usize % interesting.len()]
            })
            .collect();
        let (mut context, ..) = captured("");
        let _ = parse_compare(&line);
        let _ = parse_operation(&mut context, &line);
    }
}

#[test]
fn whole_transactions_keep_their_order() {
    let txn = Txn::new()
        .when([parse_compare(br#"mod("a") > "0""#).expect("reads")])
        .and_then([operation("put a 1").expect("reads")])
        .or_else([operation("get a").expect("reads")]);
    let text = format!("{txn:?}");
    let positions: Vec<_> = ["ModRevision", "RequestPut", "RequestRange"]
        .iter()
        .map(|part| text.find(part).expect("present"))
        .collect();
    assert!(positions.is_sorted(), "{text}");
}
