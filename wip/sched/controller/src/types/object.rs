//! One macro makes the objects: their fields in Kubernetes' names, everything else kept, and a description of both.
//!
//! What a struct does not know it keeps in `extra` and writes back, so that nothing is ever dropped in silence. Which of
//! those are *kept without effect* and which are *unknown* the description says, and [`super::fields`] tells people.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fields that an object had and that this control plane does not act on.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// What a value of a type looks like in JSON.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A JSON type, and what Go calls it.
    Plain(Plain),
    /// A list.
    List(fn() -> Shape),
    /// A map from strings.
    Map(fn() -> Shape),
    /// An object with fields.
    Object(&'static ObjectShape),
    /// Anything.
    Any,
}

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Text.
    Text,
    /// True or false.
    Bool,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// Kubernetes' amount: text or a number.
    Quantity,
    /// RFC 3339.
    Time,
    /// A whole number, or a percentage as text.
    IntOrPercent,
}

/// A field's name and what its value looks like.
pub type FieldShape = (&'static str, fn() -> Shape);

/// What an object's fields are.
#[derive(Debug)]
pub struct ObjectShape {
    /// The name of the type, which Go's error messages have.
    pub name: &'static str,
    /// The fields that work.
    pub fields: &'static [FieldShape],
    /// Fields that Kubernetes has and that are kept here without effect.
    pub inert: &'static [&'static str],
}

/// A type that may be a field of an object.
pub trait Field: Serialize + DeserializeOwned + Default {
    /// Its JSON.
    fn shape() -> Shape;

    /// Whether it is left out when it is written, as Kubernetes' `omitempty` does.
    fn is_absent(&self) -> bool;
}

macro_rules! plain_field {
    ($($type:ty => $plain:ident, $absent:expr;)*) => {$(
        impl Field for $type {
            fn shape() -> Shape {
                Shape::Plain(Plain::$plain)
            }

            fn is_absent(&self) -> bool {
                let absent: fn(&$type) -> bool = $absent;
                absent(self)
            }
        }
    )*};
}

plain_field! {
    String => Text, String::is_empty;
    bool => Bool, |value| !value;
    i32 => Int32, |value| *value == 0;
    i64 => Int64, |value| *value == 0;
    super::quantity::Quantity => Quantity, |_| false;
    super::time::Time => Time, |_| false;
    super::percent::IntOrPercent => IntOrPercent, |_| false;
}

impl<T: Field> Field for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Field> Field for Vec<T> {
    fn shape() -> Shape {
        Shape::List(T::shape)
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn shape() -> Shape {
        Shape::Map(T::shape)
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Field for Extra {
    fn shape() -> Shape {
        Shape::Map(|| Shape::Any)
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Makes a struct of an object: `Name ["kept", "without", "effect"] { field: Type = "jsonName", … }`.
///
/// It reads `null` as absent, as Go does, and writes what was unknown after what is known.
macro_rules! object {
    ($($(#[$meta:meta])* $name:ident [$($inert:literal),* $(,)?] {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $json:literal),* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// What else it had.
            pub extra: $crate::types::object::Extra,
        }

        impl $crate::types::object::Field for $name {
            fn shape() -> $crate::types::object::Shape {
                const SHAPE: $crate::types::object::ObjectShape = $crate::types::object::ObjectShape {
                    name: stringify!($name),
                    fields: &[$(($json, <$type as $crate::types::object::Field>::shape)),*],
                    inert: &[$($inert),*],
                };
                $crate::types::object::Shape::Object(&SHAPE)
            }

            fn is_absent(&self) -> bool {
                $($crate::types::object::Field::is_absent(&self.$field) &&)* self.extra.is_empty()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $(if !$crate::types::object::Field::is_absent(&self.$field) {
                    map.serialize_entry($json, &self.$field)?;
                })*
                for (name, value) in &self.extra {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> serde::de::Visitor<'de> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object: ", stringify!($name)))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut object = $name::default();
                        while let Some(name) = map.next_key::<$crate::types::object::Name<'de>>()? {
                            match name.0.as_ref() {
                                $($json => object.$field = map.next_value::<Option<$type>>()?.unwrap_or_default(),)*
                                other => {
                                    let other = other.to_owned();
                                    object.extra.insert(other, map.next_value()?);
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Reader)
            }
        }
    )*};
}
pub(crate) use object;

/// A field's name, borrowed from what is read wherever it can be.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Name<'a>(#[serde(borrow)] pub std::borrow::Cow<'a, str>);
