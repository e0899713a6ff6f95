//! Users, roles and permissions at apply: who may do what, what changes count, and that all of it
//! survives restarts and snapshots (spec auth.md).

use bytes::Bytes;
use ferrite_api::Error;
use ferrite_api::pb::authpb::permission::Type;
use ferrite_api::pb::authpb::{Permission, UserAddOptions};
use ferrite_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_api::pb::etcdserverpb::*;
use ferrite_storage::apply::outcome::{AuthOutcome, Response};
use ferrite_storage::auth::{Access, Auth, Identity, Password, ROOT};
use proptest::prelude::*;

use crate::harness::Harness;

type Answer = Result<Response, Error>;

/// A request with this in it.
macro_rules! request {
    ($field:ident: $value:expr) => {
        InternalRaftRequest {
            $field: Some($value),
            ..Default::default()
        }
    };
}

fn user_add(name: &str) -> InternalRaftRequest {
    request!(auth_user_add: AuthUserAddRequest {
        name: name.to_owned(),
        // "hash" in base64.
        hashed_password: "aGFzaA==".to_owned(),
        ..Default::default()
    })
}

fn role_add(name: &str) -> InternalRaftRequest {
    request!(auth_role_add: AuthRoleAddRequest { name: name.to_owned() })
}

fn grant_role(user: &str, role: &str) -> InternalRaftRequest {
    request!(auth_user_grant_role: AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    })
}

fn revoke_role(name: &str, role: &str) -> InternalRaftRequest {
    request!(auth_user_revoke_role: AuthUserRevokeRoleRequest {
        name: name.to_owned(),
        role: role.to_owned(),
    })
}

fn grant(role: &str, kind: Type, key: &str, range_end: &str) -> InternalRaftRequest {
    request!(auth_role_grant_permission: AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: kind as i32,
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
        }),
    })
}

fn revoke(role: &str, key: &str, range_end: &str) -> InternalRaftRequest {
    request!(auth_role_revoke_permission: AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    })
}

fn role_delete(role: &str) -> InternalRaftRequest {
    request!(auth_role_delete: AuthRoleDeleteRequest { role: role.to_owned() })
}

fn user_delete(name: &str) -> InternalRaftRequest {
    request!(auth_user_delete: AuthUserDeleteRequest { name: name.to_owned() })
}

fn enable() -> InternalRaftRequest {
    request!(auth_enable: AuthEnableRequest {})
}

fn disable() -> InternalRaftRequest {
    request!(auth_disable: AuthDisableRequest {})
}

