//! The data directories: how they were left, their file systems and the disks below.

use super::facts::{DirFacts, Direct, DiskFacts, Mount, chosen, number};
use super::finding::{Finding, size};

/// File systems that are tested, and whose settled blocks stay where they are.
const TESTED: [&str; 2] = ["ext4", "xfs"];
/// File systems in memory.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];
/// Consumers of a backlog are as fast as the kernel reads ahead.
const READ_AHEAD_KB_MIN: u64 = 128;

pub(super) fn judge(dirs: &[DirFacts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dir in dirs {
        findings.push(state(dir));
        findings.extend(dir.mount.as_ref().into_iter().flat_map(|mount| file_system(dir, mount)));
        findings.push(direct(dir));
        findings.extend(space(dir));
        findings.extend(dir.disks.iter().flat_map(|disk| judge_disk(dir, disk)));
    }
    findings.extend(shared(dirs));
    findings
}

fn state(dir: &DirFacts) -> Finding {
    let subject = format!("data directory {}", dir.path.display());
    let glance = match &dir.glance {
        Err(line) => return Finding::refusal(subject, line),
        Ok(glance) => glance,
    };
    if !glance.is_there {
        return Finding::ok(subject, "is not there yet and will be made");
    }
    if let Some(pid) = glance.holder {
        return Finding::ok(subject, format!("process {pid} works in it"));
    }
    match (glance.is_used, glance.is_clean) {
        (false, _) => Finding::ok(subject, "new"),
        (true, true) => Finding::ok(subject, "every log in it was closed in good order"),
        (true, false) => Finding::advice(
            subject,
            "was not left in good order: the next start looks at what was written last, and cuts what is torn",
            format!(
                "nothing need be done; `heizer log recover-dry-run {}` says what it would cut",
                dir.path.display()
            ),
        ),
    }
}

fn file_system(dir: &DirFacts, mount: &Mount) -> Vec<Finding> {
    let subject = format!("file system of {}", dir.path.display());
    let Mount { fs_type, point, .. } = mount;
    let (kind, at) = (fs_type.as_str(), point.display());
    let remount = |option: &str| format!("`mount -o remount,{option} {at}`, and for good in /etc/fstab");
    let mut findings = vec![if VOLATILE.contains(&kind) {
        Finding::problem(&subject, format!("{kind}: all of it is in memory"), "put log.dirs on ext4 or xfs")
    } else if TESTED.contains(&kind) {
        Finding::ok(&subject, format!("{kind}, mounted at {at}"))
    } else if kind == "overlay" {
        let found = "overlay: a container's own layer, which goes with the container";
        Finding::advice(&subject, found, "mount a volume there, of ext4 or xfs")
    } else {
        let found = format!(
            "{kind}, on which no more is known than what it says: every durable write syncs its file"
        );
        Finding::advice(&subject, found, "put log.dirs on ext4 or xfs")
    }];
    if mount.has("ro") {
        findings.push(Finding::problem(&subject, "mounted read-only", remount("rw")));
    }
    if mount.has("nobarrier") || mount.has("barrier=0") {
        let found =
            "mounted without barriers: what a disk has in its cache is lost in a power cut, durable or not";
        findings.push(Finding::problem(&subject, found, remount("barrier=1")));
    }
    if mount.has("data=journal") {
        let found = "mounted with data=journal, which writes everything twice and knows no direct I/O";
        findings.push(Finding::advice(
            &subject,
            found,
            "mount it without data=journal; this takes an unmount",
        ));
    }
    if ["relatime", "noatime", "ro"].iter().all(|option| !mount.has(option)) {
        let found = "mounted without noatime: reading writes";
        findings.push(Finding::advice(&subject, found, remount("noatime")));
    }
    if mount.has("discard") {
        let found = "mounted with discard: the removal of segments holds up writes on many disks";
        let remedy = format!("{}, and `systemctl enable --now fstrim.timer`", remount("nodiscard"));
        findings.push(Finding::advice(&subject, found, remedy));
    }
    findings
}

fn direct(dir: &DirFacts) -> Finding {
    let subject = format!("direct I/O in {}", dir.path.display());
    match &dir.direct {
        Direct::Works => Finding::ok(subject, "works"),
        Direct::Missing => Finding::advice(
            subject,
            "is not there: everything goes through the page cache, and its figures do not hold",
            "put log.dirs on ext4 or xfs",
        ),
        Direct::Unknown(reason) => Finding::ok(subject, format!("cannot be tried here ({reason})")),
        Direct::Refused(reason) => Finding::problem(
            subject,
            format!("this user cannot write there ({reason})"),
            "check as the user that the broker runs as (`sudo -u heizer heizer check`), or give it the directory \
             (`chown heizer: DIRECTORY`)",
        ),
    }
}

fn space(dir: &DirFacts) -> Option<Finding> {
    let (space, reserve) = (dir.space?, dir.reserve_bytes);
    let subject = format!("space in {}", dir.path.display());
    let free = format!("{} of {} are free", size(space.free_bytes), size(space.total_bytes));
    let remedy = "make room, or lower log.retention.bytes and log.retention.ms";
    Some(if space.free_bytes < reserve {
        let found = format!("{free}, less than the reserve of {}: producers are refused", size(reserve));
        Finding::problem(subject, found, remedy)
    } else if space.free_bytes < space.total_bytes / 10 {
        Finding::advice(subject, format!("{free}, less than a tenth"), remedy)
    } else {
        Finding::ok(subject, format!("{free}, {} of them in reserve", size(reserve)))
    })
}

fn judge_disk(dir: &DirFacts, disk: &DiskFacts) -> Vec<Finding> {
    let name = &disk.name;
    let subject = format!("disk {name} of {}", dir.path.display());
    let queue = format!("/sys/block/{name}/queue");
    let mut findings = vec![Finding::ok(
        &subject,
        match disk.write_cache.as_deref() {
            Some("write through") => "no volatile cache: a complete write is a durable one",
            Some("write back") => "a volatile cache, which durable writes flush",
            _ => "does not say whether its cache is volatile: durable writes flush it",
        },
    )];
    // Disks of virtual machines call themselves rotational, whatever they are.
    let is_virtual = ["vd", "xvd"].iter().any(|prefix| name.starts_with(prefix));
    if number(&disk.rotational) == Some(1) && !is_virtual {
        let found = "a disk with heads: each durable write waits for them";
        let remedy = "use an SSD, or heizer.durability = \"written\" for topics that replicas keep";
        findings.push(Finding::advice(&subject, found, remedy));
    }
    if disk.scheduler.as_deref().and_then(chosen) == Some("bfq") {
        let found = "its scheduler is bfq, which costs CPU and delays durable writes";
        let remedy = format!("`echo none > {queue}/scheduler`, and for good by a udev rule");
        findings.push(Finding::advice(&subject, found, remedy));
    }
    if let Some(kib) = number(&disk.read_ahead_kb).filter(|kib| *kib < READ_AHEAD_KB_MIN) {
        let found = format!("the kernel reads ahead by {kib} KiB: consumers of a backlog wait for the disk");
        let remedy =
            format!("`echo {READ_AHEAD_KB_MIN} > {queue}/read_ahead_kb`, and for good by a udev rule");
        findings.push(Finding::advice(&subject, found, remedy));
    }
    findings
}

/// Data directories on one file system: they fill and fail together.
fn shared(dirs: &[DirFacts]) -> Option<Finding> {
    let point = |dir: &DirFacts| dir.mount.as_ref().map(|mount| mount.point.clone());
    let (one, other) = dirs.iter().enumerate().find_map(|(at, dir)| {
        let other = dirs[..at].iter().find(|other| point(dir).is_some() && point(other) == point(dir))?;
        Some((other, dir))
    })?;
    let found = format!("{} and {} are on one file system", one.path.display(), other.path.display());
    Some(Finding::advice("log.dirs", found, "one directory a disk: they fill and fail together otherwise"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use heizer_runtime::machine::Space;

    use super::super::facts::mount_of;
    use super::super::finding::Level;
    use super::*;
    use crate::data_dir::Glance;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn good() -> DirFacts {
        DirFacts {
            path: PathBuf::from("/data"),
            glance: Ok(Glance { is_there: true, ..Glance::default() }),
            mount: mount("ext4", "rw,noatime"),
            direct: Direct::Works,
            space: Some(Space { free_bytes: 50 << 30, total_bytes: 100 << 30 }),
            reserve_bytes: 1 << 30,
            disks: vec![DiskFacts {
                name: "nvme0n1".to_owned(),
                write_cache: text("write through"),
                scheduler: text("[none] mq-deadline"),
                read_ahead_kb: text("128"),
                rotational: text("0"),
            }],
        }
    }

    fn mount(kind: &str, options: &str) -> Option<Mount> {
        let line = format!("30 27 8:17 / /data {options} shared:2 - {kind} /dev/sdb1 rw,attr2\n");
        mount_of(&line, std::path::Path::new("/data"))
    }

    /// What is not in order, as `level subject: found -> remedy`.
    fn complaints(change: impl FnOnce(&mut DirFacts)) -> String {
        let mut facts = good();
        change(&mut facts);
        let bad = judge(&[facts]).into_iter().filter(|finding| finding.level != Level::Ok);
        let lines = bad.map(|Finding { subject, level, found, remedy }| {
            format!("{level:?} {subject}: {found} -> {}", remedy.expect("what is bad can be mended"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn says(found: String, level: Level, expected: &[&str]) {
        assert!(found.starts_with(&format!("{level:?}")) && !found.contains('\n'), "{found}");
        assert!(expected.iter().all(|text| found.contains(text)), "{found}");
    }

    #[test]
    fn a_good_directory_is_not_complained_of() {
        assert_eq!(complaints(|_| ()), "");
        assert_eq!(complaints(|dir| dir.mount = mount("xfs", "rw,relatime")), "");
        assert_eq!(complaints(|dir| dir.disks[0].write_cache = text("write back")), "");
        assert_eq!(complaints(|dir| dir.direct = Direct::Unknown("no such files".to_owned())), "");
        assert_eq!(complaints(|dir| (dir.mount, dir.space, dir.disks) = (None, None, Vec::new())), "");
        assert_eq!(complaints(|dir| dir.disks[0] = DiskFacts::default()), "");
        let of_a_machine = |dir: &mut DirFacts| {
            dir.disks[0].name = "vda".to_owned();
            dir.disks[0].rotational = text("1");
        };
        assert_eq!(complaints(of_a_machine), "");
    }

    #[test]
    fn how_a_directory_was_left_decides_what_is_said_of_it() {
        let there = Glance { is_there: true, is_used: true, ..Glance::default() };
        let with = |glance: Glance| complaints(|dir| dir.glance = Ok(glance));
        assert_eq!(with(Glance::default()), "");
        assert_eq!(with(Glance { is_clean: true, ..there.clone() }), "");
        assert_eq!(with(Glance { holder: Some(7), ..there.clone() }), "");
        says(with(there), Level::Advice, &["not left in good order", "heizer log recover-dry-run /data"]);
        let refused = "data directory /data belongs to broker 2, not to 1; use --node-id 2";
        says(
            complaints(|dir| dir.glance = Err(refused.to_owned())),
            Level::Problem,
            &["belongs to broker 2", "-> use --node-id 2"],
        );
    }

    #[test]
    fn file_systems_and_their_options_are_told_apart() {
        let of = |kind: &str, options: &str| complaints(|dir| dir.mount = mount(kind, options));
        says(of("tmpfs", "rw,relatime"), Level::Problem, &["tmpfs", "ext4 or xfs"]);
        says(of("overlay", "rw,relatime"), Level::Advice, &["container", "volume"]);
        says(of("btrfs", "rw,relatime"), Level::Advice, &["btrfs"]);
        says(of("nfs4", "rw,relatime"), Level::Advice, &["nfs4"]);
        says(of("ext4", "ro,relatime"), Level::Problem, &["read-only", "remount,rw /data"]);
        says(of("ext4", "rw,relatime,nobarrier"), Level::Problem, &["barriers"]);
        says(of("ext4", "rw,noatime,barrier=0"), Level::Problem, &["barrier=1"]);
        says(of("ext4", "rw,noatime,data=journal"), Level::Advice, &["data=journal"]);
        says(of("ext4", "rw"), Level::Advice, &["remount,noatime /data"]);
        says(of("ext4", "rw,noatime,discard"), Level::Advice, &["fstrim.timer", "remount,nodiscard"]);
    }

    #[test]
    fn nothing_can_be_kept_where_nothing_can_be_written() {
        says(complaints(|dir| dir.direct = Direct::Missing), Level::Advice, &["page cache"]);
        let refused = Direct::Refused("Permission denied".to_owned());
        says(complaints(|dir| dir.direct = refused), Level::Problem, &["Permission denied", "chown"]);
    }

    #[test]
    fn space_is_compared_with_the_reserve() {
        let with =
            |free_bytes| complaints(|dir| dir.space = Some(Space { free_bytes, total_bytes: 100 << 30 }));
        assert_eq!(with(10 << 30), "");
        says(with((10 << 30) - 1), Level::Advice, &["less than a tenth"]);
        says(with((1 << 30) - 1), Level::Problem, &["reserve of 1 GiB", "retention"]);
    }

    #[test]
    fn disks_are_told_what_to_change_by_path() {
        let with = |change: fn(&mut DiskFacts)| complaints(|dir| change(&mut dir.disks[0]));
        says(with(|disk| disk.rotational = text("1")), Level::Advice, &["heads", "SSD"]);
        says(
            with(|disk| disk.scheduler = text("none [bfq]")),
            Level::Advice,
            &["echo none > /sys/block/nvme0n1/queue/scheduler"],
        );
        says(
            with(|disk| disk.read_ahead_kb = text("0")),
            Level::Advice,
            &["echo 128 > /sys/block/nvme0n1/queue/read_ahead_kb"],
        );
    }

    #[test]
    fn directories_on_one_file_system_fail_together() {
        let second = DirFacts { path: PathBuf::from("/data/2"), ..good() };
        let findings = judge(&[good(), second.clone()]);
        assert!(findings.iter().any(|finding| finding.subject == "log.dirs"));
        let elsewhere = mount_of("1 0 8:1 / /data/2 rw - ext4 x rw", std::path::Path::new("/data/2"));
        let findings = judge(&[good(), DirFacts { mount: elsewhere, ..second }]);
        assert!(!findings.iter().any(|finding| finding.subject == "log.dirs"));
    }
}
