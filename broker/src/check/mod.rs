//! A look at the host before a broker runs on it, or while one does: what to change, why, and with which command.
//!
//! | file | what is in it |
//! |---|---|
//! | `facts.rs` | what there is to know, mostly as the kernel writes it, and how such texts are read |
//! | `gather.rs` | finding it out: `/proc`, `/sys`, system calls; no judgement, and nothing is changed |
//! | `host.rs`, `memory.rs`, `disk.rs`, `network.rs` | judgements: facts in, findings out; no I/O |
//! | `finding.rs` | a finding, and findings as text and as JSON |
//!
//! What `serve` insists on is checked by its own code (`heizer_runtime::preflight`, `data_dir`), so that both say the same.

mod disk;
mod facts;
mod finding;
mod gather;
mod host;
mod memory;
mod network;

use crate::config::BrokerConfig;
use facts::Facts;

pub use finding::{Finding, Level, json, text};

/// What is to be said of this host as the home of a broker with these settings. Blocks.
pub fn check(config: &BrokerConfig) -> Vec<Finding> {
    judge(&gather::facts(config))
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(&facts.host);
    findings.extend(memory::judge(&facts.memory));
    findings.extend(disk::judge(&facts.dirs));
    findings.extend(network::judge(&facts.network));
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn this_host_is_judged_and_stays_as_it_is() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data").display().to_string();
        let settings = [("log.dirs", data.as_str()), ("listeners", "127.0.0.1:0")];
        let config = BrokerConfig::from_settings(settings).expect("valid");
        let findings = check(&config);
        let subjects: BTreeSet<&str> =
            findings.iter().filter_map(|finding| finding.subject.split_whitespace().next()).collect();
        for subject in ["kernel", "io_uring", "memory", "swap", "data", "space", "listener", "clock"] {
            assert!(subjects.contains(subject), "{subject} is not among {subjects:?}");
        }
        assert!(!home.path().join("data").exists(), "a check makes no data directory");
        assert_eq!(std::fs::read_dir(home.path()).expect("there").count(), 0);
    }
}
