//! The `ETCD_*` variables: each flag has one, and a flag and its variable exclude each other.

use super::flags::{Flags, Stop};
use super::notice::Notice;
use super::table::{Effect, FLAGS};

/// Variables that etcd's tools set and that ask nothing of this server.
const KNOWN: [&str; 4] = ["ETCD_CONFIG_FILE", "ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY", "ETCD_CLIENT_DEBUG"];

/// The variable of a flag: `ETCD_`, upper case, `_` for `-`.
pub fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Sets the flags that have a variable.
///
/// - Errors: etcd's words, for a flag with its variable both set and for a malformed value.
/// - Source: etcd `pkg/flags/flag.go`, `SetFlagsFromEnv` and `verifyEnv`.
pub fn apply(flags: &mut Flags, env: &[(String, String)], notices: &mut Vec<Notice>) -> Result<(), Stop> {
    let typed = flags.clone();
    for (variable_name, value) in env.iter().filter(|(name, _)| name.starts_with("ETCD_")) {
        if variable_name == "ETCD_VERSION" {
            if !value.is_empty() {
                let notice = Notice::warn("cannot set special environment variable");
                notices.push(notice.with("key", variable_name).with("value", value));
            }
            continue;
        }
        if KNOWN.contains(&&variable_name[..]) {
            continue;
        }
        let Some(flag) = FLAGS.iter().find(|flag| variable(flag.name) == *variable_name) else {
            let notice = Notice::warn("unrecognized environment variable");
            notices.push(notice.with("environment-variable", format!("{variable_name}={value}")));
            continue;
        };
        if typed.was_typed(flag.name) {
            return Err(Stop::Refuse(format!(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag)): {variable_name}"
            )));
        }
        // An older spelling's variable does not override the flag, nor the newer spelling's variable.
        let older = matches!(flag.effect, Effect::Alias(_));
        if value.is_empty() || (older && flags.is_set(flag.target().name)) {
            continue;
        }
        flags
            .set(flag, value)
            .map_err(|reason| Stop::Refuse(format!("invalid value {value:?} for {variable_name}: {reason}")))?;
        let notice = Notice::info("recognized and used environment variable");
        let shown = if flag.name.contains("password") { "(hidden)" } else { value };
        notices.push(notice.with("variable-name", variable_name).with("variable-value", shown));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], env: &[(&str, &str)]) -> (Result<Flags, Stop>, Vec<String>) {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut flags = Flags::parse(&args).unwrap();
        let mut notices = Vec::new();
        let result = apply(&mut flags, &env, &mut notices);
        (result.map(|()| flags), notices.iter().map(Notice::to_string).collect())
    }

    #[test]
    fn variables_set_flags() {
        let (flags, notices) =
            run(&["--name=a"], &[("ETCD_HEARTBEAT_INTERVAL", "50"), ("ETCD_DATA_DIR", ""), ("PATH", "x")]);
        assert_eq!(flags.unwrap().get("heartbeat-interval"), "50");
        assert_eq!(
            notices,
            ["recognized and used environment variable variable-name=ETCD_HEARTBEAT_INTERVAL variable-value=50"]
        );
    }

    #[test]
    fn a_flag_and_its_variable_exclude_each_other() {
        for value in ["b", ""] {
            let (flags, _) = run(&["--name=a"], &[("ETCD_NAME", value)]);
            let Err(Stop::Refuse(text)) = flags else { panic!("accepted") };
            assert!(text.starts_with("conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))"), "{text}");
            assert!(text.ends_with("ETCD_NAME"));
        }
    }

    #[test]
    fn unknown_variables_warn_and_etcd_version_is_dropped() {
        let (flags, notices) =
            run(&[], &[("ETCD_FOO", "1"), ("ETCD_VERSION", "3.5"), ("ETCD_UNSUPPORTED_ARCH", "arm"), ("ETCDX", "y")]);
        assert_eq!(flags.unwrap(), Flags::default());
        assert_eq!(
            notices,
            [
                "unrecognized environment variable environment-variable=ETCD_FOO=1",
                "cannot set special environment variable key=ETCD_VERSION value=3.5"
            ]
        );
    }

    #[test]
    fn a_malformed_variable_is_refused() {
        let (flags, _) = run(&[], &[("ETCD_PRE_VOTE", "maybe")]);
        assert_eq!(flags, Err(Stop::Refuse("invalid value \"maybe\" for ETCD_PRE_VOTE: parse error".into())));
    }
}
