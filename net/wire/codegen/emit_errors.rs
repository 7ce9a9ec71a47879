//! How a message shows the error codes in it.

use std::fmt::Write;

use super::emit::rust_name;
use super::schema::{Field, Message, Struct, Type};

/// The name that error codes have in schemas.
const ERROR_CODE: &str = "error_code";

/// The struct's method that goes over its error codes, if it has any.
pub(crate) fn emit_visit(out: &mut String, message: &Message, structure: &Struct) {
    let visits: Vec<String> = structure.fields.iter().filter_map(|field| visit(message, field)).collect();
    if visits.is_empty() {
        return;
    }
    writeln!(out, "fn visit_errors(&self, visit: &mut impl FnMut(i16)) {{\n{}\n}}", visits.join("\n"))
        .unwrap();
}

/// The message's own method, in the place of the trait's, which finds none.
pub(crate) fn error_codes(message: &Message) -> &'static str {
    if has_any(message, &message.structs[0]) {
        "fn error_codes(&self, mut visit: impl FnMut(i16)) { self.visit_errors(&mut visit); }"
    } else {
        ""
    }
}

fn has_any(message: &Message, structure: &Struct) -> bool {
    structure.fields.iter().any(|field| visit(message, field).is_some())
}

/// The statement that visits what a field has of error codes.
fn visit(message: &Message, field: &Field) -> Option<String> {
    let name = rust_name(field);
    let of_struct = |name: &str| message.find(name).is_some_and(|structure| has_any(message, structure));
    let values = match &field.ty {
        Type::Int16 if field.name == ERROR_CODE && field.nullable.is_none() => {
            return Some(format!("if self.{name} != 0 {{ visit(self.{name}); }}"));
        }
        Type::Struct(inner) if of_struct(inner) => match field.nullable {
            None => return Some(format!("self.{name}.visit_errors(visit);")),
            Some(_) => format!("self.{name}.iter()"),
        },
        Type::Array(element) => match &**element {
            Type::Struct(inner) if of_struct(inner) => match field.nullable {
                None => format!("&self.{name}"),
                Some(_) => format!("self.{name}.iter().flatten()"),
            },
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("for value in {values} {{ value.visit_errors(visit); }}"))
}