fn put(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

impl Harness {
    fn auth_revision(&self) -> u64 {
        self.state.auth().revision()
    }

    /// By a user who is known as of now.
    fn by(&mut self, user: &str, request: InternalRaftRequest) -> Answer {
        let revision = self.auth_revision();
        self.apply_as(user, revision, request)
    }

    /// By root, without fail.
    fn root(&mut self, request: InternalRaftRequest) -> Response {
        self.by(ROOT, request).unwrap()
    }
}

/// A store with authentication on, a user `u`, and a role `r` of it without permissions.
fn enabled() -> Harness {
    let mut harness = Harness::new();
    for request in [
        user_add(ROOT),
        grant_role(ROOT, ROOT),
        user_add("u"),
        role_add("r"),
        grant_role("u", "r"),
        enable(),
    ] {
        harness.apply(request).unwrap();
    }
    harness
}

fn error(answer: Answer) -> Error {
    answer.unwrap_err()
}

#[test]
fn s9_only_changes_are_counted() {
    let mut harness = Harness::new();
    assert_eq!(harness.auth_revision(), 1, "a new store");
    let mut expected = 1;
    for (request, counts) in [
        (user_add(ROOT), true),
        (user_add(ROOT), false),
        (role_add("r"), true),
        (role_add("r"), false),
        (role_add(""), false),
        (grant_role(ROOT, ROOT), true),
        (grant_role(ROOT, ROOT), false),
        (grant_role(ROOT, "no role"), false),
        (grant("r", Type::Read, "a", "b"), true),
        (grant("r", Type::Read, "a", "b"), true),
        (grant("r", Type::Read, "b", "a"), false),
        (revoke("r", "a", ""), false),
        (revoke("r", "a", "b"), true),
        (enable(), false),
        (enable(), false),
        (disable(), true),
        (disable(), false),
        (revoke_role(ROOT, ROOT), true),
        (role_delete("r"), true),
        (user_delete(ROOT), true),
    ] {
        let what = format!("{request:?}");
        let _answer = harness.by(ROOT, request);
        expected += u64::from(counts);
        assert_eq!(harness.auth_revision(), expected, "after {what}");
    }
}

#[test]
fn s9_root_must_be_there_and_stays_while_authentication_is_on() {
    let mut harness = Harness::new();
    assert_eq!(error(harness.apply(enable())), Error::RootUserNotExist);
    harness.apply(user_add(ROOT)).unwrap();
    assert_eq!(error(harness.apply(enable())), Error::RootRoleNotExist);
    // The role itself need not exist.
    harness.apply(grant_role(ROOT, ROOT)).unwrap();
    harness.apply(enable()).unwrap();
    harness.root(role_add(ROOT));
    for protected in [
        user_delete(ROOT),
        role_delete(ROOT),
        revoke_role(ROOT, ROOT),
    ] {
        assert_eq!(error(harness.by(ROOT, protected)), Error::InvalidAuthMgmt);
    }
    harness.root(disable());
    for protected in [
        revoke_role(ROOT, ROOT),
        role_delete(ROOT),
        user_delete(ROOT),
    ] {
        harness.apply(protected).unwrap();
    }
}

#[test]
fn a1_4_a_user_may_do_what_its_roles_permit() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Readwrite, "a", "c"));
    harness.root(grant("r", Type::Read, "x", ""));
    let put_of = |key: &str| request!(put: put(key));
    harness.by("u", put_of("b")).unwrap();
    assert_eq!(error(harness.by("u", put_of("c"))), Error::PermissionDenied);
    assert_eq!(error(harness.by("u", put_of("x"))), Error::PermissionDenied);
    assert_eq!(
        error(harness.by("nobody", put_of("b"))),
        Error::PermissionDenied
    );
    assert_eq!(error(harness.apply(put_of("b"))), Error::UserEmpty);
    // What was known before a change counts no more; who asks is looked at after that.
    let before = harness.auth_revision() - 1;
    for user in ["u", "nobody", ROOT] {
        let old = harness.apply_as(user, before, put_of("b"));
        assert_eq!(error(old), Error::AuthOldRevision, "{user}");
    }
    harness.root(revoke_role("u", "r"));
    assert_eq!(error(harness.by("u", put_of("b"))), Error::PermissionDenied);
    let revision = harness.state.store().revision();
    assert_eq!(revision, 2, "what is refused changes nothing");
}

#[test]
fn a1_4_a_role_that_is_deleted_and_made_again_starts_empty() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Readwrite, "a", ""));
    harness.by("u", request!(put: put("a"))).unwrap();
    harness.root(role_delete("r"));
    harness.root(role_add("r"));
    harness.root(grant_role("u", "r"));
    let answer = harness.by("u", request!(put: put("a")));
    assert_eq!(error(answer), Error::PermissionDenied);
}

#[test]
fn s4_3_8_to_10_a_put_needs_its_key_its_lease_and_the_previous_pair() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Write, "a", ""));
    for id in [1, 2] {
        let lease = LeaseGrantRequest { id, ttl: 60 };
        harness.by("u", request!(lease_grant: lease)).unwrap();
    }
    let with = |lease, prev_kv| request!(put: PutRequest { lease, prev_kv, ..put("a") });
    harness.by("u", with(1, false)).unwrap();
    harness.by("u", with(0, false)).unwrap();
    harness.root(request!(put: PutRequest { lease: 1, ..put("secret") }));
    assert_eq!(
        error(harness.by("u", with(1, false))),
        Error::PermissionDenied
    );
    harness.by("u", with(2, false)).unwrap();
    assert_eq!(
        error(harness.by("u", with(2, true))),
        Error::PermissionDenied
    );
    // A lease that does not exist has no keys, and is no lease.
    assert_eq!(
        error(harness.by("u", with(9, true))),
        Error::PermissionDenied
    );
    assert_eq!(error(harness.by("u", with(9, false))), Error::LeaseNotFound);
    let end = |id| request!(lease_revoke: LeaseRevokeRequest { id });
    assert_eq!(error(harness.by("u", end(1))), Error::PermissionDenied);
    assert_eq!(error(harness.by("u", end(9))), Error::LeaseNotFound);
    harness.by("u", end(2)).unwrap();
    // Root needs no permissions, and the members' own revocations are root's.
    harness.apply_as(ROOT, 0, end(1)).unwrap();
}

