//! The reader against a small tree.

use super::*;

fn nothing(_: &mut Context, _: &Matches) -> Result<(), Failure> {
    Ok(())
}

static ROOT: Command = Command {
    name: "tool",
    usage: "tool",
    short: "A tool.",
    persistent: &[
        Flag::new("write-out", Kind::Text("simple"), "format")
            .short('w')
            .hidden(),
        Flag::new("hex", Kind::Switch(false), "hex")
            .short('x')
            .hidden(),
        Flag::new("wait", Kind::Duration(5_000_000_000), "time").hidden(),
        Flag::new("endpoints", Kind::List("a:1"), "where").hidden(),
    ],
    commands: &[
        Command {
            name: "get",
            usage: "get [options] <key>",
            short: "Reads",
            group: "Keys",
            flags: &[
                Flag::new("limit", Kind::Int(0), "most"),
                Flag::new("mode", Kind::Text("l"), "how"),
                Flag::new("on", Kind::Switch(true), "on"),
            ],
            action: Action::Run(nothing),
            ..Command::EMPTY
        },
        Command {
            name: "group",
            usage: "group <subcommand>",
            short: "Things",
            group: "Others",
            persistent: &[Flag::new("all", Kind::Switch(false), "all of them")],
            commands: &[Command {
                name: "list",
                usage: "list",
                short: "Lists",
                action: Action::Run(nothing),
                ..Command::EMPTY
            }],
            ..Command::EMPTY
        },
        named("compact"),
        named("complete"),
    ],
    ..Command::EMPTY
};

const fn named(name: &'static str) -> Command {
    Command {
        name,
        short: "Does it",
        group: "Others",
        action: Action::Run(nothing),
        ..Command::EMPTY
    }
}

fn args(line: &str) -> Vec<Text> {
    line.split_whitespace()
        .map(|arg| arg.as_bytes().to_vec())
        .collect()
}

fn run(line: &str) -> Matches {
    match parse(&ROOT, &args(line)) {
        Parsed::Run(matches) => matches,
        Parsed::UnknownCommand(message) | Parsed::BadFlags { message, .. } => {
            panic!("{line}: {message}")
        }
        Parsed::Help(_) => panic!("{line}: not run"),
    }
}

fn refused(line: &str) -> String {
    match parse(&ROOT, &args(line)) {
        Parsed::UnknownCommand(message) | Parsed::BadFlags { message, .. } => message,
        _ => panic!("{line}: not refused"),
    }
}

fn help_of(line: &str) -> String {
    match parse(&ROOT, &args(line)) {
        Parsed::Help(chain) => chain.path(),
        _ => panic!("{line}: no help"),
    }
}

#[test]
fn flags_and_arguments_interleave() {
    let check = |line: &str, positionals: &str| {
        let matches = run(line);
        assert_eq!(matches.chain.path(), "tool get", "{line}");
        assert_eq!(matches.args, args(positionals), "{line}");
        assert_eq!(matches.flags.int("limit"), 3, "{line}");
    };
    check("get a --limit 3 b", "a b");
    check("--hex get --limit=3 a b", "a b");
    check("-w json get a b --limit=0x3", "a b");
    check("--limit 3 get a b", "a b");
    check("get --limit 3 -- a --b", "a --b");
    check("get --limit 3 - -- -- a", "- -- a");
}

#[test]
fn a_double_dash_hides_the_command() {
    assert_eq!(help_of("-- get a"), "tool");
}

#[test]
fn short_flags_in_every_spelling() {
    for line in [
        "get -w json",
        "get -wjson",
        "get -w=json",
        "get -xwjson",
        "get -xw json",
    ] {
        assert_eq!(run(line).flags.text("write-out"), "json", "{line}");
    }
    assert!(run("get -xwjson").flags.switch("hex"));
    assert!(!run("get -x=false").flags.switch("hex"));
}

#[test]
fn lists_replace_the_default_and_then_grow() {
    assert_eq!(run("get").flags.list("endpoints"), ["a:1"]);
    let flags = run("get --endpoints b:1,c:1 --endpoints=d:1").flags;
    assert_eq!(flags.list("endpoints"), ["b:1", "c:1", "d:1"]);
}

