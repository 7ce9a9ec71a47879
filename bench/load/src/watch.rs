//! What a process costs, from `/proc`: CPU time, memory, bytes to and from the disk, context switches.

use std::fs;

use crate::failure::Failure;

/// The unit of times in `/proc/PID/stat`, which is the same on every Linux that runs this.
const TICKS_PER_S: f64 = 100.0;
const KIB_PER_MIB: f64 = 1_024.0;

/// A process, looked at from outside.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    path: String,
}

/// What it has used since it started, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) user_s: f64,
    pub(crate) kernel_s: f64,
    pub(crate) resident_mib: f64,
    pub(crate) context_switches: u64,
    /// Bytes from and to the disk; none where `/proc/PID/io` may not be read.
    pub(crate) io: Option<(u64, u64)>,
}

impl Watched {
    /// This process.
    pub(crate) fn myself() -> Watched {
        Watched { path: "/proc/self".to_owned() }
    }

    /// Another, which has to be there.
    pub(crate) fn process(pid: u32) -> Result<Watched, Failure> {
        let watched = Watched { path: format!("/proc/{pid}") };
        watched.usage()?;
        Ok(watched)
    }

    /// CPU time, user and kernel, in seconds.
    pub(crate) fn cpu_s(&self) -> Result<(f64, f64), Failure> {
        let path = format!("{}/stat", self.path);
        let parsed = parse_stat(&read(&path)?);
        parsed.ok_or_else(|| Failure::new(format!("{path}: not what this program knows how to read")))
    }

    /// What `/proc` says now.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let (user_s, kernel_s) = self.cpu_s()?;
        let status = read(&format!("{}/status", self.path))?;
        let io = fs::read_to_string(format!("{}/io", self.path)).ok();
        Ok(Usage {
            user_s,
            kernel_s,
            resident_mib: number(&status, "VmRSS:").unwrap_or(0) as f64 / KIB_PER_MIB,
            context_switches: self.context_switches(),
            io: io.and_then(|io| Some((number(&io, "read_bytes:")?, number(&io, "write_bytes:")?))),
        })
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64, Failure> {
        let status = read(&format!("{}/status", self.path))?;
        Ok(number(&status, "VmRSS:").unwrap_or(0) as f64 / KIB_PER_MIB)
    }

    /// Of all threads that there are now.
    fn context_switches(&self) -> u64 {
        let Ok(threads) = fs::read_dir(format!("{}/task", self.path)) else { return 0 };
        let of_thread = |status: String| {
            let count = |name| number(&status, name).unwrap_or(0);
            count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:")
        };
        let statuses =
            threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
        statuses.map(of_thread).sum()
    }
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{path}: {error}; is the process still running?")))
}

/// User and kernel time out of `/proc/PID/stat`, whose second field, the name, may hold anything.
fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / TICKS_PER_S);
    Some((seconds()?, seconds()?))
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 4 0 100 1 1";
        assert_eq!(parse_stat(stat), Some((2.5, 0.75)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn numbers_are_found_by_their_line() {
        let status = "Name:\tVmRSS: 1\nVmHWM:\t  300 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(number(status, "VmRSS:"), Some(2048));
        assert_eq!(number(status, "Threads:"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Watched::myself().usage().expect("our own /proc is readable");
        assert!(usage.resident_mib > 0.1 && usage.context_switches > 0, "{usage:?}");
        let failure = Watched::process(u32::MAX).expect_err("no process has this id");
        assert!(failure.to_string().starts_with("/proc/4294967295/stat: "), "{failure}");
    }
}
