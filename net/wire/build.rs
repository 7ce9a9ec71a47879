//! Turns `schema/*.schema` into the Rust message types (see `schema/README.md`).

#[path = "codegen/mod.rs"]
mod codegen;

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=codegen");
    println!("cargo::rerun-if-changed=build.rs");
    let mut paths: Vec<_> = fs::read_dir("schema")
        .expect("net/wire/schema can be listed")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "schema"))
        .collect();
    paths.sort();
    let files: Vec<_> = paths.iter().map(|path| parse_file(path)).collect();
    codegen::check::check(&files);
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("messages.rs");
    fs::write(out, codegen::emit::emit(&files)).expect("OUT_DIR can be written");
}

fn parse_file(path: &Path) -> codegen::schema::File {
    let module = path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 schema file name");
    let text = fs::read_to_string(path).expect("a readable schema file");
    codegen::parse::parse(module, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
