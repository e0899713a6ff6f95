//! Generated messages and services, one module per protobuf package.
//!
//! `bytes` fields are [`bytes::Bytes`]: decoding from a `Bytes` buffer copies no key and no value.

#![allow(
    clippy::all,
    missing_docs,
    unreachable_pub,
    elided_lifetimes_in_paths,
    rustdoc::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// All of it as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Key-value pairs and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles, permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Membership requests in the raft log.
pub mod membershippb {
    tonic::include_proto!("membershippb");
}

/// Stored leases.
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

/// The client API and the raft log payload.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The Lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The Election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The standard gRPC health service (`grpc.health.v1`).
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
