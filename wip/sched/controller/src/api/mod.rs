//! What clients do with objects: make, read, list, change, delete; with Kubernetes' rules and in its words.
//!
//! In reading order: `status` (refusals), `names`, `defaults`, `validate` (what is taken), `change` (the transaction of each
//! change), and the calls here, which read, write, and tell conflicts.

pub mod status;
pub mod names;
pub mod defaults;
pub mod validate;
pub mod change;

use crate::keys::{Kind, ObjectKey, prefix_end};
use crate::kv::{Error, Guard, KeyValue, Kv, Outcome, Range, Txn};
use crate::limits::{API_PAGE, TRIES_MAX};
use crate::types::fields;
use crate::types::node::Namespace;
use crate::types::resource::Held;
use crate::types::time::Time;
use change::{Deletion, Half, Rules};
use status::Status;

/// Objects in a store.
#[derive(Clone)]
pub struct Api<K> {
    kv: K,
}

/// What was read, with what reading anything says.
struct Found {
    item: Option<KeyValue>,
    cluster_id: u64,
}

fn refused(error: Error) -> Status {
    match error {
        Error::Refused(why) => Status::too_large(why),
        other => Status::unavailable(&other.to_string()),
    }
}

/// Reads an object that somebody wrote down.
///
/// - Errors: it is no object of this kind; it has fields that nobody knows, if it was to have none.
pub fn read<T: Rules>(json: &[u8], strict: bool) -> Result<T, Status> {
    let object: T = fields::read(json).map_err(|why| Status::unreadable(T::KIND, &why))?;
    if strict {
        let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
        let unknown = fields::strays::<T>(&value).into_iter().filter(|stray| stray.is_unknown);
        let unknown: Vec<String> = unknown.map(|stray| stray.path).collect();
        if !unknown.is_empty() {
            return Err(Status::unknown_fields(T::KIND, &unknown));
        }
    }
    Ok(object)
}

impl<K: Kv> Api<K> {
    /// Objects in this store.
    pub fn new(kv: K) -> Self {
        Self { kv }
    }

    async fn find(&self, key: &ObjectKey) -> Result<Found, Status> {
        let key = key.to_string();
        let range = Range { end: [key.as_bytes(), &[0]].concat().into(), key: key.into(), ..Range::default() };
        let page = self.kv.range(range).await.map_err(refused)?;
        Ok(Found { item: page.items.into_iter().next(), cluster_id: page.cluster_id })
    }

    /// Reads an object.
    ///
    /// - Errors: there is none.
    pub async fn get<T: Rules>(&self, namespace: &str, name: &str) -> Result<Held<T>, Status> {
        let key = ObjectKey::new(T::KIND, namespace, name);
        let found = self.find(&key).await?;
        let item = found.item.ok_or_else(|| Status::not_found(&key))?;
        Held::read(found.cluster_id, &item).map_err(|why| Status::unreadable(T::KIND, &why))
    }

    /// Reads all objects of a kind, of one namespace or of all if it is empty, as of one revision.
    pub async fn list<T: Rules>(&self, namespace: &str) -> Result<Vec<Held<T>>, Status> {
        let prefix = match namespace {
            "" => T::KIND.prefix(),
            namespace => format!("{}{namespace}/", T::KIND.prefix()),
        };
        let mut range = Range { end: prefix_end(&prefix).into(), key: prefix.into(), limit: API_PAGE, revision: 0 };
        let mut all = Vec::new();
        loop {
            let page = self.kv.range(range.clone()).await.map_err(refused)?;
            if range.revision == 0 {
                range.revision = page.revision;
            }
            if let Some(last) = page.items.last() {
                range.key = [&last.key[..], &[0]].concat().into();
            }
            for item in &page.items {
                all.push(Held::read(page.cluster_id, item).map_err(|why| Status::unreadable(T::KIND, &why))?);
            }
            if !page.more {
                return Ok(all);
            }
        }
    }

    /// Makes an object.
    ///
    /// - Errors: what is wrong with it; there is one already; its namespace is not there, or goes.
    pub async fn create<T: Rules>(&self, object: T, now: Time) -> Result<Held<T>, Status> {
        let room = ObjectKey::new(Kind::Namespace, "", &object.meta().namespace);
        for _ in 0..TRIES_MAX {
            let found = self.find(&room).await?;
            let namespace: Option<Held<Namespace>> = match &found.item {
                Some(item) => {
                    Some(Held::read(found.cluster_id, item).map_err(|why| Status::unreadable(Kind::Namespace, &why))?)
                }
                None => None,
            };
            let (made, txn) = change::create(found.cluster_id, object.clone_object(), namespace.as_ref(), now)?;
            let key = made.key();
            match self.commit(&txn).await? {
                Done::Written(revision) => {
                    let (value, created) = (made.to_stored(), revision);
                    let key = key.to_string().into();
                    let item = KeyValue { key, value, created, modified: revision, version: 1, lease: 0 };
                    return Held::read(found.cluster_id, &item).map_err(|why| Status::unreadable(T::KIND, &why));
                }
                Done::Refused(guards) => {
                    let is_there = guards.iter().any(|guard| matches!(guard, Guard::Absent { .. }));
                    // An unknown outcome may have been our own success.
                    let own = self.find(&key).await?.item.filter(|item| item.value == made.to_stored());
                    if let Some(own) = own.filter(|_| is_there) {
                        return Held::read(found.cluster_id, &own).map_err(|why| Status::unreadable(T::KIND, &why));
                    }
                    if is_there {
                        return Err(Status::already_exists(&key));
                    }
                    if guards.iter().any(|guard| matches!(guard, Guard::Alive { .. })) {
                        return Err(Status::conflict(&key));
                    }
                    // The namespace changed: it is looked at again.
                }
            }
        }
        Err(Status::conflict(&ObjectKey::new(T::KIND, &object.meta().namespace, &object.meta().name)))
    }

