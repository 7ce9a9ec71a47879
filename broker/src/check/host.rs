//! The kernel, limits, CPUs and clocks.

use super::facts::HostFacts;
use super::finding::{Finding, size};

/// What the scheduler and the rings of one core lock at most.
const MEMLOCK_PER_CORE_BYTES: u64 = 256 << 10;
/// What `ulimit` and the kernel call unlimited.
const UNLIMITED: u64 = u64::MAX;
/// Below this a busy broker runs out: each connection takes a descriptor, each open segment two.
const NOFILE_WANTED: u64 = 65_536;
/// Reading these takes a system call or a slow device.
const SLOW_CLOCKS: [&str; 6] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies", "xen"];

pub(super) fn judge(facts: &HostFacts) -> Vec<Finding> {
    let mut findings =
        vec![kernel(facts), ring(facts), memlock(facts), nofile(facts), cores(facts), governor(facts)];
    findings.extend(quota(facts));
    findings.extend(clock_source(facts));
    findings.push(synchronised(facts));
    findings
}

fn kernel(facts: &HostFacts) -> Finding {
    const SUBJECT: &str = "kernel";
    match &facts.kernel {
        Err(line) => Finding::refusal(SUBJECT, line),
        Ok(release) if !facts.has_cachestat => Finding::advice(
            SUBJECT,
            format!(
                "Linux {release}, which does not tell this process what is in its page cache (cachestat)"
            ),
            "use Linux 6.5 or newer, and a seccomp profile that allows cachestat: without it a backlog is copied \
             through the broker's memory on its way to consumers",
        ),
        Ok(release) => Finding::ok(SUBJECT, format!("Linux {release}")),
    }
}

fn ring(facts: &HostFacts) -> Finding {
    match &facts.ring {
        Err(line) => Finding::refusal("io_uring", line),
        Ok(()) => Finding::ok("io_uring", "this process may use it"),
    }
}

fn memlock(facts: &HostFacts) -> Finding {
    const SUBJECT: &str = "memlock";
    match facts.memlock {
        Err(ref line) => Finding::refusal(SUBJECT, line),
        Ok(UNLIMITED) => Finding::ok(SUBJECT, "unlimited"),
        Ok(bytes) if bytes < MEMLOCK_PER_CORE_BYTES.saturating_mul(facts.cores as u64) => Finding::advice(
            SUBJECT,
            format!("{} may be locked by this process, little for {} cores", size(bytes), facts.cores),
            "`ulimit -l unlimited` in this shell; the unit has LimitMEMLOCK=infinity",
        ),
        Ok(bytes) => Finding::ok(SUBJECT, format!("{} may be locked by this process", size(bytes))),
    }
}

fn nofile(facts: &HostFacts) -> Finding {
    const SUBJECT: &str = "nofile";
    match facts.nofile {
        Err(ref line) => Finding::refusal(SUBJECT, line),
        Ok(files) if files < NOFILE_WANTED => Finding::advice(
            SUBJECT,
            format!("this process may open {files} files; connections and segments take one each and more"),
            "`ulimit -n 1048576` in this shell; the unit has LimitNOFILE=1048576",
        ),
        Ok(files) => Finding::ok(SUBJECT, format!("this process may open {files} files")),
    }
}

fn cores(facts: &HostFacts) -> Finding {
    let HostFacts { cpus, cores, .. } = *facts;
    if cores > cpus {
        let found = format!("{cores} cores are asked for and {cpus} CPUs may be used");
        return Finding::problem(
            "cores",
            found,
            format!("set heizer.cores = {cpus}, or 0 for all there are"),
        );
    }
    Finding::ok("cores", format!("{cores} of the {cpus} CPUs that may be used"))
}

/// A quota stops cores in the midst of what they do, and everybody who waits for them.
fn quota(facts: &HostFacts) -> Option<Finding> {
    let (quota, period) = facts.cpu_max.as_ref()?.split_once(' ')?;
    let (quota, period) =
        (quota.parse::<u64>().ok()?, period.parse::<u64>().ok().filter(|period| *period > 0)?);
    if quota >= period.saturating_mul(facts.cores as u64) {
        return None;
    }
    let whole = (quota / period).max(1);
    let found = format!(
        "the control group may use {:.1} CPUs and {} cores are to run: they will be stopped at times",
        quota as f64 / period as f64,
        facts.cores
    );
    let remedy =
        format!("set heizer.cores = {whole}, or lift the quota (CPUQuota= of a unit, --cpus of a container)");
    Some(Finding::advice("cpu quota", found, remedy))
}

fn governor(facts: &HostFacts) -> Finding {
    const SUBJECT: &str = "cpu governor";
    match facts.governors.iter().find(|governor| *governor != "performance") {
        None if facts.governors.is_empty() => Finding::ok(SUBJECT, "the system does not choose frequencies"),
        None => Finding::ok(SUBJECT, "performance"),
        Some(other) => Finding::advice(
            SUBJECT,
            format!("{other}: a core that wakes up is slow at first"),
            "`cpupower frequency-set -g performance`",
        ),
    }
}

