//! What active alarms refuse at apply, on every member alike (spec cluster.md section 5).

use bytes::Bytes;
use ferrite_api::Error;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, InternalRaftRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
};

use crate::harness::Harness;

fn put() -> PutRequest {
    PutRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    }
}

fn delete() -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    }
}

fn txn(request: Request) -> InternalRaftRequest {
    // In the branch that is not taken: what counts is what the transaction contains.
    let failure = vec![RequestOp {
        request: Some(request),
    }];
    let txn = Some(TxnRequest {
        failure,
        ..Default::default()
    });
    InternalRaftRequest {
        txn,
        ..Default::default()
    }
}

fn alarm(action: AlarmAction, kind: AlarmType) -> InternalRaftRequest {
    let alarm = AlarmRequest {
        action: action as i32,
        member_id: 7,
        alarm: kind as i32,
    };
    InternalRaftRequest {
        alarm: Some(alarm),
        ..Default::default()
    }
}

fn grant(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl: 60 }),
        ..Default::default()
    }
}

/// The verdicts on a put, a Txn with a put, the grant of a lease; a delete, a Txn without a put, a
/// compaction, and the revocation of lease 1, which is there.
fn verdicts(store: &mut Harness) -> [Result<(), Error>; 7] {
    let revision = store.state.store().revision();
    let compaction = Some(CompactionRequest {
        revision,
        physical: false,
    });
    [
        InternalRaftRequest {
            put: Some(put()),
            ..Default::default()
        },
        txn(Request::RequestPut(put())),
        grant(2),
        InternalRaftRequest {
            delete_range: Some(delete()),
            ..Default::default()
        },
        txn(Request::RequestDeleteRange(delete())),
        InternalRaftRequest {
            compaction,
            ..Default::default()
        },
        InternalRaftRequest {
            lease_revoke: Some(LeaseRevokeRequest { id: 1 }),
            ..Default::default()
        },
    ]
    .map(|request| store.apply(request).map(drop))
}

#[test]
fn nospace_refuses_what_needs_space_and_corrupt_every_write() {
    let mut store = Harness::new();
    let no_space = Err(Error::NoSpace);
    store.apply(grant(1)).unwrap();
    store
        .apply(alarm(AlarmAction::Activate, AlarmType::Nospace))
        .unwrap();
    assert_eq!(
        verdicts(&mut store),
        [no_space, no_space, no_space, Ok(()), Ok(()), Ok(()), Ok(())]
    );

    // It is state: it survives a restart, from the page file or from the log.
    store.checkpoint(10);
    store.restart();
    store
        .apply(InternalRaftRequest {
            put: Some(put()),
            ..Default::default()
        })
        .unwrap_err();
    store
        .apply(alarm(AlarmAction::Activate, AlarmType::Corrupt))
        .unwrap();
    store.restart();
    assert_eq!(verdicts(&mut store), [Err(Error::Corrupt); 7]);

    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        store.apply(alarm(AlarmAction::Deactivate, kind)).unwrap();
    }
    store.checkpoint(10);
    store.restart();
    let put = InternalRaftRequest {
        put: Some(put()),
        ..Default::default()
    };
    assert!(store.apply(put).is_ok());
}
