//! `heizer check`: what is to be said of this host before a broker runs on it, or while one does.

use std::process::ExitCode;

use super::args::{CheckArgs, ListingFormat};
use super::error::CliError;
use super::stdio;
use crate::check::{self, Level};
use crate::config::BrokerConfig;

/// 0 when there is no problem, 1 when there is one.
pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, CliError> {
    let CheckArgs { serve, listing } = args;
    let config = BrokerConfig::load(serve.config.as_deref(), &serve.overrides()).map_err(CliError::of)?;
    let findings = check::check(&config);
    let shown = match listing.output {
        ListingFormat::Text => check::text(&findings),
        ListingFormat::Json => check::json(&findings),
    };
    stdio::print(&shown)?;
    let has_problem = findings.iter().any(|finding| finding.level == Level::Problem);
    Ok(if has_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