#[test]
fn s4_4_4_and_5_a_delete_needs_its_range_and_the_previous_pairs() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Write, "a", "c"));
    harness.root(grant("r", Type::Read, "a", "b"));
    let delete = |key: &str, end: &str, prev_kv| {
        request!(delete_range: DeleteRangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            prev_kv,
        })
    };
    harness.by("u", delete("a", "c", false)).unwrap();
    harness.by("u", delete("a", "b", true)).unwrap();
    for denied in [
        delete("a", "c", true),
        delete("a", "d", false),
        delete("a", "\0", false),
    ] {
        assert_eq!(error(harness.by("u", denied)), Error::PermissionDenied);
    }
}

#[test]
fn s4_5_5_both_branches_of_a_txn_count() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Readwrite, "a", ""));
    let ops = |requests: &[Request]| {
        let op = |request: &Request| RequestOp {
            request: Some(request.clone()),
        };
        requests.iter().map(op).collect::<Vec<_>>()
    };
    let compare = |key: &str| Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let range = |key: &str| {
        Request::RequestRange(RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        })
    };
    let write = |key: &str| Request::RequestPut(put(key));
    let txn = |compares: &[&str], success: &[Request], failure: &[Request]| TxnRequest {
        compare: compares.iter().map(|key| compare(key)).collect(),
        success: ops(success),
        failure: ops(failure),
    };
    let nested = |inner| Request::RequestTxn(inner);
    let allowed = txn(&["a"], &[write("a")], &[range("a")]);
    harness.by("u", request!(txn: allowed)).unwrap();
    for denied in [
        txn(&["b"], &[write("a")], &[]),
        txn(&["a"], &[write("b")], &[]),
        txn(&["a"], &[write("a")], &[range("b")]),
        txn(&[], &[], &[write("b")]),
        txn(&[], &[nested(txn(&["b"], &[], &[write("a")]))], &[]),
        txn(&[], &[write("a")], &[nested(txn(&[], &[], &[write("b")]))]),
    ] {
        let answer = harness.by("u", request!(txn: denied.clone()));
        assert_eq!(error(answer), Error::PermissionDenied, "{denied:?}");
    }
}

#[test]
fn s9_who_may_see_users_and_roles() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Read, "a", ""));
    harness.root(role_add("other"));
    harness.root(role_add(ROOT));
    let user = |name: &str| request!(auth_user_get: AuthUserGetRequest { name: name.to_owned() });
    let role = |role: &str| request!(auth_role_get: AuthRoleGetRequest { role: role.to_owned() });
    let roles = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let found = |answer: Response| match answer {
        Response::Auth(outcome) => outcome,
        other => panic!("{other:?}"),
    };
    let own = found(harness.by("u", user("u")).unwrap());
    assert_eq!(own, AuthOutcome::User(roles(&["r"])));
    assert_eq!(error(harness.by("u", user(ROOT))), Error::PermissionDenied);
    assert_eq!(error(harness.by(ROOT, user("nobody"))), Error::UserNotFound);
    assert_eq!(error(harness.apply(user("u"))), Error::UserEmpty);
    // Nobody asks for nobody.
    assert_eq!(error(harness.apply(user(""))), Error::UserNotFound);
    let AuthOutcome::Role(permissions) = found(harness.by("u", role("r")).unwrap()) else {
        panic!("no role");
    };
    assert_eq!(permissions.len(), 1);
    assert_eq!(
        error(harness.by("u", role("other"))),
        Error::PermissionDenied
    );
    assert_eq!(
        error(harness.by(ROOT, role("nothing"))),
        Error::RoleNotFound
    );
    let AuthOutcome::Role(all) = found(harness.root(role(ROOT))) else {
        panic!("no role");
    };
    let everything = Permission {
        perm_type: Type::Readwrite as i32,
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    };
    assert_eq!(all, [everything]);
    let users = request!(auth_user_list: AuthUserListRequest {});
    assert_eq!(
        error(harness.by("u", users.clone())),
        Error::PermissionDenied
    );
    assert_eq!(
        found(harness.root(users)),
        AuthOutcome::Users(roles(&[ROOT, "u"]))
    );
    let list = request!(auth_role_list: AuthRoleListRequest {});
    let all = AuthOutcome::Roles(roles(&["other", "r", ROOT]));
    assert_eq!(found(harness.root(list)), all);
    let status = request!(auth_status: AuthStatusRequest {});
    let status = found(harness.apply(status).unwrap());
    let revision = harness.auth_revision();
    let expected = AuthOutcome::Status {
        enabled: true,
        revision,
    };
    assert_eq!(status, expected);
}