    /// Changes an object as a function says, again for each change that came in between.
    ///
    /// - Errors: there is none; what is wrong with the change; `change`'s own.
    pub async fn modify<T: Rules>(
        &self,
        namespace: &str,
        name: &str,
        half: Half,
        mut change: impl FnMut(&mut T) -> Result<(), Status>,
    ) -> Result<Held<T>, Status> {
        for _ in 0..TRIES_MAX {
            let old: Held<T> = self.get(namespace, name).await?;
            let mut new = old.to_object();
            change(&mut new)?;
            let Some(txn) = change::update(&old, new, half)? else {
                return Ok(old);
            };
            if let Done::Written(_) = self.commit(&txn).await? {
                return match self.get(namespace, name).await {
                    // The change let it go.
                    Err(gone) if gone.reason == "NotFound" => Ok(old),
                    read => read,
                };
            }
        }
        Err(Status::conflict(&ObjectKey::new(T::KIND, namespace, name)))
    }

    /// Puts an object in the place of the one that it was read as.
    ///
    /// - Errors: there is none; it is not what it was, if `resourceVersion` is said; what is wrong with it.
    pub async fn replace<T: Rules>(&self, object: T, half: Half) -> Result<Held<T>, Status> {
        let (key, meta) = (object.key(), object.meta().clone());
        self.modify(&meta.namespace, &meta.name, half, |now: &mut T| {
            let version = &meta.resource_version;
            let is_other = !version.is_empty() && *version != now.meta().resource_version;
            if is_other || !meta.uid.is_empty() && meta.uid != now.meta().uid {
                return Err(Status::conflict(&key));
            }
            let (created, deleted) = (now.meta().creation_timestamp, now.meta().deletion_timestamp);
            *now = object.clone_object();
            let meta = now.meta_mut();
            (meta.creation_timestamp, meta.deletion_timestamp) = (created, deleted);
            Ok(())
        })
        .await
    }

    /// Deletes an object. Returns whether it is gone; if not, it goes once whoever must has stopped or emptied it.
    ///
    /// - Errors: there is none; it is not the one that was meant.
    pub async fn delete<T: Rules>(
        &self,
        namespace: &str,
        name: &str,
        how: &Deletion,
        now: Time,
    ) -> Result<bool, Status> {
        let mut tried = false;
        for _ in 0..TRIES_MAX {
            let old: Held<T> = match self.get(namespace, name).await {
                // An unknown outcome may have been our own success.
                Err(gone) if gone.reason == "NotFound" && tried => return Ok(true),
                read => read?,
            };
            let Some(txn) = change::delete(&old, how, now)? else {
                return Ok(false);
            };
            tried = true;
            if let Done::Written(_) = self.commit(&txn).await? {
                let key = old.key().to_string();
                return Ok(txn
                    .writes()
                    .iter()
                    .any(|write| matches!(write, crate::kv::Write::Delete { key: gone } if *gone == key.as_bytes())));
            }
        }
        Err(Status::conflict(&ObjectKey::new(T::KIND, namespace, name)))
    }

    /// Writes a transaction, the same again while its outcome is unknown.
    async fn commit(&self, txn: &Txn) -> Result<Done, Status> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            match self.kv.txn(txn).await {
                Ok(Outcome::Committed(revision)) => return Ok(Done::Written(revision)),
                Ok(Outcome::Refused { seen, .. }) => {
                    let failed = txn.guards().iter().zip(&seen).filter(|(guard, seen)| !guard.holds(seen));
                    return Ok(Done::Refused(failed.map(|(guard, _)| guard.clone()).collect()));
                }
                Err(error @ Error::Unknown(_)) => last = Some(error),
                Err(error) => return Err(refused(error)),
            }
        }
        Err(refused(last.unwrap_or_else(|| Error::Unavailable("no answer".to_owned()))))
    }
}

/// What became of a transaction, for certain.
enum Done {
    Written(i64),
    /// These guards did not hold.
    Refused(Vec<Guard>),
}

#[cfg(test)]
mod tests;
