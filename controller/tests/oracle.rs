//! Kubernetes' own description of its objects, as `k8s-openapi` has it, held against ours: no field of Kubernetes is called
//! unknown here, none works or is kept here that Kubernetes does not have, and what works is of Kubernetes' type.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use mechi_controller::api::{self, change};
use mechi_controller::kv::{KeyValue, Txn, Write};
use mechi_controller::types::event::Event;
use mechi_controller::types::node::{Namespace, Node};
use mechi_controller::types::object::{Field, ObjectShape, Plain, Shape};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::Held;
use mechi_controller::types::time::Time;
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: u64 = 7;

/// What is compared, and what differs.
#[derive(Default)]
struct Comparison {
    definitions: Value,
    /// Pairs of our type and Kubernetes' that were compared.
    seen: BTreeSet<(&'static str, String)>,
    /// What Kubernetes' types have that are one of ours: conditions of all kinds are one.
    known: BTreeMap<&'static str, BTreeSet<String>>,
    shapes: BTreeMap<&'static str, &'static ObjectShape>,
    fields: usize,
    wrong: Vec<String>,
}

impl Comparison {
    fn kind<Ours: Field, Theirs: JsonSchema>(&mut self, name: &str) {
        let schema = SchemaGenerator::default().into_root_schema_for::<Theirs>().to_value();
        self.definitions = schema["$defs"].clone();
        self.walk(Ours::shape(), &schema, name);
    }

    fn walk(&mut self, shape: Shape, schema: &Value, path: &str) {
        let reference =
            schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/$defs/")).unwrap_or_default().to_owned();
        let definition = if reference.is_empty() { schema.clone() } else { self.definitions[&reference].clone() };
        let is = |name: &str| definition["type"] == name;
        let is_right = match shape {
            Shape::Any => true,
            Shape::Plain(plain) => is_of(plain, &definition),
            Shape::List(item) => {
                self.walk(item(), &definition["items"], &format!("{path}[]"));
                is("array")
            }
            Shape::Map(item) => {
                self.walk(item(), &definition["additionalProperties"], &format!("{path}{{}}"));
                is("object")
            }
            Shape::Object(object) => {
                self.object(object, &reference, &definition, path);
                is("object")
            }
        };
        if !is_right {
            let mut told = definition;
            told.as_object_mut().into_iter().for_each(|told| drop(told.remove("description")));
            self.wrong.push(format!("{path} is {shape:?} here, and there {told}"));
        }
    }

    fn object(&mut self, object: &'static ObjectShape, reference: &str, definition: &Value, path: &str) {
        if !self.seen.insert((object.name, reference.to_owned())) {
            return;
        }
        self.shapes.insert(object.name, object);
        let properties = definition["properties"].as_object().cloned().unwrap_or_default();
        for (name, schema) in &properties {
            self.fields += 1;
            self.known.entry(object.name).or_default().insert(name.clone());
            match object.fields.iter().find(|(field, _)| field == name) {
                Some((_, shape)) => self.walk(shape(), schema, &format!("{path}.{name}")),
                None if object.inert.contains(&name.as_str()) => {}
                None => self.wrong.push(format!("{path}.{name} is unknown here")),
            }
        }
    }

    /// Adds what Kubernetes does not have.
    fn finish(mut self) -> (usize, Vec<String>) {
        for (name, object) in &self.shapes {
            let ours = object.fields.iter().map(|(field, _)| *field).chain(object.inert.iter().copied());
            let more = ours.filter(|field| !self.known.get(name).is_some_and(|known| known.contains(*field)));
            self.wrong
                .extend(more.map(|field| format!("{name}.{field} is known here, and Kubernetes does not have it")));
        }
        (self.fields, self.wrong)
    }
}

fn is_of(plain: Plain, definition: &Value) -> bool {
    let is_number = |format: &str| definition["type"] == "integer" && definition["format"] == format;
    match plain {
        Plain::Text => definition["type"] == "string" && definition["format"].is_null(),
        Plain::Bool => definition["type"] == "boolean",
        Plain::Int32 => is_number("int32"),
        Plain::Int64 => is_number("int64"),
        Plain::Time => definition["type"] == "string" && definition["format"] == "date-time",
        Plain::Quantity | Plain::IntOrPercent => definition["x-kubernetes-int-or-string"] == true,
    }
}

#[test]
fn each_kind_of_difference_is_told() {
    static SHAPE: ObjectShape =
        ObjectShape { name: "Taint", fields: &[("key", i32::shape), ("value", String::shape)], inert: &["colour"] };
    let mut comparison = Comparison::default();
    let schema = SchemaGenerator::default().into_root_schema_for::<core::Taint>().to_value();
    comparison.walk(Shape::Object(&SHAPE), &schema, "Taint");
    assert_eq!(
        comparison.finish().1,
        [
            "Taint.effect is unknown here",
            "Taint.key is Plain(Int32) here, and there {\"type\":\"string\"}",
            "Taint.timeAdded is unknown here",
            "Taint.colour is known here, and Kubernetes does not have it",
        ]
    );
}

#[test]
fn our_fields_are_kubernetes_fields() {
    let mut comparison = Comparison::default();
    comparison.kind::<Pod, core::Pod>("Pod");
    comparison.kind::<Node, core::Node>("Node");
    comparison.kind::<Namespace, core::Namespace>("Namespace");
    comparison.kind::<ReplicaSet, apps::ReplicaSet>("ReplicaSet");
    comparison.kind::<Deployment, apps::Deployment>("Deployment");
    comparison.kind::<Event, core::Event>("Event");
    let (fields, wrong) = comparison.finish();
    println!("{fields} fields of Kubernetes were compared");
    assert!(fields > 200, "only {fields} fields were compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is stored of an object, defaults and all, is read by Kubernetes' types, and they write the same.
#[test]
fn what_is_stored_is_what_kubernetes_types_read_and_write() {
    let now = Time(1_800_000_000);
    let namespace: Namespace = api::read(br#"{"metadata": {"name": "default"}}"#, true).expect("a namespace");
    let template = json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
        "spec": {
            "priority": 7, "nodeSelector": {"disk": "fast"}, "terminationGracePeriodSeconds": 5,
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            ]}}},
            "containers": [{
                "name": "c", "image": "i", "command": ["x"], "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1"}},
                "imagePullPolicy": "Always", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    });
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template, "minReadySeconds": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        },
    });
    let deployment: Deployment = api::read(deployment.to_string().as_bytes(), true).expect("a Deployment");
    let (_, made) = change::create(CLUSTER, namespace, None, now).expect("is made");
    let item = written(&made);
    let room = Held::<Namespace>::read(CLUSTER, &item).expect("is read");
    agree::<core::Namespace>(&item.value);
    let (_, made) = change::create(CLUSTER, deployment, Some(&room), now).expect("is made");
    agree::<apps::Deployment>(&written(&made).value);
}

/// What a transaction puts first.
fn written(txn: &Txn) -> KeyValue {
    let Some(Write::Put { key, value, .. }) = txn.writes().first() else { panic!("nothing is put: {txn:?}") };
    KeyValue { key: key.clone(), value: value.clone(), created: 2, modified: 2, version: 1, lease: 0 }
}

fn agree<Theirs: Serialize + DeserializeOwned>(stored: &[u8]) {
    let ours: Value = serde_json::from_slice(stored).expect("is JSON");
    let read: Theirs = serde_json::from_slice(stored).expect("Kubernetes' type reads it");
    assert_eq!(serde_json::to_value(&read).expect("is JSON"), ours);
}
