//! The newest version of each key among records in revision order.

use super::asked::Asked;
use super::fact::Out;
use super::line;
use anyhow::Result;
use mechi_replica::store::block::Entry;
use serde_json::json;
use std::collections::BTreeMap;

/// The keys that live after all records so far.
#[derive(Default)]
pub(super) struct Keys {
    newest: BTreeMap<Vec<u8>, Version>,
}

struct Version {
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
    value_bytes: usize,
}

impl Keys {
    /// Takes the next record.
    pub(super) fn add(&mut self, entry: &Entry) {
        let key = entry.record.key();
        if entry.tombstone {
            self.newest.remove(key);
            return;
        }
        if let Some(fields) = entry.record.fields() {
            let version = Version {
                create_revision: fields.create_revision,
                mod_revision: fields.mod_revision,
                version: fields.version,
                lease: fields.lease,
                value_bytes: fields.value.len(),
            };
            self.newest.insert(key.to_vec(), version);
        }
    }

    /// Prints them in order.
    pub(super) fn print(&self, asked: &Asked, out: &mut Out) -> Result<()> {
        for (n, (key, version)) in self.newest.iter().enumerate() {
            if asked.is_enough(n as u64) {
                out.part("keys", &[("more", json!(self.newest.len() - n))])?;
                break;
            }
            out.part(
                "key",
                &[
                    ("key", line::bytes(key).into()),
                    ("created", json!(version.create_revision)),
                    ("changed", json!(version.mod_revision)),
                    ("version", json!(version.version)),
                    ("lease", format!("{:016x}", version.lease).into()),
                    ("value bytes", json!(version.value_bytes)),
                ],
            )?;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }
}
