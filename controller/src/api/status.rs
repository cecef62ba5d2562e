//! Why something cannot be done, in Kubernetes' words and with its codes.

use crate::keys::{Kind, ObjectKey};
use std::fmt;

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP's.
    pub code: u16,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Something that is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Required(String),
    Invalid(String, String),
    Unsupported(String, Vec<&'static str>),
    Duplicate(String),
    Forbidden(String),
    TooLong(usize),
}

impl FieldError {
    /// It has to be there.
    pub fn required(path: impl Into<String>, detail: &str) -> Self {
        Self { path: path.into(), what: What::Required(detail.to_owned()) }
    }

    /// Its value, as Go prints it, is none that it may have.
    pub fn invalid(path: impl Into<String>, value: impl fmt::Display, detail: &str) -> Self {
        Self { path: path.into(), what: What::Invalid(value.to_string(), detail.to_owned()) }
    }

    /// Its value is not one of these.
    pub fn unsupported(path: impl Into<String>, value: &str, known: &[&'static str]) -> Self {
        Self { path: path.into(), what: What::Unsupported(value.to_owned(), known.to_vec()) }
    }

    /// Its value is there twice.
    pub fn duplicate(path: impl Into<String>, value: &str) -> Self {
        Self { path: path.into(), what: What::Duplicate(value.to_owned()) }
    }

    /// It may not be set, or not be changed.
    pub fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self { path: path.into(), what: What::Forbidden(detail.to_owned()) }
    }

    /// It has more bytes than it may have.
    pub fn too_long(path: impl Into<String>, most: usize) -> Self {
        Self { path: path.into(), what: What::TooLong(most) }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.what {
            What::Required(detail) if detail.is_empty() => write!(f, "{path}: Required value"),
            What::Required(detail) => write!(f, "{path}: Required value: {detail}"),
            What::Invalid(value, detail) => write!(f, "{path}: Invalid value: {value}: {detail}"),
            What::Unsupported(value, known) => {
                let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
                write!(f, "{path}: Unsupported value: {value:?}: supported values: {}", known.join(", "))
            }
            What::Duplicate(value) => write!(f, "{path}: Duplicate value: {value:?}"),
            What::Forbidden(detail) => write!(f, "{path}: Forbidden: {detail}"),
            What::TooLong(most) => write!(f, "{path}: Too long: may not be more than {most} bytes"),
        }
    }
}

/// A kind with its group, as messages about one object have it: `Deployment.apps`.
fn grouped(kind: Kind) -> String {
    let group = if kind.api_version() == "v1" { "" } else { ".apps" };
    format!("{}{group}", kind.name())
}

impl Status {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message }
    }

    /// There is no such object.
    pub fn not_found(key: &ObjectKey) -> Self {
        Self::new(404, "NotFound", format!("{} {:?} not found", key.kind.qualified(), key.name()))
    }

    /// There is one already.
    pub fn already_exists(key: &ObjectKey) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {:?} already exists", key.kind.qualified(), key.name()))
    }

    /// It is not what it was when it was read.
    pub fn conflict(key: &ObjectKey) -> Self {
        let (what, name) = (key.kind.qualified(), key.name());
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} {name:?}: {why}"))
    }

    /// Its namespace goes.
    pub fn terminating(key: &ObjectKey) -> Self {
        let (what, name, namespace) = (key.kind.qualified(), key.name(), key.namespace());
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::new(403, "Forbidden", format!("{what} {name:?} is forbidden: {why}"))
    }

    /// Its fields contradict each other, or what they may be. `errors` is not empty.
    pub fn invalid(key: &ObjectKey, errors: &[FieldError]) -> Self {
        let mut told: Vec<String> = Vec::new();
        for error in errors.iter().map(FieldError::to_string) {
            if !told.contains(&error) {
                told.push(error);
            }
        }
        let told = if let [one] = &told[..] { one.clone() } else { format!("[{}]", told.join(", ")) };
        Self::new(422, "Invalid", format!("{} {:?} is invalid: {told}", grouped(key.kind), key.name()))
    }

    /// It cannot be read at all.
    pub fn unreadable(kind: Kind, why: &str) -> Self {
        let (name, version) = (kind.name(), "v1");
        Self::new(400, "BadRequest", format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
    }

    /// Fields that Kubernetes does not know, in an object that was to have none.
    pub fn unknown_fields(kind: Kind, paths: &[String]) -> Self {
        let told: Vec<String> = paths.iter().map(|path| format!("unknown field {path:?}")).collect();
        let (name, told) = (kind.name(), told.join(", "));
        Self::new(
            400,
            "BadRequest",
            format!("{name} in version \"v1\" cannot be handled as a {name}: strict decoding error: {told}"),
        )
    }

    /// The store does not answer, or not for certain.
    pub fn unavailable(why: &str) -> Self {
        Self::new(503, "ServiceUnavailable", why.to_owned())
    }

    /// It is more than an object may be.
    pub fn too_large(why: String) -> Self {
        Self::new(413, "RequestEntityTooLarge", why)
    }
}
