//! Compiles the .proto files with a pure Rust compiler: no protoc is needed to build Ferrite.

use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "mvccpb/kv.proto",
        "authpb/auth.proto",
        "membershippb/membership.proto",
        "leasepb/lease.proto",
        "etcdserverpb/rpc.proto",
        "etcdserverpb/raft_internal.proto",
        "v3lockpb/v3lock.proto",
        "v3electionpb/v3election.proto",
        "health/health.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    // For those who learn at run time what the messages look like. Comments are not part of that.
    let mut described = descriptors.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        described.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        // Keys and values stay slices of the buffer that came from the socket or the log.
        .bytes(".")
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
