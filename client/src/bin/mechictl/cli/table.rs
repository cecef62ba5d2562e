//! The one table of commands: names, flags and help texts as etcdctl has them.

use super::command::{Action, Command};
use super::flags::{Flag, Kind};

/// Every command knows it; its text names the command.
pub(crate) const HELP_FLAG: Flag = Flag::new("help", Kind::Bool(false), "help for ").short('h');

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Bool(false), help)
}

const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Text(default), help)
}

const fn number(name: &'static str, default: i64, help: &'static str) -> Flag {
    Flag::new(name, Kind::Number(default), help)
}

const SECOND: i64 = 1_000_000_000;

const GLOBAL: &[Flag] = &[
    Flag::new("endpoints", Kind::List("127.0.0.1:2379"), "gRPC endpoints"),
    switch("debug", "enable client-side debug logging"),
    text("write-out", "simple", "set the output format (fields, json, protobuf, simple, table)").short('w'),
    switch("hex", "print byte strings as hex encoded strings"),
    Flag::new("dial-timeout", Kind::Duration(2 * SECOND), "dial timeout for client connections"),
    Flag::new(
        "command-timeout",
        Kind::Duration(5 * SECOND),
        "timeout for short running command (excluding dial timeout)",
    ),
    Flag::new("keepalive-time", Kind::Duration(2 * SECOND), "keepalive time for client connections"),
    Flag::new("keepalive-timeout", Kind::Duration(6 * SECOND), "keepalive timeout for client connections"),
    Flag::new("insecure-transport", Kind::Bool(true), "disable transport security for client connections"),
    Flag::new("insecure-discovery", Kind::Bool(true), "accept insecure SRV records describing cluster endpoints"),
    switch(
        "insecure-skip-tls-verify",
        "skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)",
    ),
    text("cert", "", "identify secure client using this TLS certificate file"),
    text("key", "", "identify secure client using this TLS key file"),
    text("cacert", "", "verify certificates of TLS-enabled secure servers using this CA bundle"),
    text("user", "", "username[:password] for authentication (prompt if password is not supplied)"),
    text(
        "password",
        "",
        "password for authentication (if this option is used, --user option shouldn't include password)",
    ),
    text("discovery-srv", "", "domain name to query for SRV records describing cluster endpoints").short('d'),
    text("discovery-srv-name", "", "service name to query when using DNS discovery"),
];

/// The root when the program is called `etcdctl`.
pub(crate) static ETCDCTL: Command = Command::group(
    "etcdctl",
    "etcdctl",
    "A simple command line client for etcd3.",
    &[
        &GET,
        &PUT,
        &DEL,
        &TXN,
        &COMPACTION,
        &ALARM,
        &DEFRAG,
        &ENDPOINT,
        &MOVE_LEADER,
        &WATCH,
        &ETCDCTL_VERSION,
        &LEASE,
        &MEMBER,
        &SNAPSHOT,
        &MAKE_MIRROR,
        &LOCK,
        &ELECT,
        &AUTH,
        &USER,
        &ROLE,
        &CHECK,
        &HELP,
    ],
)
.persistent(GLOBAL);

/// The root under any other name; it has more commands.
pub(crate) static MECHICTL: Command = Command::group(
    "mechictl",
    "mechictl",
    "A command line client for Mechi and etcd.",
    &[
        &GET,
        &PUT,
        &DEL,
        &TXN,
        &COMPACTION,
        &ALARM,
        &DEFRAG,
        &ENDPOINT,
        &MOVE_LEADER,
        &WATCH,
        &MECHICTL_VERSION,
        &LEASE,
        &MEMBER,
        &SNAPSHOT,
        &MAKE_MIRROR,
        &LOCK,
        &ELECT,
        &AUTH,
        &USER,
        &ROLE,
        &CHECK,
        &COMPLETION,
        &OPTIONS,
        &HELP,
    ],
)
.persistent(GLOBAL);

