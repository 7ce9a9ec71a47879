//! The generator behind `build.rs`: text → [`schema::File`] → checked → Rust source.

pub(crate) mod check;
pub(crate) mod emit;
pub(crate) mod emit_errors;
pub(crate) mod emit_fields;
pub(crate) mod parse;
pub(crate) mod schema;
