//! Users, roles and who asks: the same few names everywhere, so that they meet.

use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};
use rand::Rng;
use rand::rngs::StdRng;

use super::generate::{WATCH, method};
use super::step::Step;

pub(super) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// Calls about users and roles, and how often they come among each other.
pub(super) const CALLS: [(u32, &str, &str); 17] = [
    (4, "etcdserverpb.Auth/AuthEnable", "auth/enable"),
    (1, "etcdserverpb.Auth/AuthDisable", "auth/disable"),
    (6, "etcdserverpb.Auth/AuthStatus", "auth/status"),
    (6, "etcdserverpb.Auth/Authenticate", "auth/authenticate"),
    (12, "etcdserverpb.Auth/UserAdd", "auth/user/add"),
    (8, "etcdserverpb.Auth/UserGet", "auth/user/get"),
    (4, "etcdserverpb.Auth/UserList", "auth/user/list"),
    (3, "etcdserverpb.Auth/UserDelete", "auth/user/delete"),
    (
        5,
        "etcdserverpb.Auth/UserChangePassword",
        "auth/user/changepw",
    ),
    (16, "etcdserverpb.Auth/UserGrantRole", "auth/user/grant"),
    (6, "etcdserverpb.Auth/UserRevokeRole", "auth/user/revoke"),
    (12, "etcdserverpb.Auth/RoleAdd", "auth/role/add"),
    (10, "etcdserverpb.Auth/RoleGet", "auth/role/get"),
    (4, "etcdserverpb.Auth/RoleList", "auth/role/list"),
    (3, "etcdserverpb.Auth/RoleDelete", "auth/role/delete"),
    (
        40,
        "etcdserverpb.Auth/RoleGrantPermission",
        "auth/role/grant",
    ),
    (
        12,
        "etcdserverpb.Auth/RoleRevokePermission",
        "auth/role/revoke",
    ),
];

/// Everybody's password.
const PASSWORD: &str = "p";

/// What is done first: those who are needed are there, and authentication is on.
pub(super) fn prologue() -> Vec<Step> {
    let call = |path: &str, fields: &[(&str, &str)]| {
        let path = format!("/etcdserverpb.Auth/{path}");
        let request = filled(&path, fields);
        Step::Call { path, request }
    };
    let mut steps = Vec::new();
    for user in ["root", "u", "v"] {
        steps.push(call("UserAdd", &[("name", user), ("password", PASSWORD)]));
    }
    for role in ["r", "s"] {
        steps.push(call("RoleAdd", &[("name", role)]));
    }
    for (user, role) in [("root", "root"), ("u", "r"), ("u", "s"), ("v", "s")] {
        steps.push(call("UserGrantRole", &[("user", user), ("role", role)]));
    }
    steps.push(call("AuthEnable", &[]));
    steps
}

/// The request of a user to log in.
pub(super) fn login(user: &str) -> DynamicMessage {
    filled(AUTHENTICATE, &[("name", user), ("password", PASSWORD)])
}

fn filled(path: &str, fields: &[(&str, &str)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(method(path).input());
    for (name, value) in fields {
        message.set_field_by_name(name, Value::String((*value).to_owned()));
    }
    message
}

/// Who does a step, if it is anybody.
pub(super) fn somebody(rng: &mut StdRng) -> Option<&'static str> {
    match rng.random_range(0..20) {
        0..10 => Some("root"),
        10..16 => Some("u"),
        16..18 => Some("v"),
        _ => None,
    }
}

/// A text in a request about users and roles.
pub(super) fn text(rng: &mut StdRng, field: &FieldDescriptor) -> String {
    let message = field.parent_message();
    let of_role = message.name().starts_with("AuthRole");
    let chance = rng.random_range(0..100);
    let text = match field.name() {
        "password" if message.name() == "AuthenticateRequest" && chance < 20 => "q",
        "password" => PASSWORD,
        "role" | "name" if of_role || field.name() == "role" => match chance {
            0..45 => "r",
            45..80 => "s",
            80..92 => "root",
            92..97 => "x",
            _ => "",
        },
        _ => match chance {
            0..45 => "u",
            45..75 => "v",
            75..90 => "root",
            90..97 => "x",
            _ => "",
        },
    };
    text.to_owned()
}

/// Takes out of a request what would end the game, or is known to differ.
pub(super) fn tame(path: &str, request: &mut DynamicMessage) {
    let is_root = request
        .get_field_by_name("name")
        .is_some_and(|name| name.as_str() == Some("root"));
    if path.ends_with("/UserAdd") && is_root {
        // Root could never log in again.
        request.clear_field_by_name("options");
    }
}

/// etcd permits a watch with an open end to whoever may read its first key: not repeated.
pub(super) fn tame_watch(step: &mut Step) {
    let Step::Watch { requests, .. } = step else {
        return;
    };
    for request in requests {
        let field = method(WATCH).input().get_field_by_name("create_request");
        let Some(field) = field.filter(|field| request.has_field(field)) else {
            continue;
        };
        if let Value::Message(create) = request.get_field_mut(&field)
            && create
                .get_field_by_name("range_end")
                .is_some_and(|end| end.as_bytes().is_some_and(|end| end[..] == [0]))
        {
            create.clear_field_by_name("range_end");
        }
    }
}

/// Who may ask for a range that ends before it begins depends on the shape of a tree in etcd: not repeated.
pub(super) fn tame_range(message: &mut DynamicMessage) {
    let bytes = |field| {
        let value = message.get_field_by_name(field)?;
        value.as_bytes().cloned()
    };
    let (Some(key), Some(end)) = (bytes("key"), bytes("range_end")) else {
        return;
    };
    let is_checked = message.descriptor().name().contains("Permission");
    if !is_checked && end <= key && end[..] != [0] {
        message.clear_field_by_name("range_end");
    }
}
