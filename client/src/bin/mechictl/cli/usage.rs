//! The help texts.

use super::command::Command;
use super::find::Path;
use super::flags::{Flag, Kind};
use super::table::HELP_FLAG;
use crate::go::quote::quote;
use crate::go::{duration, tabwriter};
use crate::program::Program;
use std::fmt::Write;

/// The help of the path's last command.
pub(crate) fn usage(program: &Program, path: &Path) -> String {
    text(program, path, &[HELP_FLAG])
}

/// The root's help after an unknown topic: nothing has asked the root for help, so it does not know the flag.
pub(crate) fn usage_without_help_flag(program: &Program) -> String {
    text(program, &vec![program.root], &[])
}

fn text(program: &Program, path: &Path, more: &[Flag]) -> String {
    let (command, ancestors) = path.split_last().expect("the root is there");
    let name = names(&path[1..]);
    let mut text = format!("NAME:\n\t{} - {}\n\n", if name.is_empty() { command.name } else { &name }, command.short);
    let mut line: Vec<&str> = ancestors.iter().map(|ancestor| ancestor.name).collect();
    line.push(command.usage);
    write!(text, "USAGE:\n\t{} [flags]\n", line.join(" ")).expect("a string takes all writes");
    if ancestors.is_empty() {
        write!(text, "\nVERSION:\n\t{}\n", program.version).expect("a string takes all writes");
    }
    if !command.children.is_empty() {
        write!(text, "\nAPI VERSION:\n\t{}\n\n\nCOMMANDS:\n", program.api_version).expect("a string takes all writes");
        list(command, "", &mut text);
    }
    if !command.long.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        let long =
            if command.is_help() { command.long.replace("etcdctl", program.name) } else { command.long.to_owned() };
        long.trim_matches(['\n', '\t', ' ']).split('\n').for_each(|line| {
            writeln!(text, "\t{line}").expect("a string takes all writes");
        });
    }
    let own = command.flags.iter().chain(command.persistent).chain(more).copied();
    write!(text, "\nOPTIONS:\n{}", lines(own.collect(), command.name)).expect("a string takes all writes");
    let inherited: Vec<Flag> = ancestors.iter().flat_map(|ancestor| ancestor.persistent).copied().collect();
    if !inherited.is_empty() {
        write!(text, "\nGLOBAL OPTIONS:\n{}", lines(inherited, "")).expect("a string takes all writes");
    }
    text.push('\n');
    tabwriter::align(&text)
}

/// The flags that every command knows.
pub(crate) fn options(root: &Command) -> String {
    tabwriter::align(&format!("GLOBAL OPTIONS:\n{}", lines(root.persistent.to_vec(), "")))
}

fn names(path: &[&Command]) -> String {
    path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

/// The commands below one, by name, groups left out and what they hold put in.
fn list(command: &Command, prefix: &str, text: &mut String) {
    let mut children = command.children.to_vec();
    children.sort_by_key(|child| child.name);
    for child in children {
        let name = format!("{prefix}{}", child.name);
        if child.action.is_some() {
            writeln!(text, "\t{name}\t{}", child.short).expect("a string takes all writes");
        }
        list(child, &format!("{name} "), text);
    }
}

fn lines(mut flags: Vec<Flag>, command: &str) -> String {
    flags.sort_by_key(|flag| flag.name);
    let mut text = String::new();
    for flag in flags {
        let name = match flag.short {
            Some(short) => format!("  -{short}, --{}", flag.name),
            None => format!("      --{}", flag.name),
        };
        let default = match flag.kind {
            Kind::Bool(on) => format!("[={on}]"),
            Kind::Text(text) => format!("={}", quote(text.as_bytes())),
            Kind::Number(n) => format!("={n}"),
            Kind::Duration(nanos) => format!("={}", duration::text(nanos)),
            Kind::List(word) => format!("=[{word}]"),
        };
        let help = if flag.name == HELP_FLAG.name { format!("help for {command}") } else { flag.help.to_owned() };
        writeln!(text, "{name}{default}\t{help}").expect("a string takes all writes");
    }
    text
}
