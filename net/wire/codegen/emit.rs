//! Rust source from checked schema files: modules, structs, traits, `ApiKey`.

use std::fmt::Write;

use super::emit_errors::{emit_visit, error_codes};
use super::emit_fields::{decode_field, default_of, encode_field, random_field, rust_type};
use super::schema::{Api, Field, File, Message, Struct, Versions};

/// The whole generated file.
pub(crate) fn emit(files: &[File]) -> String {
    let mut out = String::new();
    for file in files {
        emit_module(&mut out, file);
        writeln!(out, "pub use {}::*;", file.module).unwrap();
    }
    let apis: Vec<&Api> = files.iter().filter_map(|file| file.api.as_ref()).collect();
    emit_api_key(&mut out, &apis);
    emit_request_body(&mut out, &apis);
    emit_test_macros(&mut out, files, &apis);
    out
}

/// A Rust condition for "version is in `range`", given that it is in `within`; `None` if always true.
pub(crate) fn condition(range: Versions, within: Versions) -> Option<String> {
    if range.covers(within) {
        return None;
    }
    let both = range.intersection(within);
    if both.is_empty() {
        return Some("false".to_owned());
    }
    Some(match (both.min > within.min, both.max < within.max) {
        (true, true) if both.min == both.max => format!("version == {}", both.min),
        (true, true) => format!("version >= {} && version <= {}", both.min, both.max),
        (true, false) => format!("version >= {}", both.min),
        (false, _) => format!("version <= {}", both.max),
    })
}

fn emit_module(out: &mut String, file: &File) {
    match &file.api {
        Some(api) => {
            writeln!(out, "/// {} (api key {}), versions {}.", api.name, api.key, text(api.versions))
        }
        None => writeln!(out, "/// Data messages of `schema/{}.schema`.", file.module),
    }
    .unwrap();
    writeln!(out, "pub mod {} {{\nuse super::prelude::*;", file.module).unwrap();
    for message in &file.messages {
        for structure in &message.structs {
            emit_struct(out, message, structure);
        }
        emit_message_impl(out, message);
    }
    if let Some(api) = &file.api {
        let name = &api.name;
        writeln!(
            out,
            "impl Request for {name}Request {{ type Response = {name}Response; \
             const KEY: ApiKey = ApiKey::{name}; }}"
        )
        .unwrap();
    }
    out.push_str("}\n");
}

fn text(versions: Versions) -> String {
    match versions {
        Versions { min, max: i16::MAX } => format!("{min}+"),
        Versions { min, max } if min == max => format!("{min}"),
        Versions { min, max } => format!("{min}-{max}"),
    }
}

fn emit_struct(out: &mut String, message: &Message, structure: &Struct) {
    let name = &structure.name;
    if name == &message.name {
        writeln!(out, "/// {name}, versions {}.", text(message.versions)).unwrap();
    } else {
        writeln!(out, "/// {name}, part of [`{}`].", message.name).unwrap();
    }
    writeln!(out, "#[derive(Clone, Debug, PartialEq)]\npub struct {name} {{").unwrap();
    for field in &structure.fields {
        if let Some(doc) = &field.doc {
            writeln!(out, "/// {doc}\n///").unwrap();
        }
        let alive = field.versions.intersection(message.versions);
        let tag = field.tag.map_or(String::new(), |(tag, _)| format!(", tag {tag}"));
        let default = field.default.as_ref().map_or(String::new(), |value| format!(", default {value}"));
        writeln!(out, "/// Versions {}{tag}{default}.", text(alive)).unwrap();
        writeln!(out, "pub {}: {},", rust_name(field), rust_type(field)).unwrap();
    }
    writeln!(out, "}}\nimpl Default for {name} {{ fn default() -> Self {{ Self {{").unwrap();
    for field in &structure.fields {
        writeln!(out, "{}: {},", rust_name(field), default_of(field)).unwrap();
    }
    writeln!(out, "}} }} }}\nimpl {name} {{").unwrap();
    emit_read(out, message, structure);
    emit_write(out, message, structure);
    emit_visit(out, message, structure);
    out.push_str("}\n");
    emit_random(out, message, structure);
}

/// The field's name in Rust (a keyword becomes a raw identifier).
pub(crate) fn rust_name(field: &Field) -> String {
    match field.name.as_str() {
        keyword @ ("type" | "match" | "move" | "ref") => format!("r#{keyword}"),
        name => name.to_owned(),
    }
}

fn flexible_line(message: &Message) -> String {
    let range = Versions { min: message.flexible_from, max: i16::MAX };
    let flexible = condition(range, message.versions).unwrap_or("true".to_owned());
    format!("let flexible = {flexible};")
}

