//! Memory, swap and huge pages.

use super::facts::{MemoryFacts, chosen, number};
use super::finding::{Finding, size};

/// Above this the kernel swaps out memory of a process that rests for the sake of the page cache.
const SWAPPINESS_MAX: u64 = 10;

pub(super) fn judge(facts: &MemoryFacts) -> Vec<Finding> {
    vec![memory(facts), swap(facts), huge_pages(facts)]
}

fn memory(facts: &MemoryFacts) -> Finding {
    const SUBJECT: &str = "memory";
    let limit = number(&facts.limit);
    let Some(there) = total_bytes(&facts.meminfo).into_iter().chain(limit).min() else {
        return Finding::ok(SUBJECT, "how much there is cannot be told from here");
    };
    let found = format!("the cores plan by {} of {}", size(facts.planned_bytes), size(there));
    let remedy = "lower heizer.memory.per.core.bytes or heizer.cores";
    if facts.planned_bytes > there {
        return Finding::problem(SUBJECT, found, remedy);
    }
    // The rest is for indexes, connections and the pages of what consumers read.
    if facts.planned_bytes > there / 4 * 3 {
        let found = format!("{found}, which leaves little for everything else");
        return Finding::advice(SUBJECT, found, remedy);
    }
    Finding::ok(SUBJECT, found)
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1_024))
}

fn swap(facts: &MemoryFacts) -> Finding {
    const SUBJECT: &str = "swap";
    // Behind a line of headings: name, kind, size in KiB and more.
    let sizes =
        facts.swaps.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    let bytes = sizes.fold(0, u64::saturating_add).saturating_mul(1_024);
    let swappiness = number(&facts.swappiness);
    match swappiness.filter(|value| *value > SWAPPINESS_MAX) {
        _ if bytes == 0 => Finding::ok(SUBJECT, "there is none"),
        Some(value) => Finding::advice(
            SUBJECT,
            format!("{} and vm.swappiness = {value}: memory of the broker may be swapped out", size(bytes)),
            "`sysctl -w vm.swappiness=1`, and for good in /etc/sysctl.d",
        ),
        None => Finding::ok(SUBJECT, format!("{}, not for memory that is in use", size(bytes))),
    }
}

fn huge_pages(facts: &MemoryFacts) -> Finding {
    const SUBJECT: &str = "transparent huge pages";
    match facts.huge_pages.as_deref().and_then(chosen) {
        Some("always") => Finding::advice(
            SUBJECT,
            "always: a small buffer may hold 2 MiB, also where only so much may be locked",
            "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, and transparent_hugepage=madvise on the \
             kernel's command line",
        ),
        Some(other) => Finding::ok(SUBJECT, other),
        None => Finding::ok(SUBJECT, "there are none"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384000 kB\nMemFree:         1000 kB";
    const NO_SWAP: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    const SWAP: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/sda2                               partition\t4194304\t\t0\t\t-2
/swapfile                               file\t\t4194304\t\t0\t\t-3";

    fn good() -> MemoryFacts {
        MemoryFacts {
            meminfo: MEMINFO.to_owned(),
            limit: Some("max".to_owned()),
            swaps: NO_SWAP.to_owned(),
            swappiness: Some("60".to_owned()),
            huge_pages: Some("always [madvise] never".to_owned()),
            planned_bytes: 1 << 30,
        }
    }

    fn levels(facts: &MemoryFacts) -> [Level; 3] {
        let levels: Vec<Level> = judge(facts).iter().map(|finding| finding.level).collect();
        levels.try_into().expect("memory, swap, huge pages")
    }

    #[test]
    fn a_good_host_is_not_complained_of() {
        assert_eq!(levels(&good()), [Level::Ok; 3]);
        let unknown = MemoryFacts {
            meminfo: String::new(),
            limit: None,
            swaps: String::new(),
            swappiness: None,
            huge_pages: None,
            planned_bytes: u64::MAX,
        };
        assert_eq!(levels(&unknown), [Level::Ok; 3]);
    }

    #[test]
    fn the_cores_may_not_plan_by_more_than_there_is() {
        let of = |planned_bytes, limit: &str| {
            levels(&MemoryFacts { planned_bytes, limit: Some(limit.to_owned()), ..good() })[0]
        };
        assert_eq!(of(1 << 30, "max"), Level::Ok);
        assert_eq!(of(13 << 30, "max"), Level::Advice);
        assert_eq!(of(16 << 30, "max"), Level::Problem);
        assert_eq!(of(1 << 30, "4294967296"), Level::Ok);
        assert_eq!(of(1 << 30, "1073741825"), Level::Advice);
        assert_eq!(of(1 << 30, "536870912"), Level::Problem);
    }

    #[test]
    fn swap_is_for_what_nobody_uses() {
        let of = |swappiness: &str| {
            let swappiness = Some(swappiness.to_owned());
            judge(&MemoryFacts { swaps: SWAP.to_owned(), swappiness, ..good() }).swap_remove(1)
        };
        assert_eq!(of("1").level, Level::Ok);
        let finding = of("60");
        assert_eq!(finding.level, Level::Advice);
        assert!(finding.found.starts_with("8 GiB and vm.swappiness = 60"), "{}", finding.found);
    }

    #[test]
    fn huge_pages_for_everything_are_too_large() {
        let always = MemoryFacts { huge_pages: Some("[always] madvise never".to_owned()), ..good() };
        assert_eq!(levels(&always), [Level::Ok, Level::Ok, Level::Advice]);
    }
}
