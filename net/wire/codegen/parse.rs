//! Parses the schema language of `schema/README.md`.

use super::schema::{Api, Field, File, Message, Struct, Type, Versions};

struct Line<'a> {
    number: usize,
    indent: usize,
    tokens: Vec<&'a str>,
    doc: Option<String>,
}

/// Parses one file. The error says the line.
pub(crate) fn parse(module: &str, text: &str) -> Result<File, String> {
    let lines: Vec<Line<'_>> =
        text.lines().enumerate().filter_map(|(index, line)| scan(index + 1, line)).collect();
    let mut file = File { module: module.to_owned(), api: None, messages: Vec::new() };
    let mut at = 0;
    while at < lines.len() {
        let head = &lines[at];
        let body_end = lines[at + 1..]
            .iter()
            .position(|line| line.indent == 0)
            .map_or(lines.len(), |offset| at + 1 + offset);
        top_level(&mut file, head, &lines[at + 1..body_end])
            .map_err(|error| format!("line {}: {error}", head.number))?;
        at = body_end;
    }
    Ok(file)
}

fn scan(number: usize, line: &str) -> Option<Line<'_>> {
    let (code, doc) = match line.split_once('#') {
        Some((code, doc)) => (code, Some(doc.trim().to_owned())),
        None => (line, None),
    };
    let tokens: Vec<&str> = code.split_whitespace().collect();
    if tokens.is_empty() {
        return None;
    }
    let indent = code.len() - code.trim_start().len();
    Some(Line { number, indent, tokens, doc })
}

fn top_level(file: &mut File, head: &Line<'_>, body: &[Line<'_>]) -> Result<(), String> {
    match head.tokens.as_slice() {
        ["api", key, name, options @ ..] => {
            let (versions, advertised, flexible_from) = options_of(options)?;
            let key = key.parse().map_err(|_| format!("bad api key {key}"))?;
            let advertised = advertised.unwrap_or(versions);
            file.api = Some(Api { key, name: (*name).to_owned(), versions, advertised, flexible_from });
            if body.is_empty() { Ok(()) } else { Err("fields belong under request or response".to_owned()) }
        }
        [part @ ("request" | "response")] => {
            let api = file.api.as_ref().ok_or("no api line above")?;
            let suffix = if *part == "request" { "Request" } else { "Response" };
            let name = format!("{}{suffix}", api.name);
            let message = message(name, api.versions, api.flexible_from, body)?;
            file.messages.push(message);
            Ok(())
        }
        ["data", name, options @ ..] => {
            let (versions, _, flexible_from) = options_of(options)?;
            file.messages.push(message((*name).to_owned(), versions, flexible_from, body)?);
            Ok(())
        }
        other => Err(format!("expected api, request, response or data, found {other:?}")),
    }
}

fn options_of(options: &[&str]) -> Result<(Versions, Option<Versions>, i16), String> {
    let (mut versions, mut advertised, mut flexible_from) = (None, None, i16::MAX);
    for pair in options.chunks(2) {
        match pair {
            ["versions", range] => versions = Some(range_of(range)?),
            ["advertised", range] => advertised = Some(range_of(range)?),
            ["flexible", range] => flexible_from = range_of(range)?.min,
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    Ok((versions.ok_or("versions missing")?, advertised, flexible_from))
}

fn message(
    name: String,
    versions: Versions,
    flexible_from: i16,
    body: &[Line<'_>],
) -> Result<Message, String> {
    let mut message = Message { name: name.clone(), versions, flexible_from, structs: Vec::new() };
    message.structs.push(Struct { name, fields: Vec::new() });
    let fields = fields(&mut message.structs, body)?;
    message.structs[0].fields = fields;
    Ok(message)
}

/// Parses one indentation level; structs found below are appended to `structs`.
fn fields(structs: &mut Vec<Struct>, lines: &[Line<'_>]) -> Result<Vec<Field>, String> {
    let mut result = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = &lines[at];
        if line.indent != lines[0].indent {
            return Err(format!("line {}: unexpected indentation", line.number));
        }
        let end = lines[at + 1..]
            .iter()
            .position(|next| next.indent <= line.indent)
            .map_or(lines.len(), |offset| at + 1 + offset);
        let field = field(line).map_err(|error| format!("line {}: {error}", line.number))?;
        let children = &lines[at + 1..end];
        if !children.is_empty() {
            let name =
                struct_name(&field.ty).ok_or(format!("line {}: not a struct", line.number))?.to_owned();
            let place = structs.len();
            structs.push(Struct { name, fields: Vec::new() });
            let inner = fields(structs, children)?;
            structs[place].fields = inner;
        }
        result.push(field);
        at = end;
    }
    Ok(result)
}

/// The struct a type refers to, directly or as an array element.
pub(crate) fn struct_name(ty: &Type) -> Option<&str> {
    match ty {
        Type::Struct(name) => Some(name),
        Type::Array(element) => struct_name(element),
        _ => None,
    }
}

fn field(line: &Line<'_>) -> Result<Field, String> {
    let [name, ty, options @ ..] = line.tokens.as_slice() else {
        return Err("a field is: name type [versions] [?nullable] [@tag] [=default]".to_owned());
    };
    let mut field = Field {
        name: (*name).to_owned(),
        ty: type_of(ty)?,
        versions: Versions::ALL,
        nullable: None,
        tag: None,
        default: None,
        doc: line.doc.clone(),
    };
    for option in options {
        match option.split_at(1) {
            ("?", "") => field.nullable = Some(Versions::ALL),
            ("?", range) => field.nullable = Some(range_of(range)?),
            ("@", tag) => field.tag = Some(tag_of(tag, field.versions)?),
            ("=", value) => field.default = Some(value.to_owned()),
            _ => field.versions = range_of(option)?,
        }
    }
    Ok(field)
}

fn tag_of(text: &str, versions: Versions) -> Result<(u32, Versions), String> {
    let (number, range) = match text.split_once(':') {
        Some((number, range)) => (number, range_of(range)?),
        None => (text, versions),
    };
    Ok((number.parse().map_err(|_| format!("bad tag {text}"))?, range))
}

fn type_of(text: &str) -> Result<Type, String> {
    if let Some(element) = text.strip_prefix("[]") {
        return Ok(Type::Array(Box::new(type_of(element)?)));
    }
    Ok(match text {
        "bool" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "uint16" => Type::Uint16,
        "int32" => Type::Int32,
        "uint32" => Type::Uint32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "uuid" => Type::Uuid,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        "rope" => Type::Rope,
        name if name.starts_with(|first: char| first.is_ascii_uppercase()) => Type::Struct(name.to_owned()),
        other => return Err(format!("unknown type {other}")),
    })
}

/// `3+`, `3-7` or `3`.
fn range_of(text: &str) -> Result<Versions, String> {
    let number = |digits: &str| digits.parse::<i16>().map_err(|_| format!("bad version range {text}"));
    if let Some(min) = text.strip_suffix('+') {
        return Ok(Versions { min: number(min)?, max: i16::MAX });
    }
    match text.split_once('-') {
        Some((min, max)) => Ok(Versions { min: number(min)?, max: number(max)? }),
        None => Ok(Versions { min: number(text)?, max: number(text)? }),
    }
}
