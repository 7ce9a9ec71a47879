use bytes::Bytes;
use bytestring::ByteString;

use crate::{ApiKey, DecodeError, Message, Reader, Request, UnknownApiKey, Writer};

/// The header in front of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API as the client said it; [`RequestHeader::key`] knows it or not.
    pub api_key: i16,
    /// Version of the request, and of the response wanted.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<ByteString>,
}

impl RequestHeader {
    /// Decodes the header; the reader is left at the body. Of an API or version that we don't know only the
    /// fields every header has are read: enough to answer ApiVersions (contract P1), or to log and close.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let api_key = r.i16()?;
        let api_version = r.i16()?;
        let correlation_id = r.i32()?;
        // The client id keeps its int16 length in header version 2, the rest of which is compact.
        let client_id = r.nullable_string(false)?;
        let header = Self { api_key, api_version, correlation_id, client_id };
        if let Ok(key) = header.key()
            && key.valid_versions().contains(&api_version)
            && key.request_header_version(api_version) >= 2
        {
            r.skip_tagged_fields()?;
        }
        Ok(header)
    }

    /// The API, if we have its schema.
    pub fn key(&self) -> Result<ApiKey, UnknownApiKey> {
        ApiKey::try_from(self.api_key)
    }
}

/// A response frame, size first, to be sent vectored. `key` and `version` are those of the request (version 0
/// for the answer to an unsupported ApiVersions, contract P1).
pub fn encode_response<M: Message>(correlation_id: i32, key: ApiKey, version: i16, body: &M) -> Vec<Bytes> {
    response_writer(correlation_id, key, version, body).finish_frame()
}

/// As [`encode_response`], of a message with records elsewhere ([`crate::Records::elsewhere`]), which the frame's size
/// counts: the parts that are here, and in order the places of those that are not: the index of the part that they
/// come before (one past the last for the end), and their token.
pub fn encode_response_around<M: Message>(
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    body: &M,
) -> (Vec<Bytes>, Vec<(usize, usize)>) {
    response_writer(correlation_id, key, version, body).finish_frame_around()
}

fn response_writer<M: Message>(correlation_id: i32, key: ApiKey, version: i16, body: &M) -> Writer {
    let mut w = Writer::frame();
    w.i32(correlation_id);
    if key.response_header_version(version) >= 1 {
        w.uvarint(0);
    }
    body.encode(&mut w, version);
    w
}

/// A request frame, size first, to be sent vectored.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    version: i16,
    client_id: Option<&str>,
    body: &R,
) -> Vec<Bytes> {
    let mut w = Writer::frame();
    w.i16(R::KEY.into());
    w.i16(version);
    w.i32(correlation_id);
    match client_id {
        Some(client_id) => w.string(false, client_id),
        None => w.null_string(false),
    }
    if R::KEY.request_header_version(version) >= 2 {
        w.uvarint(0);
    }
    body.encode(&mut w, version);
    w.finish_frame()
}

/// Decodes the response to an `R` of `version` from a frame without its size: correlation id and body.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut r = Reader::new(frame);
    let correlation_id = r.i32()?;
    if R::KEY.response_header_version(version) >= 1 {
        r.skip_tagged_fields()?;
    }
    Ok((correlation_id, R::Response::decode(&mut r, version)?))
}

/// A data message behind its version as an int16, as records of `__consumer_offsets` and the consumer
/// protocol have it.
pub fn encode_versioned<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    w.i16(version);
    message.encode(&mut w, version);
    w.finish_contiguous()
}

/// Version and message of what [`encode_versioned`] wrote. A version that `M` lacks is an error: whoever knows
/// that newer versions only append (the consumer protocol) reads the version and decodes by himself.
pub fn decode_versioned<M: Message>(bytes: Bytes) -> Result<(i16, M), DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16()?;
    Ok((version, M::decode(&mut r, version)?))
}