pub(crate) static GET: Command =
    Command::new("get", "get [options] <key> [range_end]", "Gets the key or a range of keys", Action::Get).flags(&[
        text("consistency", "l", "Linearizable(l) or Serializable(s)"),
        text("order", "", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
        text("sort-by", "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
        number("limit", 0, "Maximum number of results"),
        switch("prefix", "Get keys with matching prefix"),
        switch("from-key", "Get keys that are greater than or equal to the given key using byte compare"),
        number("rev", 0, "Specify the kv revision"),
        switch("keys-only", "Get only the keys"),
        switch("count-only", "Get only the count"),
        switch("print-value-only", "Only write values when using the \"simple\" output format"),
    ]);

pub(crate) static PUT: Command = Command::new(
    "put",
    "put [options] <key> <value> (<value> can also be given from stdin)",
    "Puts the given key into the store",
    Action::Put,
)
.long(
    "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
",
)
.flags(&[
    text("lease", "0", "lease ID (in hexadecimal) to attach to the key"),
    switch("prev-kv", "return the previous key-value pair before modification"),
    switch("ignore-value", "updates the key using its current value"),
    switch("ignore-lease", "updates the key using its current lease"),
]);

pub(crate) static DEL: Command = Command::new(
    "del",
    "del [options] <key> [range_end]",
    "Removes the specified key or range of keys [key, range_end)",
    Action::Del,
)
.flags(&[
    switch("prefix", "delete keys with matching prefix"),
    switch("prev-kv", "return deleted key-value pairs"),
    switch("from-key", "delete keys that are greater than or equal to the given key using byte compare"),
]);

static TXN: Command =
    Command::new("txn", "txn [options]", "Txn processes all the requests in one transaction", Action::Txn)
        .flags(&[switch("interactive", "Input transaction in interactive mode").short('i')]);

static COMPACTION: Command = Command::new(
    "compaction",
    "compaction [options] <revision>",
    "Compacts the event history in etcd",
    Action::Compaction,
)
.flags(&[switch("physical", "'true' to wait for compaction to physically remove all old revisions")]);

static ALARM: Command = Command::group(
    "alarm",
    "alarm <subcommand>",
    "Alarm related commands",
    &[
        &Command::new("disarm", "disarm", "Disarms all alarms", Action::AlarmDisarm),
        &Command::new("list", "list", "Lists all alarms", Action::AlarmList),
    ],
);

const CLUSTER: Flag = switch("cluster", "use all endpoints from the cluster member list");

static DEFRAG: Command = Command::new(
    "defrag",
    "defrag",
    "Defragments the storage of the etcd members with given endpoints",
    Action::Defrag,
)
.flags(&[text("data-dir", "", "Optional. If present, defragments a data directory not in use by etcd.")])
.persistent(&[CLUSTER]);

static ENDPOINT: Command = Command::group(
    "endpoint",
    "endpoint <subcommand>",
    "Endpoint related commands",
    &[
        &Command::new(
            "health",
            "health",
            "Checks the healthiness of endpoints specified in `--endpoints` flag",
            Action::EndpointHealth,
        ),
        &Command::new(
            "status",
            "status",
            "Prints out the status of endpoints specified in `--endpoints` flag",
            Action::EndpointStatus,
        )
        .long(
            "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft index, raft applied index, errors.
",
        ),
        &Command::new(
            "hashkv",
            "hashkv",
            "Prints the KV history hash for each endpoint in --endpoints",
            Action::EndpointHashKv,
        )
        .persistent(&[number("rev", 0, "maximum revision to hash (default: all revisions)")]),
    ],
)
.persistent(&[CLUSTER]);

static MOVE_LEADER: Command = Command::new(
    "move-leader",
    "move-leader <transferee-member-id>",
    "Transfers leadership to another etcd cluster member.",
    Action::MoveLeader,
);

pub(crate) static WATCH: Command = Command::new(
    "watch",
    "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Watches events stream on keys or prefixes",
    Action::Watch,
)
.flags(&[
    switch("interactive", "Interactive mode").short('i'),
    switch("prefix", "Watch on a prefix if prefix is set"),
    number("rev", 0, "Revision to start watching"),
    switch("prev-kv", "get the previous key-value pair before the event happens"),
    switch("progress-notify", "get periodic watch progress notification from server"),
]);

static ETCDCTL_VERSION: Command = Command::new("version", "version", "Prints the version of etcdctl", Action::Version);

static MECHICTL_VERSION: Command =
    Command::new("version", "version", "Prints the version of mechictl", Action::Version);

static LEASE: Command = Command::group(
    "lease",
    "lease <subcommand>",
    "Lease related commands",
    &[
        &Command::new("grant", "grant <ttl>", "Creates leases", Action::LeaseGrant),
        &Command::new("revoke", "revoke <leaseID>", "Revokes leases", Action::LeaseRevoke),
        &Command::new("timetolive", "timetolive <leaseID> [options]", "Get lease information", Action::LeaseTimeToLive)
            .flags(&[switch("keys", "Get keys attached to this lease")]),
        &Command::new("list", "list", "List all active leases", Action::LeaseList),
        &Command::new(
            "keep-alive",
            "keep-alive [options] <leaseID>",
            "Keeps leases alive (renew)",
            Action::LeaseKeepAlive,
        )
        .flags(&[switch("once", "Resets the keep-alive time to its original value and cobrautl.Exits immediately")]),
    ],
);

static MEMBER: Command = Command::group(
    "member",
    "member <subcommand>",
    "Membership related commands",
    &[
        &Command::new("add", "add <memberName> [options]", "Adds a member into the cluster", Action::MemberAdd).flags(
            &[
                text("peer-urls", "", "comma separated peer URLs for the new member."),
                switch("learner", "indicates if the new member is raft learner"),
            ],
        ),
        &Command::new("remove", "remove <memberID>", "Removes a member from the cluster", Action::MemberRemove),
        &Command::new("update", "update <memberID> [options]", "Updates a member in the cluster", Action::MemberUpdate)
            .flags(&[text("peer-urls", "", "comma separated peer URLs for the updated member.")]),
        &Command::new("list", "list", "Lists all members in the cluster", Action::MemberList).long(
            "When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
",
        ),
        &Command::new(
            "promote",
            "promote <memberID>",
            "Promotes a non-voting member in the cluster",
            Action::MemberPromote,
        )
        .long("Promotes a non-voting learner member to a voting one in the cluster.\n"),
    ],
);

static SNAPSHOT: Command = Command::group(
    "snapshot",
    "snapshot <subcommand>",
    "Manages etcd node snapshots",
    &[
        &Command::new(
            "save",
            "save <filename>",
            "Stores an etcd node backend snapshot to a given file",
            Action::Snapshot,
        ),
        &Command::new(
            "restore",
            "restore <filename> [options]",
            "Restores an etcd member snapshot to an etcd directory",
            Action::Snapshot,
        )
        .long("Moved to `etcdctl snapshot restore ...`\n")
        .flags(&[
            text("data-dir", "", "Path to the data directory"),
            text("wal-dir", "", "Path to the WAL directory (use --data-dir if none given)"),
            text(
                "initial-cluster",
                "default=http://localhost:2380",
                "Initial cluster configuration for restore bootstrap",
            ),
            text(
                "initial-cluster-token",
                "etcd-cluster",
                "Initial cluster token for the etcd cluster during restore bootstrap",
            ),
            text(
                "initial-advertise-peer-urls",
                "http://localhost:2380",
                "List of this member's peer URLs to advertise to the rest of the cluster",
            ),
            text("name", "default", "Human-readable name for this member"),
            switch("skip-hash-check", "Ignore snapshot integrity hash value (required if copied from data directory)"),
        ]),
        &Command::new(
            "status",
            "status <filename>",
            "[deprecated] Gets backend snapshot status of a given file",
            Action::Snapshot,
        )
        .long(
            "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are hash, revision, total keys, total size.

Moved to 'etcdctl snapshot status ...'
",
        ),
    ],
);

static MAKE_MIRROR: Command = Command::new(
    "make-mirror",
    "make-mirror [options] <destination>",
    "Makes a mirror at the destination etcd cluster",
    Action::MakeMirror,
)
.flags(&[
    text("prefix", "", "Key-value prefix to mirror"),
    text("dest-prefix", "", "destination prefix to mirror a prefix to a different prefix in the destination cluster"),
    switch("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
    text("dest-cert", "", "Identify secure client using this TLS certificate file for the destination cluster"),
    text("dest-key", "", "Identify secure client using this TLS key file"),
    text("dest-cacert", "", "Verify certificates of TLS enabled secure servers using this CA bundle"),
    Flag::new("dest-insecure-transport", Kind::Bool(true), "Disable transport security for client connections"),
    text("dest-user", "", "Destination username[:password] for authentication (prompt if password is not supplied)"),
    text(
        "dest-password",
        "",
        "Destination password for authentication (if this option is used, --user option shouldn't include password)",
    ),
]);

static LOCK: Command =
    Command::new("lock", "lock <lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock", Action::Lock)
        .flags(&[number("ttl", 10, "timeout for session")]);

static ELECT: Command = Command::new(
    "elect",
    "elect <election-name> [proposal]",
    "Observes and participates in leader election",
    Action::Elect,
)
.flags(&[switch("listen", "observation mode").short('l')]);

static AUTH: Command = Command::group(
    "auth",
    "auth <enable or disable>",
    "Enable or disable authentication",
    &[
        &Command::new("enable", "enable", "Enables authentication", Action::AuthEnable),
        &Command::new("disable", "disable", "Disables authentication", Action::AuthDisable),
        &Command::new("status", "status", "Returns authentication status", Action::AuthStatus),
    ],
);

static USER: Command = Command::group(
    "user",
    "user <subcommand>",
    "User related commands",
    &[
        &Command::new("add", "add <user name or user:password> [options]", "Adds a new user", Action::UserAdd).flags(
            &[
                Flag::new("interactive", Kind::Bool(true), "Read password from stdin instead of interactive terminal"),
                text("new-user-password", "", "Supply password from the command line flag"),
                switch("no-password", "Create a user without password (CN based auth only)"),
            ],
        ),
        &Command::new("delete", "delete <user name>", "Deletes a user", Action::UserDelete),
        &Command::new("get", "get <user name> [options]", "Gets detailed information of a user", Action::UserGet)
            .flags(&[switch("detail", "Show permissions of roles granted to the user")]),
        &Command::new("list", "list", "Lists all users", Action::UserList),
        &Command::new("passwd", "passwd <user name> [options]", "Changes password of user", Action::UserPasswd).flags(
            &[Flag::new(
                "interactive",
                Kind::Bool(true),
                "If true, read password from stdin instead of interactive terminal",
            )],
        ),
        &Command::new(
            "grant-role",
            "grant-role <user name> <role name>",
            "Grants a role to a user",
            Action::UserGrantRole,
        ),
        &Command::new(
            "revoke-role",
            "revoke-role <user name> <role name>",
            "Revokes a role from a user",
            Action::UserRevokeRole,
        ),
    ],
);

static ROLE: Command = Command::group(
    "role",
    "role <subcommand>",
    "Role related commands",
    &[
        &Command::new("add", "add <role name>", "Adds a new role", Action::RoleAdd),
        &Command::new("delete", "delete <role name>", "Deletes a role", Action::RoleDelete),
        &Command::new("get", "get <role name>", "Gets detailed information of a role", Action::RoleGet),
        &Command::new("list", "list", "Lists all roles", Action::RoleList),
        &Command::new(
            "grant-permission",
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Grants a key to a role",
            Action::RoleGrant,
        )
        .flags(&[
            switch("prefix", "grant a prefix permission"),
            switch(
                "from-key",
                "grant a permission of keys that are greater than or equal to the given key using byte compare",
            ),
        ]),
        &Command::new(
            "revoke-permission",
            "revoke-permission <role name> <key> [endkey]",
            "Revokes a key from a role",
            Action::RoleRevoke,
        )
        .flags(&[
            switch("prefix", "revoke a prefix permission"),
            switch(
                "from-key",
                "revoke a permission of keys that are greater than or equal to the given key using byte compare",
            ),
        ]),
    ],
);

static CHECK: Command = Command::group(
    "check",
    "check <subcommand>",
    "commands for checking properties of the etcd cluster",
    &[
        &Command::new("perf", "perf [options]", "Check the performance of the etcd cluster", Action::CheckPerf).flags(
            &[
                text(
                    "load",
                    "s",
                    "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)",
                ),
                text("prefix", "/etcdctl-check-perf/", "The prefix for writing the performance check's keys."),
                switch("auto-compact", "Compact storage with last revision after test is finished."),
                switch("auto-defrag", "Defragment storage after test is finished."),
            ],
        ),
        &Command::new(
            "datascale",
            "datascale [options]",
            "Check the memory usage of holding data for different workloads on a given server endpoint.",
            Action::CheckDatascale,
        )
        .long(
            "If no endpoint is provided, localhost will be used. If multiple endpoints are provided, first endpoint will be used.",
        )
        .flags(&[
            text(
                "load",
                "s",
                "The datascale check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)",
            ),
            text("prefix", "/etcdctl-check-datascale/", "The prefix for writing the datascale check's keys."),
            switch("auto-compact", "Compact storage with last revision after test is finished."),
            switch("auto-defrag", "Defragment storage after test is finished."),
        ]),
    ],
);

static COMPLETION: Command = Command::new(
    "completion",
    "completion <bash|zsh|fish>",
    "Prints a completion script for a shell",
    Action::Completion,
)
.long(
    "
Prints a script that makes a shell complete this program's commands and flags.

$ source <(mechictl completion bash)
$ mechictl completion zsh > \"${fpath[1]}/_mechictl\"
$ mechictl completion fish | source
",
);

static OPTIONS: Command =
    Command::new("options", "options", "Prints the flags that every command knows", Action::Options);

static HELP: Command = Command::new("help", "help [command]", "Help about any command", Action::Help)
    .long("Help provides help for any command in the application.\nSimply type etcdctl help [path to command] for full details.");
