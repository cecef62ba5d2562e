//! What all kinds have in common: a name, a life, and a way into the store and out of it.

use super::fields;
use super::meta::ObjectMeta;
use super::node::{Namespace, Node};
use super::object::Field;
use super::pod::Pod;
use super::workload::{Deployment, ReplicaSet};
use crate::keys::{self, Kind, ObjectKey};
use crate::kv::{KeyValue, Revision};
use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;

/// An object of one of the kinds.
pub trait Resource: Field + Send + Sync + 'static {
    /// Which.
    const KIND: Kind;

    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;

    /// Its metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// Sets `apiVersion` and `kind`.
    fn set_type(&mut self, api_version: &str, kind: &str);

    /// Where it is in the store.
    fn key(&self) -> ObjectKey {
        ObjectKey::new(Self::KIND, &self.meta().namespace, &self.meta().name)
    }

    /// What the store holds of it: everything but what its key's revisions say.
    fn to_stored(&self) -> Bytes {
        let mut bare = self.clone_object();
        let meta = bare.meta_mut();
        meta.uid.clear();
        meta.resource_version.clear();
        bare.set_type(Self::KIND.api_version(), Self::KIND.name());
        serde_json::to_vec(&bare).expect("objects have text as keys").into()
    }

    /// A copy of its own.
    fn clone_object(&self) -> Self;
}

macro_rules! resources {
    ($($type:ident),*) => {$(
        impl Resource for $type {
            const KIND: Kind = Kind::$type;

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }

            fn set_type(&mut self, api_version: &str, kind: &str) {
                api_version.clone_into(&mut self.api_version);
                kind.clone_into(&mut self.kind);
            }

            fn clone_object(&self) -> Self {
                self.clone()
            }
        }
    )*};
}

resources!(Namespace, Node, Pod, ReplicaSet, Deployment);

/// An object as the store has it, with the revisions of its key.
#[derive(Debug)]
pub struct Held<T> {
    object: Arc<T>,
    /// When this incarnation began.
    pub created: Revision,
    /// When it last changed.
    pub modified: Revision,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), created: self.created, modified: self.modified }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Resource> Held<T> {
    /// Reads what the store holds; uid and resource version come from the key and its revisions.
    ///
    /// - Errors: what is wrong with it, with the field's path.
    pub fn read(cluster_id: u64, from: &KeyValue) -> Result<Self, String> {
        let mut object: T = fields::read(&from.value)?;
        let meta = object.meta_mut();
        meta.uid = keys::uid(cluster_id, &from.key, from.created);
        meta.resource_version = from.modified.to_string();
        Ok(Self { object: Arc::new(object), created: from.created, modified: from.modified })
    }

    /// A copy to be changed.
    pub fn to_object(&self) -> T {
        self.object.clone_object()
    }
}