fn clock_source(facts: &HostFacts) -> Option<Finding> {
    const SUBJECT: &str = "clock source";
    let source = facts.clock_source.as_deref()?;
    if !SLOW_CLOCKS.contains(&source) {
        return Some(Finding::ok(SUBJECT, source));
    }
    let has_tsc = facts.clock_sources.as_ref().is_some_and(|all| all.split(' ').any(|name| name == "tsc"));
    let remedy = match has_tsc {
        true => {
            "`echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`, and clocksource=tsc on the \
             kernel's command line"
        }
        false => "see `dmesg | grep -i tsc` for why the kernel does not trust the CPU's own counter",
    };
    Some(Finding::advice(SUBJECT, format!("{source}, which is slow to read"), remedy))
}

fn synchronised(facts: &HostFacts) -> Finding {
    const SUBJECT: &str = "clock";
    match facts.is_synchronised {
        Some(true) => Finding::ok(SUBJECT, "synchronised"),
        Some(false) => Finding::advice(
            SUBJECT,
            "not synchronised: timestamps, retention by age and timeouts of clients go by it",
            "`timedatectl set-ntp true`, or install chrony",
        ),
        None => Finding::ok(SUBJECT, "whether it is synchronised cannot be told from here"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn good() -> HostFacts {
        HostFacts {
            kernel: Ok("6.18.44".to_owned()),
            ring: Ok(()),
            has_cachestat: true,
            memlock: Ok(UNLIMITED),
            nofile: Ok(1 << 20),
            cpus: 8,
            cores: 8,
            cpu_max: Some("max 100000".to_owned()),
            governors: vec!["performance".to_owned(); 2],
            clock_source: Some("tsc".to_owned()),
            clock_sources: Some("tsc hpet acpi_pm".to_owned()),
            is_synchronised: Some(true),
        }
    }

    /// What is not in order, as `level subject: found -> remedy`.
    fn complaints(change: impl FnOnce(&mut HostFacts)) -> String {
        let mut facts = good();
        change(&mut facts);
        let bad = judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok);
        let lines = bad.map(|Finding { subject, level, found, remedy }| {
            format!("{level:?} {subject}: {found} -> {}", remedy.expect("what is bad can be mended"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_good_host_is_not_complained_of() {
        assert_eq!(complaints(|_| ()), "");
        assert_eq!(complaints(|facts| facts.governors.clear()), "");
        assert_eq!(complaints(|facts| facts.is_synchronised = None), "");
        assert_eq!(complaints(|facts| (facts.clock_source, facts.cpu_max) = (None, None)), "");
        assert_eq!(complaints(|facts| facts.memlock = Ok(8 << 20)), "");
        assert_eq!(complaints(|facts| facts.cpu_max = Some("800000 100000".to_owned())), "");
    }

    #[test]
    fn what_serve_refuses_is_a_problem_with_its_own_remedy() {
        let line = || Err("kernel 5.10 is too old; use Linux 6.1 or newer".to_owned());
        assert_eq!(
            complaints(|facts| facts.kernel = line()),
            "Problem kernel: kernel 5.10 is too old -> use Linux 6.1 or newer"
        );
        let refused = |text: &str| format!("Problem {text}: it is wrong -> mend it");
        let line = "it is wrong; mend it".to_owned();
        assert_eq!(complaints(|facts| facts.ring = Err(line.clone())), refused("io_uring"));
        assert_eq!(complaints(|facts| facts.memlock = Err(line.clone())), refused("memlock"));
        assert_eq!(complaints(|facts| facts.nofile = Err(line.clone())), refused("nofile"));
        assert!(
            complaints(|facts| facts.cores = 9).starts_with("Problem cores: 9 cores are asked for and 8")
        );
    }

    #[test]
    fn what_could_be_better_is_advice_with_a_command() {
        let says = |found: String, expected: [&str; 2]| {
            assert!(
                found.starts_with("Advice") && expected.iter().all(|text| found.contains(text)),
                "{found}"
            );
        };
        says(complaints(|facts| facts.has_cachestat = false), ["kernel", "Linux 6.5"]);
        says(complaints(|facts| facts.memlock = Ok(1 << 20)), ["memlock: 1 MiB", "LimitMEMLOCK"]);
        says(complaints(|facts| facts.nofile = Ok(20_000)), ["nofile", "ulimit -n"]);
        says(
            complaints(|facts| facts.cpu_max = Some("250000 100000".to_owned())),
            ["2.5 CPUs and 8 cores", "heizer.cores = 2"],
        );
        says(complaints(|facts| facts.governors[1] = "powersave".to_owned()), ["powersave", "cpupower"]);
        says(complaints(|facts| facts.is_synchronised = Some(false)), ["not synchronised", "timedatectl"]);
        says(complaints(|facts| facts.clock_source = Some("hpet".to_owned())), ["hpet", "echo tsc"]);
        let without_tsc = |facts: &mut HostFacts| {
            facts.clock_source = Some("acpi_pm".to_owned());
            facts.clock_sources = Some("acpi_pm".to_owned());
        };
        says(complaints(without_tsc), ["acpi_pm", "dmesg"]);
    }
}
