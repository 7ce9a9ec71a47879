//! What a run fails with: one line that says what, where, and what to do about it.

use std::fmt;

use heizer_client::ClientError;

/// See the module. Not named an error, because a run that finds lost records fails too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure that says all there is to say.
    pub(crate) fn new(line: impl fmt::Display) -> Failure {
        Failure(line.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let advice = match &error {
            ClientError::Connect { .. } | ClientError::Address { .. } => {
                "; start a broker, or say where one is with --bootstrap-server HOST:PORT"
            }
            _ => "",
        };
        Failure(format!("{error}{advice}"))
    }
}
