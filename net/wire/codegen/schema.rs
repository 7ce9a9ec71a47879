//! What a schema file says, parsed.

/// An inclusive range of versions; `max == i16::MAX` means "and above".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Versions {
    pub(crate) const ALL: Versions = Versions { min: 0, max: i16::MAX };

    pub(crate) fn contains(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    pub(crate) fn covers(&self, other: Versions) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    pub(crate) fn intersection(&self, other: Versions) -> Versions {
        Versions { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.min > self.max
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    /// Like `Bytes`, and always spliced on encode.
    Records,
    /// Records as a rope of slices (`crate::Records`).
    Rope,
    Struct(String),
    Array(Box<Type>),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    /// Versions in which null can be expressed.
    pub(crate) nullable: Option<Versions>,
    /// The tag, and the versions in which the field travels as a tagged field.
    pub(crate) tag: Option<(u32, Versions)>,
    /// The text after `=`.
    pub(crate) default: Option<String>,
    /// The text after `#` on the field's line.
    pub(crate) doc: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

/// One top-level message: a request, a response, or data.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    /// First flexible version; `i16::MAX` if none.
    pub(crate) flexible_from: i16,
    /// The message's own fields are in `structs[0]`; the nested ones follow.
    pub(crate) structs: Vec<Struct>,
}

impl Message {
    pub(crate) fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|candidate| candidate.name == name)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) advertised: Versions,
    pub(crate) flexible_from: i16,
}

#[derive(Clone, Debug)]
pub(crate) struct File {
    /// The Rust module, which is the file's name.
    pub(crate) module: String,
    pub(crate) api: Option<Api>,
    pub(crate) messages: Vec<Message>,
}
