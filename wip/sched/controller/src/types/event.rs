//! What happened, for people: best effort, and gone after an hour.

use super::meta::ObjectMeta;
use super::object::object;
use super::time::Time;

object! {
    /// Something that happened to an object.
    Event ["action", "eventTime", "related", "reportingComponent", "reportingInstance", "series"] {
        /// `v1`.
        api_version: String = "apiVersion",
        /// `Event`.
        kind: String = "kind",
        /// Its name.
        metadata: ObjectMeta = "metadata",
        /// What it happened to.
        involved_object: ObjectReference = "involvedObject",
        /// What happened, for programs.
        reason: String = "reason",
        /// What happened, for people.
        message: String = "message",
        /// Who says so.
        source: EventSource = "source",
        /// When it first did.
        first_timestamp: Option<Time> = "firstTimestamp",
        /// When it last did.
        last_timestamp: Option<Time> = "lastTimestamp",
        /// How often.
        count: i32 = "count",
        /// Normal or Warning.
        r#type: String = "type",
    }

    /// An object, from outside.
    ObjectReference ["fieldPath"] {
        /// Its API.
        api_version: String = "apiVersion",
        /// Its kind.
        kind: String = "kind",
        /// Its namespace.
        namespace: String = "namespace",
        /// Its name.
        name: String = "name",
        /// Its incarnation.
        uid: String = "uid",
        /// Its state.
        resource_version: String = "resourceVersion",
    }

    /// Who says that something happened.
    EventSource [] {
        /// Which component.
        component: String = "component",
        /// On which node.
        host: String = "host",
    }
}
