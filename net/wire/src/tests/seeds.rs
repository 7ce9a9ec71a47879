//! Writes seeds for the fuzz targets: `cargo test -p heizer-wire write_fuzz_seeds -- --ignored`.

use std::fs;
use std::path::Path;

use super::random::{Gen, Random};
use crate::messages::*;
use crate::record_batch::Compression;
use crate::{Message, encode_request};

#[test]
#[ignore = "writes into the work tree"]
fn write_fuzz_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let requests = corpus.join("request");
    fs::create_dir_all(&requests).expect("a folder for requests");
    macro_rules! api {
        ($key:ident, $request:ident, $response:ident) => {
            for version in $request::VERSIONS {
                let body = $request::random(&mut Gen::new(1), version);
                let frame = encode_request(1, version, Some("seed"), &body).concat();
                let name = format!("{}-{version}", stringify!($key));
                fs::write(requests.join(name), &frame[4..]).expect("a seed");
            }
        };
    }
    for_each_api!(api);
    let batches = corpus.join("record_batch");
    fs::create_dir_all(&batches).expect("a folder for batches");
    for compression in Compression::ALL {
        fs::write(batches.join(compression.name()), super::batches::sample(compression)).expect("a seed");
    }
}
