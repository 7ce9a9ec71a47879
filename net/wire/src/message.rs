use std::fmt::Debug;
use std::ops::RangeInclusive;

use crate::{ApiKey, DecodeError, Reader, Writer};

/// A message with a schema: a request, a response, or data.
pub trait Message: Clone + Debug + Default + PartialEq + Sized {
    /// Kafka's name of the message.
    const NAME: &'static str;
    /// Versions that can be decoded and encoded.
    const VERSIONS: RangeInclusive<i16>;
    /// The first flexible version (compact lengths, tagged fields); `i16::MAX` if there is none.
    const FLEXIBLE_FROM: i16;

    /// Decodes from the reader's position. Fields that `version` lacks get their defaults, unknown tagged
    /// fields are dropped. What follows the message is left in the reader.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Encodes what `version` can express; other fields are left out. A null that it cannot express becomes
    /// empty, a string longer than Kafka's maximum (32,767 bytes) is cut. Panics outside [`Self::VERSIONS`].
    fn encode(&self, w: &mut Writer, version: i16);

    /// Calls `visit` with every error code in the message that is not 0.
    fn error_codes(&self, visit: impl FnMut(i16)) {
        let _ = visit;
    }
}

/// A request message; ties it to its response and its API key.
pub trait Request: Message {
    /// What answers it, at the same version.
    type Response: Message;
    /// Its API.
    const KEY: ApiKey;
}
