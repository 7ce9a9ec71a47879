//! Types, defaults, decoding and encoding of single fields.

use super::emit::{condition, rust_name};
use super::schema::{Field, Message, Struct, Type, Versions};

/// The Rust type of a field.
pub(crate) fn rust_type(field: &Field) -> String {
    let plain = plain_type(&field.ty);
    if field.nullable.is_some() { format!("Option<{plain}>") } else { plain }
}

fn plain_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int8 => "i8".to_owned(),
        Type::Int16 => "i16".to_owned(),
        Type::Uint16 => "u16".to_owned(),
        Type::Int32 => "i32".to_owned(),
        Type::Uint32 => "u32".to_owned(),
        Type::Int64 => "i64".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::String => "ByteString".to_owned(),
        Type::Bytes | Type::Records => "Bytes".to_owned(),
        Type::Rope => "Records".to_owned(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", plain_type(element)),
    }
}

/// The Rust expression of a field's default: Kafka's, which is zero or empty where the schema is silent.
pub(crate) fn default_of(field: &Field) -> String {
    let given = field.default.as_deref();
    if given == Some("null") {
        return "None".to_owned();
    }
    let plain = match &field.ty {
        Type::Bool => given.unwrap_or("false").to_owned(),
        Type::Int8 | Type::Int16 | Type::Uint16 | Type::Int32 | Type::Uint32 | Type::Int64 => {
            given.unwrap_or("0").to_owned()
        }
        Type::Float64 => format!("{}_f64", given.unwrap_or("0.0")),
        Type::Uuid => "Uuid::nil()".to_owned(),
        Type::String => format!("ByteString::from_static(\"{}\")", given.unwrap_or("")),
        Type::Bytes | Type::Records => "Bytes::new()".to_owned(),
        Type::Rope => "Records::default()".to_owned(),
        Type::Struct(name) => format!("{name}::default()"),
        Type::Array(_) => "Vec::new()".to_owned(),
    };
    if field.nullable.is_some() { format!("Some({plain})") } else { plain }
}

/// The expression that decodes a field, `alive` being the versions it is decoded in.
pub(crate) fn decode_field(field: &Field, message: &Message, alive: Versions) -> String {
    let optional = match &field.ty {
        Type::String => "r.nullable_string(flexible)?".to_owned(),
        Type::Bytes | Type::Records => "r.nullable_bytes(flexible)?".to_owned(),
        Type::Rope => "r.nullable_bytes(flexible)?.map(Records::from)".to_owned(),
        Type::Array(element) => {
            let size_min = size_min(element, message);
            format!("r.array(flexible, {size_min}, |r| Ok({}))?", decode_plain(element))
        }
        Type::Struct(name) if field.nullable.is_some() => {
            format!("r.nullable_struct(|r| {name}::read(r, version))?")
        }
        plain => return decode_plain(plain),
    };
    match field.nullable {
        None => format!("non_null({optional})?"),
        Some(range) => match condition(range, alive) {
            None => optional,
            Some(when) => format!("null_if({when}, {optional})?"),
        },
    }
}

fn decode_plain(ty: &Type) -> String {
    match ty {
        Type::Bool => "r.bool()?".to_owned(),
        Type::Int8 => "r.i8()?".to_owned(),
        Type::Int16 => "r.i16()?".to_owned(),
        Type::Uint16 => "r.u16()?".to_owned(),
        Type::Int32 => "r.i32()?".to_owned(),
        Type::Uint32 => "r.u32()?".to_owned(),
        Type::Int64 => "r.i64()?".to_owned(),
        Type::Float64 => "r.f64()?".to_owned(),
        Type::Uuid => "r.uuid()?".to_owned(),
        Type::String => "non_null(r.nullable_string(flexible)?)?".to_owned(),
        Type::Bytes | Type::Records => "non_null(r.nullable_bytes(flexible)?)?".to_owned(),
        Type::Struct(name) => format!("{name}::read(r, version)?"),
        Type::Rope | Type::Array(_) => panic!("arrays of {ty:?} are not supported"),
    }
}

/// Fewest bytes that one value of the type takes in any version (at least 1).
fn size_min(ty: &Type, message: &Message) -> usize {
    let flexible_at_all = message.flexible_from <= message.versions.max;
    match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        Type::String if !flexible_at_all => 2,
        Type::Bytes | Type::Records | Type::Rope | Type::Array(_) if !flexible_at_all => 4,
        Type::String | Type::Bytes | Type::Records | Type::Rope | Type::Array(_) => 1,
        Type::Struct(name) => {
            let structure = message.find(name).expect("checked");
            let versions = message.versions.min..=message.versions.max;
            versions.map(|version| struct_size(structure, message, version)).min().unwrap_or(1).max(1)
        }
    }
}

