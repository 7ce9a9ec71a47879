//! Kafka's wire formats: framing, messages generated from `schema/`, error codes, record batch v2.
//!
//! The crate computes and nothing else: no sockets, no clock, no executor. Everything that is decoded comes
//! from strangers, so every length is checked against what remains of the frame before anything is allocated
//! ([`Reader`]), and what a frame may make us allocate is bounded by its own size.
//!
//! - A frame without its 4-byte size is a [`bytes::Bytes`]. [`RequestHeader::decode`] reads the header,
//!   [`messages::RequestBody::decode`] or `<SomeRequest as Message>::decode` the body. Strings and records are
//!   slices of the frame: whoever keeps one keeps the frame.
//! - [`encode_response`] and [`encode_request`] give a list of segments to be sent vectored; record bytes of
//!   [`Records`] are spliced in, never copied.
//! - [`record_batch`] checks produced batches, patches headers, reads and builds records.
//!
//! ```
//! use heizer_wire::messages::{RequestBody, MetadataRequest, MetadataRequestTopic};
//! use heizer_wire::{ApiKey, Reader, RequestHeader, encode_request};
//!
//! let topic = MetadataRequestTopic { name: Some("sensors".into()), ..Default::default() };
//! let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
//! let frame = encode_request(7, 12, Some("me"), &request).concat();
//!
//! let mut reader = Reader::new(frame[4..].to_vec().into()); // the size comes first
//! let header = RequestHeader::decode(&mut reader)?;
//! assert_eq!((header.key(), header.correlation_id), (Ok(ApiKey::Metadata), 7));
//! let body = RequestBody::decode(ApiKey::Metadata, &mut reader, header.api_version)?;
//! assert_eq!(body, RequestBody::Metadata(request));
//! # Ok::<(), heizer_wire::DecodeError>(())
//! ```

mod error_code;
mod frame;
mod message;
pub mod messages;
mod reader;
pub mod record_batch;
mod records;
mod writer;

#[cfg(test)]
mod tests;

pub use error_code::ErrorCode;
pub use frame::{
    RequestHeader, decode_response, decode_versioned, encode_request, encode_response,
    encode_response_around, encode_versioned,
};
pub use message::{Message, Request};
pub use messages::{ApiKey, UnknownApiKey};
pub use reader::{DecodeError, Reader};
pub use records::Records;
pub use writer::Writer;