/// Versions in which the field travels untagged, and as a tagged field.
fn split(field: &Field, message: &Message) -> (Versions, Option<(u32, Versions)>) {
    let alive = field.versions.intersection(message.versions);
    let Some((tag, range)) = field.tag else { return (alive, None) };
    let tagged = range.intersection(alive);
    let untagged = Versions { min: alive.min, max: alive.max.min(tagged.min - 1) };
    (untagged, Some((tag, tagged)))
}

fn emit_read(out: &mut String, message: &Message, structure: &Struct) {
    writeln!(out, "pub(crate) fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {{")
        .unwrap();
    writeln!(out, "{}\nlet mut v = Self::default();", flexible_line(message)).unwrap();
    let mut arms = String::new();
    for field in &structure.fields {
        let (untagged, tagged) = split(field, message);
        let name = rust_name(field);
        if !untagged.is_empty() {
            let value = decode_field(field, message, untagged);
            match condition(untagged, message.versions) {
                Some(when) => writeln!(out, "if {when} {{ v.{name} = {value}; }}"),
                None => writeln!(out, "v.{name} = {value};"),
            }
            .unwrap();
        }
        if let Some((tag, range)) = tagged {
            let guard =
                condition(range, message.versions).map_or(String::new(), |when| format!(" if {when}"));
            writeln!(arms, "{tag}{guard} => v.{name} = {},", decode_field(field, message, range)).unwrap();
        }
    }
    if arms.is_empty() {
        out.push_str("if flexible { r.skip_tagged_fields()?; }\n");
    } else {
        writeln!(
            out,
            "if flexible {{ r.tagged_fields(|r, tag| {{ match tag {{ {arms} _ => return Ok(false), }} Ok(true) }})?; }}"
        )
        .unwrap();
    }
    out.push_str("Ok(v)\n}\n");
}

fn emit_write(out: &mut String, message: &Message, structure: &Struct) {
    writeln!(out, "pub(crate) fn write(&self, w: &mut Writer, version: i16) {{\n{}", flexible_line(message))
        .unwrap();
    let mut tags = Vec::new();
    for field in &structure.fields {
        let (untagged, tagged) = split(field, message);
        if !untagged.is_empty() {
            let code = encode_field(field, message, untagged);
            match condition(untagged, message.versions) {
                Some(when) => writeln!(out, "if {when} {{ {code} }}"),
                None => writeln!(out, "{code}"),
            }
            .unwrap();
        }
        if let Some((tag, range)) = tagged {
            let when = condition(range, message.versions).unwrap_or("true".to_owned());
            let present = format!("{when} && self.{} != {}", rust_name(field), default_of(field));
            tags.push((tag, present, encode_field(field, message, range)));
        }
    }
    tags.sort_by_key(|(tag, ..)| *tag);
    out.push_str("if flexible {\n");
    if tags.is_empty() {
        out.push_str("w.uvarint(0);\n");
    } else {
        let count: Vec<String> = tags.iter().map(|(_, present, _)| format!("u32::from({present})")).collect();
        writeln!(out, "w.uvarint({});", count.join(" + ")).unwrap();
    }
    for (tag, present, code) in tags {
        writeln!(out, "if {present} {{ w.tagged({tag}, |w| {{ {code} }}); }}").unwrap();
    }
    out.push_str("}\n}\n");
}

fn emit_random(out: &mut String, message: &Message, structure: &Struct) {
    let name = &structure.name;
    writeln!(
        out,
        "#[cfg(test)]\nimpl Random for {name} {{ fn random(g: &mut Gen, version: i16) -> Self {{ \
         let mut v = Self::default();"
    )
    .unwrap();
    for field in &structure.fields {
        let alive = field.versions.intersection(message.versions);
        let when = condition(alive, message.versions).unwrap_or("true".to_owned());
        writeln!(out, "if {when} {{ v.{} = {}; }}", rust_name(field), random_field(field, alive)).unwrap();
    }
    out.push_str("v } }\n");
}

fn emit_message_impl(out: &mut String, message: &Message) {
    let Message { name, versions, flexible_from, .. } = message;
    writeln!(
        out,
        "impl Message for {name} {{
            const NAME: &'static str = \"{name}\";
            const VERSIONS: RangeInclusive<i16> = {}..={};
            const FLEXIBLE_FROM: i16 = {flexible_from};
            fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {{
                check_version::<Self>(version)?;
                Self::read(r, version)
            }}
            fn encode(&self, w: &mut Writer, version: i16) {{
                assert!(Self::VERSIONS.contains(&version), \"{name} has no version {{version}}\");
                self.write(w, version);
            }}
            {}
        }}",
        versions.min,
        versions.max,
        error_codes(message)
    )
    .unwrap();
}