#[test]
fn unique_prefixes_name_commands() {
    assert_eq!(run("ge a").chain.path(), "tool get");
    assert_eq!(run("gr li").chain.path(), "tool group list");
}

#[test]
fn an_ambiguous_prefix_is_unknown() {
    assert!(refused("g a").starts_with("unknown command \"g\" for \"tool\""));
    assert_eq!(
        refused("comp"),
        "unknown command \"comp\" for \"tool\"\n\nDid you mean this?\n\tcompact\n\tcomplete\n"
    );
    assert_eq!(run("compa").chain.path(), "tool compact");
}

#[test]
fn suggestions_are_near_or_longer_names() {
    assert_eq!(
        refused("gett"),
        "unknown command \"gett\" for \"tool\"\n\nDid you mean this?\n\tget\n"
    );
    assert_eq!(refused("zzzzzz"), "unknown command \"zzzzzz\" for \"tool\"");
}

#[test]
fn groups_show_help_whatever_follows() {
    assert_eq!(help_of(""), "tool");
    assert_eq!(help_of("group"), "tool group");
    assert_eq!(help_of("group bogus"), "tool group");
    assert_eq!(help_of("get -h"), "tool get");
    assert_eq!(help_of("--help get"), "tool get");
    assert_eq!(help_of("get a --help"), "tool get");
}

#[test]
fn errors_are_pflags() {
    for (line, message) in [
        ("get --bogus", "unknown flag: --bogus"),
        ("get --bogus=1", "unknown flag: --bogus"),
        ("get ---a", "bad flag syntax: ---a"),
        ("get --=a", "bad flag syntax: --=a"),
        ("get -z", "unknown shorthand flag: 'z' in -z"),
        ("get -xzab", "unknown shorthand flag: 'z' in -zab"),
        ("get -w", "flag needs an argument: 'w' in -w"),
        ("get --limit", "flag needs an argument: --limit"),
        (
            "get --limit x",
            "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "get --wait=5",
            "invalid argument \"5\" for \"--wait\" flag: time: missing unit in duration \"5\"",
        ),
        (
            "get -x=maybe",
            "invalid argument \"maybe\" for \"-x, --hex\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
    ] {
        assert_eq!(refused(line), message, "{line}");
    }
}

#[test]
fn arguments_need_not_be_text() {
    let Parsed::Run(matches) = parse(&ROOT, &[b"get".to_vec(), b"\xff\x00".to_vec()]) else {
        panic!("runs");
    };
    assert_eq!(matches.args, [b"\xff\x00".to_vec()]);
    let bytes = vec![b"get".to_vec(), b"--\xff".to_vec(), b"-\xff".to_vec()];
    assert!(matches!(parse(&ROOT, &bytes), Parsed::BadFlags { .. }));
}

#[test]
fn help_texts() {
    let Parsed::Help(root) = parse(&ROOT, &[]) else {
        panic!("help")
    };
    assert_eq!(
        help::help(&root),
        "A tool.\n\nUsage:\n  tool [command]\n\nKeys\n  get         Reads\n\nOthers\n  \
         compact     Does it\n  complete    Does it\n  group       Things\n\n\
         Use \"tool [command] --help\" for more information about a command.\n"
    );
    let Parsed::Help(get) = parse(&ROOT, &args("get -h")) else {
        panic!("help")
    };
    assert_eq!(
        help::help(&get),
        "Reads\n\nUsage:\n  tool get [options] <key> [flags]\n\nFlags:\n  \
         -h, --help          help for get\n      \
             --limit int     most\n      \
             --mode string   how (default \"l\")\n      \
             --on            on (default true)\n"
    );
    let Parsed::Help(list) = parse(&ROOT, &args("group list -h")) else {
        panic!("help")
    };
    assert_eq!(
        help::help(&list),
        "Lists\n\nUsage:\n  tool group list [flags]\n\nFlags:\n  -h, --help   help for list\n\n\
         Global Flags:\n      --all   all of them\n"
    );
}
