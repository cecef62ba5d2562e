//! What a command is: its words, its help, and what it does.

use super::flags::Flag;

/// What a command does; [`crate::commands::run`] has the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Put,
    Del,
    Txn,
    Watch,
    Compaction,
    AlarmDisarm,
    AlarmList,
    Defrag,
    EndpointHealth,
    EndpointStatus,
    EndpointHashKv,
    MoveLeader,
    Version,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseList,
    LeaseKeepAlive,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberList,
    MemberPromote,
    Snapshot,
    MakeMirror,
    Lock,
    Elect,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    UserAdd,
    UserDelete,
    UserGet,
    UserList,
    UserPasswd,
    UserGrantRole,
    UserRevokeRole,
    RoleAdd,
    RoleDelete,
    RoleGet,
    RoleList,
    RoleGrant,
    RoleRevoke,
    CheckPerf,
    CheckDatascale,
    Help,
    Options,
    Completion,
}

/// One command, or a group of them.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// The name with what follows it.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    pub(crate) long: &'static str,
    pub(crate) flags: &'static [Flag],
    /// Flags that its children know too.
    pub(crate) persistent: &'static [Flag],
    /// `None` for a group, which shows its help.
    pub(crate) action: Option<Action>,
    /// In the order in which suggestions name them.
    pub(crate) children: &'static [&'static Command],
}

impl Command {
    pub(super) const fn new(name: &'static str, usage: &'static str, short: &'static str, action: Action) -> Self {
        Self { name, usage, short, long: "", flags: &[], persistent: &[], action: Some(action), children: &[] }
    }

    pub(super) const fn group(
        name: &'static str,
        usage: &'static str,
        short: &'static str,
        children: &'static [&'static Self],
    ) -> Self {
        Self { name, usage, short, long: "", flags: &[], persistent: &[], action: None, children }
    }

    pub(super) const fn flags(mut self, flags: &'static [Flag]) -> Self {
        self.flags = flags;
        self
    }

    pub(super) const fn persistent(mut self, flags: &'static [Flag]) -> Self {
        self.persistent = flags;
        self
    }

    pub(super) const fn long(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    /// Whether it is `help` itself, which suggestions leave out.
    pub(crate) fn is_help(&self) -> bool {
        self.action == Some(Action::Help)
    }
}
