//! What an object says that is of the wrong type, unknown, or without effect here: with its path, in Kubernetes' words.

use super::object::{Field, ObjectShape, Plain, Shape};
use crate::limits::{OBJECT_DEPTH_MAX, READ_BYTES_MAX};
use serde_json::Value;

/// A field that does nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it is: `spec.template.spec.containers[0].imagePullPolicy`.
    pub path: String,
    /// Whether Kubernetes has no such field either.
    pub is_unknown: bool,
}

/// Reads an object.
///
/// - Errors: text that is no JSON, or a value of the wrong type, in Go's words with the field's path; too many bytes.
pub fn read<T: Field>(json: &[u8]) -> Result<T, String> {
    if json.len() > READ_BYTES_MAX {
        return Err(format!("the object has {} bytes, and may have {READ_BYTES_MAX} at most", json.len()));
    }
    serde_json::from_slice(json).map_err(|error| {
        // The fast way says where in the text; people want to know which field.
        let value: Result<Value, _> = serde_json::from_slice(json);
        match value {
            Ok(value) => wrong_type(&value, T::shape(), "", "", 0).unwrap_or_else(|| error.to_string()),
            Err(error) => error.to_string(),
        }
    })
}

/// Names all fields of an object that do nothing here.
pub fn strays<T: Field>(object: &Value) -> Vec<Stray> {
    let mut found = Vec::new();
    collect(object, T::shape(), "", 0, &mut found);
    found
}

/// The first value that is not of its field's type: Go's message.
fn wrong_type(value: &Value, shape: Shape, of: &str, path: &str, depth: usize) -> Option<String> {
    if depth > OBJECT_DEPTH_MAX {
        return Some(format!("{path} is more than {OBJECT_DEPTH_MAX} levels deep"));
    }
    let wrong = |wanted: &str| {
        let target = if path.is_empty() { "value".to_owned() } else { format!("struct field {of}.{path}") };
        Some(format!("json: cannot unmarshal {} into Go {target} of type {wanted}", kind_of(value)))
    };
    if value.is_null() {
        return None;
    }
    match shape {
        Shape::Any => None,
        Shape::Plain(plain) => match fits(value, plain) {
            Fit::Yes => None,
            Fit::Type(wanted) => wrong(wanted),
            Fit::Content(why) => Some(why),
        },
        Shape::List(item) => match value {
            Value::Array(items) => items.iter().find_map(|value| wrong_type(value, item(), of, path, depth + 1)),
            _ => wrong("[]"),
        },
        Shape::Map(item) => match value {
            Value::Object(map) => map.values().find_map(|value| wrong_type(value, item(), of, path, depth + 1)),
            _ => wrong("map[string]"),
        },
        Shape::Object(object) => match value {
            Value::Object(map) => map.iter().find_map(|(name, value)| {
                // Go names the innermost struct, and the path from the outermost.
                wrong_type(value, field(object, name)?, object.name, &join(path, name), depth + 1)
            }),
            _ => wrong(&format!("v1.{}", object.name)),
        },
    }
}

enum Fit {
    Yes,
    /// Of another type than this.
    Type(&'static str),
    /// Of the right type, and wrong all the same.
    Content(String),
}

fn fits(value: &Value, plain: Plain) -> Fit {
    let whole = |bits: i64| value.as_i64().is_some_and(|number| (-bits - 1..=bits).contains(&number));
    let is_ok = match plain {
        Plain::Text => value.is_string(),
        Plain::Bool => value.is_boolean(),
        Plain::Int32 => whole(i32::MAX.into()),
        Plain::Int64 => whole(i64::MAX),
        Plain::IntOrPercent => value.is_string() || whole(i32::MAX.into()),
        Plain::Quantity | Plain::Time => {
            let text = value.as_str().map(str::to_owned).or_else(|| value.is_number().then(|| value.to_string()));
            let Some(text) = text else {
                return Fit::Type(if plain == Plain::Time { "v1.Time" } else { "resource.Quantity" });
            };
            let why = if plain == Plain::Time {
                text.parse::<super::time::Time>().err().map(|error| error.to_string())
            } else {
                text.parse::<super::quantity::Quantity>().err().map(|error| error.to_string())
            };
            return why.map_or(Fit::Yes, Fit::Content);
        }
    };
    let wanted = match plain {
        Plain::Text => "string",
        Plain::Bool => "bool",
        Plain::Int32 => "int32",
        Plain::Int64 => "int64",
        Plain::IntOrPercent | Plain::Quantity | Plain::Time => "intstr.IntOrString",
    };
    if is_ok { Fit::Yes } else { Fit::Type(wanted) }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // Go names the number itself when it is one that does not fit.
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn collect(value: &Value, shape: Shape, path: &str, depth: usize, found: &mut Vec<Stray>) {
    if depth > OBJECT_DEPTH_MAX {
        return;
    }
    match (shape, value) {
        (Shape::List(item), Value::Array(items)) => {
            for (n, value) in items.iter().enumerate() {
                collect(value, item(), &format!("{path}[{n}]"), depth + 1, found);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for (name, value) in map {
                collect(value, item(), &join(path, name), depth + 1, found);
            }
        }
        (Shape::Object(object), Value::Object(map)) => {
            for (name, value) in map {
                let path = join(path, name);
                match field(object, name) {
                    Some(shape) => collect(value, shape, &path, depth + 1, found),
                    None => found.push(Stray { path, is_unknown: !object.inert.contains(&name.as_str()) }),
                }
            }
        }
        _ => {}
    }
}

fn field(object: &ObjectShape, name: &str) -> Option<Shape> {
    object.fields.iter().find(|(field, _)| *field == name).map(|(_, shape)| shape())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::super::pod::Pod;
    use super::super::workload::Deployment;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_type_is_named_with_its_path_in_gos_words() {
        let read = |value: Value| read::<Deployment>(value.to_string().as_bytes()).expect_err("it is wrong");
        assert_eq!(
            read(json!({"spec": {"replicas": "three"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            read(json!({"spec": {"template": {"spec": {"containers": [{"name": 7}]}}}})),
            "json: cannot unmarshal number 7 into Go struct field Container.spec.template.spec.containers.name of type string"
        );
        assert_eq!(
            read(
                json!({"spec": {"template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "lots"}}}]}}}})
            ),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
        assert!(read(json!([1])).starts_with("json: cannot unmarshal array into Go value of type v1.Deployment"));
    }

    #[test]
    fn what_does_nothing_here_is_named_and_kept() {
        let pod = json!({
            "metadata": {"name": "a", "colour": "red"},
            "spec": {"containers": [{"name": "c", "imagePullPolicy": "Always", "imgae": "x"}], "dnsPolicy": "Default"},
        });
        let strays = strays::<Pod>(&pod);
        let told: Vec<(&str, bool)> = strays.iter().map(|stray| (stray.path.as_str(), stray.is_unknown)).collect();
        assert_eq!(
            told,
            [
                ("metadata.colour", true),
                ("spec.containers[0].imagePullPolicy", false),
                ("spec.containers[0].imgae", true),
                ("spec.dnsPolicy", false),
            ]
        );
        let read: Pod = read(pod.to_string().as_bytes()).expect("a pod");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), pod);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let big = format!("{{\"metadata\": {{\"name\": \"{}\"}}}}", "a".repeat(READ_BYTES_MAX));
        assert!(read::<Pod>(big.as_bytes()).expect_err("too large").contains("1572864 at most"));
    }
}
