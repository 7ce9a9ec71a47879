//! A request frame as the broker gets it: header, then body. What decodes must encode and decode to itself.
#![no_main]

use bytes::Bytes;
use heizer_wire::messages::RequestBody;
use heizer_wire::{Reader, RequestHeader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut r = Reader::new(Bytes::copy_from_slice(frame));
    let Ok(header) = RequestHeader::decode(&mut r) else { return };
    let Ok(key) = header.key() else { return };
    let version = header.api_version;
    let Ok(body) = RequestBody::decode(key, &mut r, version) else { return };
    let mut w = Writer::new();
    body.encode(&mut w, version);
    let mut again = Reader::new(w.finish_contiguous());
    match RequestBody::decode(key, &mut again, version) {
        Ok(decoded) => assert_eq!(decoded, body),
        // Varints of more bytes than needed, and unknown tagged fields, justified the memory before.
        Err(heizer_wire::DecodeError::MemoryExceeded) => {}
        Err(error) => panic!("{key} v{version}: {error}"),
    }
});