#[test]
fn s9_who_gets_a_token() {
    let authenticate = |name: &str| {
        request!(authenticate: InternalAuthenticateRequest {
            name: name.to_owned(),
            simple_token: "prefix".to_owned(),
            ..Default::default()
        })
    };
    let mut harness = Harness::new();
    let off = harness.apply(authenticate("u"));
    assert_eq!(error(off), Error::AuthNotEnabled);
    let mut harness = enabled();
    let certified = AuthUserAddRequest {
        name: "certified".to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    harness.root(request!(auth_user_add: certified));
    for name in ["nobody", "certified"] {
        assert_eq!(error(harness.apply(authenticate(name))), Error::AuthFailed);
    }
    assert_eq!(
        harness.state.auth().password("certified"),
        Some(Password::None)
    );
    let hash = Password::Hash(b"hash".to_vec());
    assert_eq!(harness.state.auth().password("u"), Some(hash));
    let Response::Auth(outcome) = harness.apply(authenticate("u")).unwrap() else {
        panic!("no answer of the Auth service");
    };
    let expected = AuthOutcome::Authenticated {
        user: "u".to_owned(),
        revision: harness.auth_revision(),
        token: format!("prefix.{}", harness.state.applied().get()),
    };
    assert_eq!(outcome, expected);
}

#[test]
fn a2_passwords_and_permissions_that_are_none() {
    let mut harness = Harness::new();
    let odd = AuthUserAddRequest {
        name: "u".to_owned(),
        hashed_password: "no base64".to_owned(),
        ..Default::default()
    };
    let odd = harness.apply(request!(auth_user_add: odd));
    assert_eq!(error(odd), Error::NoPasswordUser);
    harness.apply(role_add("r")).unwrap();
    let mut nothing = grant("r", Type::Read, "a", "");
    nothing.auth_role_grant_permission.as_mut().unwrap().perm = None;
    assert_eq!(error(harness.apply(nothing)), Error::PermissionNotGiven);
    let unknown = grant("x", Type::Read, "", "");
    assert_eq!(error(harness.apply(unknown)), Error::InvalidAuthMgmt);
    let unknown = grant("x", Type::Read, "a", "");
    assert_eq!(error(harness.apply(unknown)), Error::RoleNotFound);
}

/// The first entry of a key is looked at only: another range behind it comes twice.
#[test]
fn a2_a_range_can_be_granted_twice() {
    let mut harness = Harness::new();
    harness.apply(role_add("r")).unwrap();
    for (kind, end) in [
        (Type::Read, "c"),
        (Type::Read, "d"),
        (Type::Write, "d"),
        (Type::Write, "c"),
    ] {
        harness.apply(grant("r", kind, "a", end)).unwrap();
    }
    let get = request!(auth_role_get: AuthRoleGetRequest { role: "r".to_owned() });
    let Response::Auth(AuthOutcome::Role(found)) = harness.apply(get).unwrap() else {
        panic!("no role");
    };
    let found: Vec<_> = found
        .iter()
        .map(|permission| (permission.perm_type, &permission.range_end[..]))
        .collect();
    let (read, write) = (Type::Read as i32, Type::Write as i32);
    assert_eq!(found, [(write, &b"c"[..]), (read, b"d"), (write, b"d")]);
    harness.apply(revoke("r", "a", "d")).unwrap();
    assert_eq!(
        error(harness.apply(revoke("r", "a", "d"))),
        Error::PermissionNotGranted
    );
}

#[test]
fn a7_users_survive_restarts() {
    let mut harness = enabled();
    harness.root(grant("r", Type::Readwrite, "a", "b"));
    while harness.checkpoint(100) {}
    // This is in the log only.
    harness.root(user_add("late"));
    harness.root(grant_role("late", "r"));
    harness.root(role_add("gone"));
    harness.root(role_delete("gone"));
    let before = describe(harness.state.auth());
    harness.restart();
    assert_eq!(describe(harness.state.auth()), before);
    harness.by("late", request!(put: put("a"))).unwrap();
    harness.root(disable());
    while harness.checkpoint(100) {}
    harness.restart();
    assert!(!harness.state.auth().enabled());
}

/// Everything that can be asked of it.
fn describe(auth: &Auth) -> String {
    let users: Vec<_> = auth
        .users()
        .map(|user| (user, auth.password(user)))
        .collect();
    let roles: Vec<_> = auth.roles().collect();
    format!("{auth:?} {users:?} {roles:?}")
}

const KEYS: [&str; 6] = ["a", "a\0", "b", "ba", "c", "d"];

/// The keys of a request or a permission, out of some that lie in all the odd places.
fn covered(key: &str, range_end: &str) -> Vec<&'static str> {
    let inside = |candidate: &&str| match range_end {
        "" => *candidate == key,
        "\0" => *candidate >= key,
        end => *candidate >= key && *candidate < end,
    };
    const BETWEEN: [&str; 13] = [
        "a", "a\0", "a\0\0", "a1", "b", "b\0", "ba", "ba\0", "bb", "c", "c\0", "d", "zz",
    ];
    BETWEEN.into_iter().filter(inside).collect()
}

