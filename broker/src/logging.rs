//! Logs: one line an event, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `debug` or `info,heizer_storage=trace`.
pub const FILTER_VARIABLE: &str = "HEIZER_LOG";

/// [`FILTER_VARIABLE`] holds no filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "{FILTER_VARIABLE} is no filter: {reason}; use a level (error, warn, info, debug, trace) or MODULE=LEVEL"
)]
pub struct InvalidFilter {
    reason: String,
}

/// Sends what is logged to standard error from now on; `default` is the filter where the variable is unset. Called
/// once, at the start of the program.
pub fn init(default: &str) -> Result<(), InvalidFilter> {
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let text = if text.is_empty() { default } else { text.as_str() };
    let filter =
        EnvFilter::builder().parse(text).map_err(|error| InvalidFilter { reason: error.to_string() })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .compact()
        .init();
    Ok(())
}
