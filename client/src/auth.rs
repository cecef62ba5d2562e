//! Users, roles and permissions: the calls of etcd's Auth service.

use crate::client::calls;
use mechi_proto::{authpb, etcdserverpb as pb};

calls! {
    /// Switches users on.
    Write auth_enable() = auth.auth_enable(pb::AuthEnableRequest {}) -> pb::AuthEnableResponse;

    /// Switches users off.
    Write auth_disable() = auth.auth_disable(pb::AuthDisableRequest {}) -> pb::AuthDisableResponse;

    /// Asks whether users are switched on.
    Read auth_status() = auth.auth_status(pb::AuthStatusRequest {}) -> pb::AuthStatusResponse;

    /// Asks for a token; the client does this by itself for its own user.
    Read authenticate(name: String, password: String) = auth.authenticate(pb::AuthenticateRequest { name, password }) -> pb::AuthenticateResponse;

    /// Adds a user; without a password, one that comes by its certificate.
    Write user_add(name: String, password: Option<String>) = auth.user_add(user_add_request(name, password)) -> pb::AuthUserAddResponse;

    /// Asks for a user's roles.
    Read user_get(name: String) = auth.user_get(pb::AuthUserGetRequest { name }) -> pb::AuthUserGetResponse;

    /// Asks for all users.
    Read user_list() = auth.user_list(pb::AuthUserListRequest {}) -> pb::AuthUserListResponse;

    /// Deletes a user.
    Write user_delete(name: String) = auth.user_delete(pb::AuthUserDeleteRequest { name }) -> pb::AuthUserDeleteResponse;

    /// Changes a user's password.
    Write user_change_password(name: String, password: String) = auth.user_change_password(pb::AuthUserChangePasswordRequest { name, password, ..Default::default() }) -> pb::AuthUserChangePasswordResponse;

    /// Gives a user a role.
    Write user_grant_role(user: String, role: String) = auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }) -> pb::AuthUserGrantRoleResponse;

    /// Takes a role from a user.
    Write user_revoke_role(name: String, role: String) = auth.user_revoke_role(pb::AuthUserRevokeRoleRequest { name, role }) -> pb::AuthUserRevokeRoleResponse;

    /// Adds a role.
    Write role_add(name: String) = auth.role_add(pb::AuthRoleAddRequest { name }) -> pb::AuthRoleAddResponse;

    /// Asks for a role's permissions.
    Read role_get(role: String) = auth.role_get(pb::AuthRoleGetRequest { role }) -> pb::AuthRoleGetResponse;

    /// Asks for all roles.
    Read role_list() = auth.role_list(pb::AuthRoleListRequest {}) -> pb::AuthRoleListResponse;

    /// Deletes a role.
    Write role_delete(role: String) = auth.role_delete(pb::AuthRoleDeleteRequest { role }) -> pb::AuthRoleDeleteResponse;

    /// Gives a role a permission.
    Write role_grant_permission(name: String, permission: authpb::Permission) = auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name, perm: Some(permission) }) -> pb::AuthRoleGrantPermissionResponse;

    /// Takes the permission of these keys from a role.
    Write role_revoke_permission(role: String, keys: crate::Keys) = auth.role_revoke_permission(pb::AuthRoleRevokePermissionRequest { role, key: keys.key, range_end: keys.end }) -> pb::AuthRoleRevokePermissionResponse;
}

fn user_add_request(name: String, password: Option<String>) -> pb::AuthUserAddRequest {
    let options = Some(authpb::UserAddOptions { no_password: password.is_none() });
    pb::AuthUserAddRequest { name, password: password.unwrap_or_default(), options, ..Default::default() }
}