fn range() -> impl Strategy<Value = (&'static str, &'static str)> {
    let end = prop_oneof![
        2 => Just(""),
        1 => Just("\0"),
        4 => prop::sample::select(KEYS.to_vec()),
    ];
    (prop::sample::select(KEYS.to_vec()), end).prop_filter("a range", |(key, end)| {
        end.is_empty() || *end == "\0" || key < end
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is granted and revoked, through one role or two: a range may be read if each of its keys
    /// may. The keys that are looked at lie between all ends, so none can hide.
    #[test]
    fn a2_permissions_are_those_of_a_model(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0i32..3, range()), 1..12),
        asked in prop::collection::vec((any::<bool>(), range()), 1..20),
    ) {
        let mut harness = enabled();
        harness.root(role_add("s"));
        harness.root(grant_role("u", "s"));
        let mut model: Vec<(&str, i32, (&str, &str))> = Vec::new();
        for (first, grants, kind, (key, end)) in steps {
            let role = if first { "r" } else { "s" };
            if grants {
                let kind = Type::try_from(kind).unwrap();
                harness.root(grant(role, kind, key, end));
                // Replaced only if it is the first of its key, as in etcd.
                let of_key = |(of, _, (at, _)): &&mut (&str, i32, (&str, &str))| {
                    *of == role && *at == key
                };
                match model.iter_mut().find(of_key) {
                    Some(same) if same.2.1 == end => same.1 = kind as i32,
                    _ => model.push((role, kind as i32, (key, end))),
                }
            } else {
                let there = model.iter().any(|(of, _, at)| *of == role && *at == (key, end));
                let answer = harness.by(ROOT, revoke(role, key, end));
                prop_assert_eq!(answer.is_ok(), there);
                model.retain(|(of, _, at)| *of != role || *at != (key, end));
            }
        }
        let auth = harness.state.auth();
        let identity = Identity { user: "u".to_owned(), revision: auth.revision() };
        for (writes, (key, end)) in asked {
            let access = if writes { Access::Write } else { Access::Read };
            let kind = if writes { Type::Write } else { Type::Read } as i32;
            let may = |wanted: &&str| model.iter().any(|(_, given, (key, end))| {
                (*given == kind || *given == Type::Readwrite as i32)
                    && covered(key, end).contains(wanted)
            });
            // An open end also has keys behind all those.
            let open = end != "\0" || model.iter().any(|(_, given, (_, to))| {
                *to == "\0" && (*given == kind || *given == Type::Readwrite as i32)
            });
            let expected = open && covered(key, end).iter().all(may);
            let found = auth.check(&identity, access, key.as_bytes(), end.as_bytes());
            prop_assert_eq!(found.is_ok(), expected, "{:?} {:?} of {:?}", access, (key, end), model);
        }
    }
}
