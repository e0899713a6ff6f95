use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::{debug, error, info, trace, warn};

use super::*;
use crate::config::GoDuration;

/// What was written, shared with the layer.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn fixed_clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_136_214_245_000_042)
}

/// The lines that `events` leave, with the line numbers of this file as `N`.
fn logged(level: Level, format: Format, events: impl FnOnce(&Handle)) -> Vec<String> {
    let lines = Lines::default();
    let sink = Sink::Writer(Box::new(lines.clone()));
    let (layer, handle) = ZapLayer::with_sinks(level, format, vec![sink], fixed_clock);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || events(&handle));
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    text.lines().map(hide_line_number).collect()
}

fn hide_line_number(line: &str) -> String {
    let file = "logging/tests.rs:";
    let Some(at) = line.find(file) else {
        return line.to_owned();
    };
    let (head, tail) = line.split_at(at + file.len());
    format!(
        "{head}N{}",
        tail.trim_start_matches(|c: char| c.is_ascii_digit())
    )
}

#[test]
fn json_lines() {
    let lines = logged(Level::Info, Format::Json, |_| {
        info!("ready to serve client requests");
        let failure = std::io::Error::other("disk \"a\"\n is gone");
        warn!(
            name = "m1",
            revision = -7_i64,
            bytes = 9_u64,
            ratio = 0.5,
            nan = f64::NAN,
            on = true,
            took = ?Duration::from_millis(1500),
            interval = %GoDuration::from(Duration::from_secs(90)),
            error = &failure as &(dyn std::error::Error + 'static),
            "listen-peer-urls" = ?vec!["http://a:1", "http://b:1"],
            none = ?Vec::<String>::new(),
            "two words"
        );
        info!(target: "raft", term = 2, "became leader");
        error!("zap.level" = "fatal", "the \\ end");
    });
    assert_eq!(
        lines,
        [
            r#"{"level":"info","ts":"2006-01-02T15:04:05.000042Z","caller":"logging/tests.rs:N","msg":"ready to serve client requests"}"#,
            r#"{"level":"warn","ts":"2006-01-02T15:04:05.000042Z","caller":"logging/tests.rs:N","msg":"two words","name":"m1","revision":-7,"bytes":9,"ratio":0.5,"nan":"NaN","on":true,"took":"1.5s","interval":"1m30s","error":"disk \"a\"\n is gone","listen-peer-urls":["http://a:1","http://b:1"],"none":[]}"#,
            r#"{"level":"info","ts":"2006-01-02T15:04:05.000042Z","logger":"raft","caller":"logging/tests.rs:N","msg":"became leader","term":2}"#,
            r#"{"level":"fatal","ts":"2006-01-02T15:04:05.000042Z","caller":"logging/tests.rs:N","msg":"the \\ end"}"#,
        ]
    );
}

#[test]
fn console_lines() {
    let lines = logged(Level::Debug, Format::Console, |_| {
        debug!("nothing more");
        info!(target: "raft", term = 2, lead = "a", "became leader");
    });
    assert_eq!(
        lines,
        [
            "2006-01-02T15:04:05.000042Z\tdebug\tlogging/tests.rs:N\tnothing more",
            "2006-01-02T15:04:05.000042Z\tinfo\traft\tlogging/tests.rs:N\tbecame leader\t{\"term\": 2, \"lead\": \"a\"}",
        ]
    );
}

fn every_level(_: &Handle) {
    trace!("trace");
    debug!("debug");
    info!("info");
    warn!("warn");
    error!("error");
    error!("zap.level" = "dpanic", "dpanic");
    error!("zap.level" = "panic", "panic");
    error!("zap.level" = "fatal", "fatal");
}

#[test]
fn levels() {
    let names = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];
    for (at, name) in names.iter().enumerate() {
        let level = Level::parse(name).unwrap();
        assert_eq!(Level::parse(&name.to_uppercase()), Some(level));
        let lines = logged(level, Format::Console, every_level);
        let printed: Vec<&str> = lines
            .iter()
            .map(|l| l.rsplit('\t').next().unwrap())
            .collect();
        assert_eq!(printed, names[at..]);
    }
    assert_eq!(Level::parse(""), Some(Level::Info));
    assert_eq!(Level::parse("trace"), None);
    assert_eq!(Level::parse("Info"), None);
}

#[test]
fn the_level_changes_while_running() {
    let lines = logged(Level::Info, Format::Console, |handle| {
        for (level, text) in [
            (Level::Info, "one"),
            (Level::Debug, "two"),
            (Level::Warn, "three"),
            (Level::Debug, "four"),
        ] {
            handle.set_level(level);
            assert_eq!(handle.level(), level);
            debug!("{text}");
        }
    });
    let printed: Vec<&str> = lines
        .iter()
        .map(|l| l.rsplit('\t').next().unwrap())
        .collect();
    assert_eq!(printed, ["two", "four"]);
}

#[test]
fn the_http_stack_is_quiet() {
    let lines = logged(Level::Debug, Format::Console, |_| {
        debug!(target: "h2::codec::framed_read", "frame");
        info!(target: "hyper_util::server", "connection");
        warn!(target: "h2", "trouble");
        info!(target: "h2o", "water");
    });
    let printed: Vec<&str> = lines
        .iter()
        .map(|l| l.rsplit('\t').next().unwrap())
        .collect();
    assert_eq!(printed, ["trouble", "water"]);
}

#[test]
fn storms_are_sampled() {
    let lines = logged(Level::Info, Format::Console, |_| {
        for number in 1..=450 {
            info!(number, "again");
        }
        info!("another");
        warn!("again");
    });
    // 1 to 100, then 200, 300 and 400; another message and another level count for themselves.
    assert_eq!(lines.len(), 100 + 3 + 2);
    assert!(lines[100].ends_with("{\"number\": 200}"), "{}", lines[100]);
    assert!(lines[102].ends_with("{\"number\": 400}"), "{}", lines[102]);
}

#[test]
fn outputs() {
    let parse = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Output::parse_all(&texts)
    };
    assert_eq!(parse(&[]), [Output::Stderr]);
    assert_eq!(parse(&["default"]), [Output::Stderr]);
    assert_eq!(
        parse(&["stdout", "stderr", "stdout"]),
        [Output::Stderr, Output::Stdout]
    );
    assert_eq!(parse(&["stdout", "/dev/null"]), [Output::Discard]);
    assert_eq!(parse(&["a.log"]), [Output::File("a.log".into())]);
}

#[test]
fn files_are_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.log");
    std::fs::write(&path, "before\n").unwrap();
    let options = Options {
        outputs: vec![Output::File(path.clone())],
        ..Options::default()
    };
    let (layer, _) = ZapLayer::new(&options).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        info!("after");
    });
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], "before");
    assert!(lines[1].ends_with(r#""msg":"after"}"#), "{}", lines[1]);

    let options = Options {
        outputs: vec![Output::File(dir.path().join("none/etcd.log"))],
        ..Options::default()
    };
    let Err(error) = ZapLayer::new(&options) else {
        panic!("a file in a missing directory was opened");
    };
    assert!(
        error.to_string().starts_with("couldn't open sink "),
        "{error}"
    );
}
