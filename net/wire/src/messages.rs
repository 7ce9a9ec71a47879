//! Every message, generated from `schema/*.schema`: a module per API, and all types flat in here.

use crate::{DecodeError, Message, Reader, Writer};
use std::ops::RangeInclusive;

/// What the generated modules use.
mod prelude {
    pub(crate) use std::ops::RangeInclusive;

    pub(crate) use bytes::Bytes;
    pub(crate) use bytestring::ByteString;
    pub(crate) use uuid::Uuid;

    pub(crate) use super::{ApiKey, check_version, non_null, null_if};
    #[cfg(test)]
    pub(crate) use crate::tests::random::{Gen, Random};
    pub(crate) use crate::{DecodeError, Message, Reader, Records, Request, Writer};
}

/// An API key without a schema here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown api key {0}")]
pub struct UnknownApiKey(pub i16);

impl ApiKey {
    /// Whether `version` uses compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_from()
    }

    /// Version of the request header that precedes a request of `version`.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header that precedes a response of `version` (contract P1: always 0 for
    /// ApiVersions, since the client cannot yet know what we speak).
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, ApiKey::ApiVersions) { 1 } else { 0 }
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> i16 {
        key as i16
    }
}

pub(crate) fn check_version<M: Message>(version: i16) -> Result<(), DecodeError> {
    if M::VERSIONS.contains(&version) {
        Ok(())
    } else {
        Err(DecodeError::UnsupportedVersion { message: M::NAME, version })
    }
}

pub(crate) fn non_null<T>(value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::UnexpectedNull)
}

/// Refuses null in a version that has none.
pub(crate) fn null_if<T>(nullable: bool, value: Option<T>) -> Result<Option<T>, DecodeError> {
    if nullable || value.is_some() { Ok(value) } else { Err(DecodeError::UnexpectedNull) }
}

#[allow(clippy::all, unused_variables)]
mod generated {
    use super::*;
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub use generated::*;
