//! What a verb fails with.

use std::fmt;
use std::io;

use heizer_client::ClientError;
use heizer_wire::ErrorCode;

/// A verb that could not do its work: one line that says what, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CliError {
    /// Who reads our output has had enough; no error to speak of.
    BrokenPipe,
    /// Anything else, as it is shown.
    Message(String),
    /// The command line makes no sense, as only the verb can tell.
    Usage(String),
    /// What the verb was to look at cannot be looked at. Told apart by the exit code, since looking has a result too.
    Unusable(String),
}

impl CliError {
    /// An error that says all there is to say.
    pub(super) fn of(error: impl fmt::Display) -> CliError {
        CliError::Message(error.to_string())
    }

    /// Standard input or output failed.
    pub(super) fn stdio(what: &str, error: &io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => CliError::Message(format!("{what}: {error}")),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::BrokenPipe => f.write_str("standard output was closed"),
            CliError::Message(text) | CliError::Usage(text) | CliError::Unusable(text) => f.write_str(text),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::Message(match advice(&error) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        })
    }
}

/// What somebody at a terminal can do about it.
fn advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Connect { .. } => {
            Some("start a broker with `heizer serve`, or say where one is with --bootstrap-server HOST:PORT")
        }
        ClientError::Address { .. } => Some("give --bootstrap-server HOST:PORT"),
        ClientError::UnknownTopic(_) => Some("`heizer topic list` shows those that do"),
        ClientError::UnknownBroker(_) => Some("`heizer cluster info` shows those it has"),
        ClientError::Unsupported { .. } => Some("a newer broker may"),
        ClientError::Broker { code, .. } => advice_on(*code),
        ClientError::Deadline { last, .. } => advice(last),
        _ => None,
    }
}

fn advice_on(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UnknownTopicOrPartition => Some("`heizer topic describe` shows what there is"),
        ErrorCode::OffsetOutOfRange => Some("`heizer topic offsets` shows where partitions start and end"),
        ErrorCode::GroupIdNotFound => Some("`heizer group list` shows the groups there are"),
        ErrorCode::NonEmptyGroup | ErrorCode::GroupSubscribedToTopic => {
            Some("stop its members first; `heizer group describe --members` shows them")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn an_error_is_one_line_that_says_where_and_what_to_do() {
        let source = Rc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let connect = ClientError::Connect { addr: "127.0.0.1:1".to_owned(), source };
        let deadline =
            ClientError::Deadline { what: "x".to_owned(), after_ms: 1, last: Box::new(connect.clone()) };
        for error in [connect, deadline] {
            let text = CliError::from(error).to_string();
            assert!(
                text.contains("127.0.0.1:1") && text.contains("heizer serve") && !text.contains('\n'),
                "{text}"
            );
        }
    }

    #[test]
    fn a_closed_output_is_told_apart() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CliError::stdio("writing", &closed), CliError::BrokenPipe);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(CliError::stdio("writing", &full), CliError::Message(_)));
    }
}