fn struct_size(structure: &Struct, message: &Message, version: i16) -> usize {
    let fields = structure.fields.iter().filter(|field| {
        field.versions.contains(version) && !field.tag.is_some_and(|(_, range)| range.contains(version))
    });
    let of_fields: usize = fields
        .map(|field| match &field.ty {
            // A null struct is one byte.
            Type::Struct(_) if field.nullable.is_some() => 1,
            ty => size_min(ty, message),
        })
        .sum();
    of_fields + usize::from(version >= message.flexible_from)
}

/// The statement that encodes a field, `alive` being the versions it is encoded in.
pub(crate) fn encode_field(field: &Field, message: &Message, alive: Versions) -> String {
    let _ = message;
    let name = rust_name(field);
    let Some(range) = field.nullable else {
        return encode_plain(&field.ty, &format!("&self.{name}"));
    };
    let (null, empty) = match &field.ty {
        Type::String => ("w.null_string(flexible);".to_owned(), "w.string(flexible, \"\");".to_owned()),
        Type::Bytes | Type::Records | Type::Rope | Type::Array(_) => {
            ("w.null_bytes(flexible);".to_owned(), "w.array_len(flexible, 0);".to_owned())
        }
        Type::Struct(name) => ("w.i8(-1);".to_owned(), format!("{name}::default().write(w, version);")),
        other => panic!("{other:?} cannot be nullable"),
    };
    let none = match condition(range, alive) {
        None => null,
        Some(when) => format!("if {when} {{ {null} }} else {{ {empty} }}"),
    };
    let present = if matches!(field.ty, Type::Struct(_)) { "w.i8(1);" } else { "" };
    let some = encode_plain(&field.ty, "x");
    format!("match &self.{name} {{ Some(x) => {{ {present} {some} }} None => {{ {none} }} }}")
}

/// `value` is an expression for a reference to the value.
fn encode_plain(ty: &Type, value: &str) -> String {
    match ty {
        Type::Bool => format!("w.bool(*({value}));"),
        Type::Int8 => format!("w.i8(*({value}));"),
        Type::Int16 => format!("w.i16(*({value}));"),
        Type::Uint16 => format!("w.u16(*({value}));"),
        Type::Int32 => format!("w.i32(*({value}));"),
        Type::Uint32 => format!("w.u32(*({value}));"),
        Type::Int64 => format!("w.i64(*({value}));"),
        Type::Float64 => format!("w.f64(*({value}));"),
        Type::Uuid => format!("w.uuid({value});"),
        Type::String => format!("w.string(flexible, {value});"),
        Type::Bytes | Type::Records => format!("w.bytes(flexible, {value});"),
        Type::Rope => format!("w.rope(flexible, {value});"),
        Type::Struct(_) => format!("({value}).write(w, version);"),
        Type::Array(element) => {
            let each = encode_plain(element, "element");
            format!(
                "{{ let list = {value}; w.array_len(flexible, list.len()); for element in list {{ {each} }} }}"
            )
        }
    }
}

/// The expression of a random value that `alive` versions can express.
pub(crate) fn random_field(field: &Field, alive: Versions) -> String {
    let plain = random_plain(&field.ty);
    match field.nullable {
        None => plain,
        Some(range) => {
            let when = condition(range, alive).unwrap_or("true".to_owned());
            format!("if {when} && g.one_in(4) {{ None }} else {{ Some({plain}) }}")
        }
    }
}

fn random_plain(ty: &Type) -> String {
    match ty {
        Type::Bool => "g.one_in(2)".to_owned(),
        Type::Int8 => "g.next() as i8".to_owned(),
        Type::Int16 => "g.next() as i16".to_owned(),
        Type::Uint16 => "g.next() as u16".to_owned(),
        Type::Int32 => "g.next() as i32".to_owned(),
        Type::Uint32 => "g.next() as u32".to_owned(),
        Type::Int64 => "g.next() as i64".to_owned(),
        Type::Float64 => "f64::from(g.next() as i32)".to_owned(),
        Type::Uuid => "g.uuid()".to_owned(),
        Type::String => "g.string()".to_owned(),
        Type::Bytes | Type::Records => "g.bytes()".to_owned(),
        Type::Rope => "Records::from(g.bytes())".to_owned(),
        Type::Struct(name) => format!("{name}::random(g, version)"),
        Type::Array(element) => {
            format!("(0..g.len()).map(|_| {}).collect::<Vec<_>>()", random_plain(element))
        }
    }
}
