//! Tests of the whole codec: against an independent implementation, and against hostile bytes.

mod batches;
mod errors;
mod framing;
mod hostile;
mod oracle;
pub(crate) mod random;
mod rewrite;
mod seeds;
