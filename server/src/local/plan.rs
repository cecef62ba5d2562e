//! What a local cluster is made of: made from the arguments, kept in its folder, so that a second start is the same one.

use super::asked::{Asked, BASE_PORT, MEMBERS};
use crate::config::limits::MEMBERS_MAX;
use crate::limits::LOCAL_PLAN_BYTES_MAX;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::path::Path;

/// The file that makes a folder a local cluster's.
const FILE: &str = "mechi-local.json";

/// Ports of each member: for clients and for peers.
const PORTS_EACH: u16 = 2;

/// One member's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Where clients come.
    pub client: u16,
    /// Where the other members come.
    pub peer: u16,
}

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The members' ports; member n, counted from 1, is called `mN`.
    pub members: Vec<Ports>,
}

impl Plan {
    /// Finds the cluster in `dir` again, or plans a new one there.
    ///
    /// - Errors: a sentence: the folder is somebody else's, holds another number of members or other ports, or a port
    ///   is in use.
    pub fn find_or_make(dir: &Path, asked: &Asked) -> Result<Self> {
        let shown = dir.display();
        let plan = match read(&dir.join(FILE))? {
            Some(text) => {
                let plan = Self::decode(&text).with_context(|| format!("read {}", dir.join(FILE).display()))?;
                let members = plan.members.len();
                if asked.members.is_some_and(|asked| asked != members) {
                    bail!("{shown} holds a cluster of {members} members: leave --members out, or give another --dir");
                }
                let base = plan.members.first().map_or(0, |ports| ports.client);
                if asked.base_port.is_some_and(|asked| asked != base) {
                    bail!(
                        "{shown} holds a cluster that began at port {base}, and its members know each other by their \
                         ports: leave --base-port out, or give another --dir"
                    );
                }
                plan
            }
            None => {
                let mut entries = fs::read_dir(dir).with_context(|| format!("list {shown}"))?;
                let foreign = entries.find(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() != "lock"));
                ensure!(foreign.is_none(), "{shown} is not empty and not a local cluster's: give another --dir");
                let plan = Self::make(asked)?;
                write(dir, &plan.encode())?;
                plan
            }
        };
        plan.check_ports()?;
        Ok(plan)
    }

    fn make(asked: &Asked) -> Result<Self> {
        let count = asked.members.unwrap_or(MEMBERS);
        let members = match asked.base_port.unwrap_or(BASE_PORT) {
            0 => free_ports(count)?,
            base => (0..count as u16)
                .map(|n| {
                    let client = base.checked_add(n * PORTS_EACH)?;
                    Some(Ports { client, peer: client.checked_add(1)? })
                })
                .collect::<Option<_>>()
                .with_context(|| format!("--base-port {base} leaves no room for the ports of {count} members"))?,
        };
        let plan = Self { members };
        plan.check_ports()?;
        Ok(plan)
    }

    /// Binds every port for a moment, so that one in use is said here and not by one of many members.
    fn check_ports(&self) -> Result<()> {
        for port in self.members.iter().flat_map(|ports| [ports.client, ports.peer]) {
            if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                bail!(
                    "port {port} cannot be used ({error}): stop what listens there (another local cluster?), or give a \
                     new cluster another --base-port"
                );
            }
        }
        Ok(())
    }

    fn encode(&self) -> String {
        let members = self.members.iter().map(|ports| json!({ "client": ports.client, "peer": ports.peer }));
        format!("{:#}\n", json!({ "format": 1, "members": members.collect::<Vec<_>>() }))
    }

    fn decode(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        ensure!(value["format"] == 1, "its format is not known to this version");
        let port =
            |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).context("a port is missing");
        let members = value["members"].as_array().context("it has no members")?;
        let ports = |member: &Value| Ok(Ports { client: port(&member["client"])?, peer: port(&member["peer"])? });
        let members = members.iter().map(ports).collect::<Result<Vec<_>>>()?;
        ensure!((1..=MEMBERS_MAX).contains(&members.len()), "it has {} members", members.len());
        Ok(Self { members })
    }
}

fn free_ports(count: usize) -> Result<Vec<Ports>> {
    // All are held until all are chosen: no two may be the same.
    let mut held = Vec::new();
    let mut ports = BTreeSet::new();
    while ports.len() < count * usize::from(PORTS_EACH) {
        let listener = TcpListener::bind("127.0.0.1:0").context("ask for a free port")?;
        ports.insert(listener.local_addr()?.port());
        held.push(listener);
    }
    let ports: Vec<u16> = ports.into_iter().collect();
    Ok(ports.chunks_exact(2).map(|pair| Ports { client: pair[0], peer: pair[1] }).collect())
}

fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("open {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(LOCAL_PLAN_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(text))
}

/// Written beside and renamed: a start that is cut short leaves none, not half of one.
fn write(dir: &Path, text: &str) -> Result<()> {
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.tmp")));
    fs::write(&new, text)
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| File::open(dir)?.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn asked(args: &[&str]) -> Result<Asked> {
        Ok(Asked::try_parse_from(args)?)
    }

    #[test]
    fn a_second_start_finds_the_ports_again_and_contradictions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Plan::find_or_make(dir.path(), &asked(&["--base-port=0", "--members=3"]).unwrap()).unwrap();
        assert_eq!(Plan::find_or_make(dir.path(), &asked(&[]).unwrap()).unwrap(), first);
        let refused = |args: &[&str]| Plan::find_or_make(dir.path(), &asked(args).unwrap()).unwrap_err().to_string();
        assert!(refused(&["--members=5"]).contains("holds a cluster of 3 members"));
        assert!(refused(&["--base-port=1"]).contains("holds a cluster that began at port"));
        let _taken = TcpListener::bind(("127.0.0.1", first.members[1].peer)).unwrap();
        assert!(refused(&[]).contains(&format!("port {} cannot be used", first.members[1].peer)));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        fs::write(dir.path().join("letter"), "").unwrap();
        assert!(refused(&[]).contains("not a local cluster's"));
    }
}