fn emit_api_key(out: &mut String, apis: &[&Api]) {
    out.push_str(
        "/// The APIs this crate has schemas for, by Kafka's numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for api in apis {
        writeln!(
            out,
            "/// Api key {}, versions {}.\n{} = {},",
            api.key,
            text(api.versions),
            api.name,
            api.key
        )
        .unwrap();
    }
    writeln!(out, "}}\nimpl ApiKey {{\n/// Every key, in the order of the schema files.").unwrap();
    writeln!(out, "pub const ALL: [ApiKey; {}] = [", apis.len()).unwrap();
    for api in apis {
        writeln!(out, "ApiKey::{},", api.name).unwrap();
    }
    out.push_str(
        "];\n/// Kafka's name of the API.\npub const fn name(self) -> &'static str { match self {\n",
    );
    for api in apis {
        writeln!(out, "ApiKey::{0} => \"{0}\",", api.name).unwrap();
    }
    out.push_str("} }\n/// Versions that can be decoded and encoded.\n");
    emit_ranges(out, "valid_versions", apis, |api| api.versions);
    out.push_str(
        "/// The widest range to advertise: decodable versions, and those only listed (contract P2).\n",
    );
    emit_ranges(out, "advertised_versions", apis, |api| api.advertised);
    out.push_str("/// The first flexible version, `i16::MAX` if there is none.\n");
    out.push_str("pub const fn flexible_from(self) -> i16 { match self {\n");
    for api in apis {
        writeln!(out, "ApiKey::{} => {},", api.name, api.flexible_from).unwrap();
    }
    out.push_str("} }\n}\nimpl TryFrom<i16> for ApiKey { type Error = UnknownApiKey;\n");
    out.push_str("fn try_from(key: i16) -> Result<Self, UnknownApiKey> { Ok(match key {\n");
    for api in apis {
        writeln!(out, "{} => ApiKey::{},", api.key, api.name).unwrap();
    }
    out.push_str("_ => return Err(UnknownApiKey(key)),\n}) } }\n");
}

fn emit_ranges(out: &mut String, function: &str, apis: &[&Api], range: impl Fn(&Api) -> Versions) {
    writeln!(out, "pub const fn {function}(self) -> RangeInclusive<i16> {{ match self {{").unwrap();
    for api in apis {
        let Versions { min, max } = range(api);
        writeln!(out, "ApiKey::{} => {min}..={max},", api.name).unwrap();
    }
    out.push_str("} }\n");
}

fn emit_request_body(out: &mut String, apis: &[&Api]) {
    out.push_str(
        "/// A decoded request of any API.\n#[derive(Clone, Debug, PartialEq)]\npub enum RequestBody {\n",
    );
    for api in apis {
        writeln!(out, "/// [`{0}Request`].\n{0}({0}Request),", api.name).unwrap();
    }
    out.push_str(
        "}\nimpl RequestBody {\n/// Decodes the body of a request of `key` at `version`.
        pub fn decode(key: ApiKey, r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(match key {\n",
    );
    for api in apis {
        writeln!(out, "ApiKey::{0} => Self::{0}({0}Request::decode(r, version)?),", api.name).unwrap();
    }
    out.push_str(
        "}) }\n/// Encodes the body.\npub fn encode(&self, w: &mut Writer, version: i16) { match self {\n",
    );
    for api in apis {
        writeln!(out, "Self::{}(body) => body.encode(w, version),", api.name).unwrap();
    }
    out.push_str("} }\n/// The API the body belongs to.\npub const fn key(&self) -> ApiKey { match self {\n");
    for api in apis {
        writeln!(out, "Self::{0}(_) => ApiKey::{0},", api.name).unwrap();
    }
    out.push_str("} }\n}\n");
}

/// Macros by which tests go over everything: `for_each_api!(m)` calls `m!(Name, Request, Response)` for each API,
/// `for_each_data!(m)` calls `m!(Name)` for each data message.
fn emit_test_macros(out: &mut String, files: &[File], apis: &[&Api]) {
    out.push_str("#[cfg(test)]\nmacro_rules! for_each_api { ($call:ident) => {\n");
    for api in apis {
        writeln!(out, "$call!({0}, {0}Request, {0}Response);", api.name).unwrap();
    }
    out.push_str("} }\n#[cfg(test)]\nmacro_rules! for_each_data { ($call:ident) => {\n");
    for message in files.iter().filter(|file| file.api.is_none()).flat_map(|file| &file.messages) {
        writeln!(out, "$call!({});", message.name).unwrap();
    }
    out.push_str("} }\n#[cfg(test)]\npub(crate) use {for_each_api, for_each_data};\n");
}
