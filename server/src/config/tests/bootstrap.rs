//! The first members: names, their URLs, and addresses that resolve alike.

use super::*;

fn resolver(host: &str) -> std::io::Result<Vec<IpAddr>> {
    match host {
        "a.example" => Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]),
        "b.example" => Ok(vec![Ipv4Addr::new(10, 0, 0, 2).into()]),
        "empty.example" => Ok(Vec::new()),
        _ => Err(std::io::Error::other("server misbehaving")),
    }
}

fn bootstrap(args: &[&str]) -> Result<String, String> {
    let config = config(args);
    let text = |error: Error| error.to_string();
    let cluster = config.named_cluster().map_err(text)?;
    let checked = match config.new_cluster {
        true => config.check_new_cluster(&cluster, &resolver),
        false => config.check_existing_cluster(&cluster),
    };
    checked.map(|()| cluster.to_string()).map_err(text)
}

#[test]
fn bootstrap_of_one_member() {
    assert_eq!(bootstrap(&[]).unwrap(), "default=http://localhost:2380");
    assert_eq!(
        bootstrap(&[
            "--name=a",
            "--initial-advertise-peer-urls=http://x:1,http://y:1"
        ])
        .unwrap(),
        "a=http://x:1,a=http://y:1"
    );
    // The same place under two names.
    let advertised = "--initial-advertise-peer-urls=http://10.0.0.1:1";
    let cluster = "--initial-cluster=default=http://a.example:1";
    assert_eq!(
        bootstrap(&[advertised, cluster]).unwrap(),
        "default=http://a.example:1"
    );
}

#[test]
fn bootstrap_errors() {
    for (args, error) in [
        (
            &["--initial-cluster=default=a"][..],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: a"
                .to_owned(),
        ),
        (
            &["--initial-cluster=b=http://a:1"],
            "couldn't find local name \"default\" in the initial cluster configuration".to_owned(),
        ),
        (
            &["--initial-cluster="],
            "couldn't find local name \"default\" in the initial cluster configuration".to_owned(),
        ),
        (
            &["--initial-cluster-state=existing", "--initial-cluster=b=http://a:1"],
            "couldn't find local name \"default\" in the initial cluster configuration".to_owned(),
        ),
        (
            &["--initial-cluster-state=existing", "--initial-cluster=default=http://a:1,b=http://a:1"],
            "initial cluster b=http://a:1,default=http://a:1 has duplicate url".to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://nowhere.example:1,default=http://nowhere.example:1",
                "--initial-advertise-peer-urls=http://nowhere.example:1",
            ],
            "failed to resolve http://nowhere.example:1 to match --initial-cluster=default=http://nowhere.example:1 (len([\"http://nowhere.example:1\"]) != len([\"http://nowhere.example:1\" \"http://nowhere.example:1\"]))".to_owned(),
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
                .to_owned(),
        ),
        (
            &["--initial-advertise-peer-urls=http://127.0.0.1:2380"],
            "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2380 (resolved urls: \"http://127.0.0.1:2380\" != \"http://localhost:2380\")"
                .to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://a.example:1",
                "--initial-advertise-peer-urls=http://b.example:1",
            ],
            "--initial-cluster has default=http://a.example:1 but missing from --initial-advertise-peer-urls=http://b.example:1 (resolved urls: \"http://10.0.0.2:1\" != \"http://10.0.0.1:1\")"
                .to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://a:1,default=http://b:1",
                "--initial-advertise-peer-urls=http://a:1",
            ],
            "--initial-cluster has default=http://b:1 but missing from --initial-advertise-peer-urls=http://a:1 (len([\"http://a:1\"]) != len([\"http://a:1\" \"http://b:1\"]))"
                .to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://a:1",
                "--initial-advertise-peer-urls=http://a:1,http://b:1",
            ],
            "--initial-advertise-peer-urls has http://b:1 but missing from --initial-cluster=default=http://a:1,default=http://b:1"
                .to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://nowhere.example:1",
                "--initial-advertise-peer-urls=http://a.example:1",
            ],
            "--initial-cluster has default=http://nowhere.example:1 but missing from --initial-advertise-peer-urls=http://a.example:1 (failed to resolve \"http://nowhere.example:1\" (lookup nowhere.example: server misbehaving))"
                .to_owned(),
        ),
        (
            &[
                "--initial-cluster=default=http://empty.example:1",
                "--initial-advertise-peer-urls=http://a.example:1",
            ],
            "--initial-cluster has default=http://empty.example:1 but missing from --initial-advertise-peer-urls=http://a.example:1 (failed to resolve \"http://empty.example:1\" (lookup empty.example: no such host))"
                .to_owned(),
        ),
    ] {
        assert_eq!(bootstrap(args).unwrap_err(), error, "{args:?}");
    }
}
