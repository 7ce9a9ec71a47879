//! What there is to know of a host. Texts are as the kernel writes them, without the blanks around them.

use std::path::{Path, PathBuf};

use heizer_runtime::machine::Space;

use crate::data_dir::Glance;

/// Everything that a judgement is made from.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) host: HostFacts,
    pub(super) memory: MemoryFacts,
    pub(super) dirs: Vec<DirFacts>,
    pub(super) network: NetworkFacts,
}

/// The kernel, the limits of this process, CPUs and clocks.
#[derive(Clone, Debug)]
pub(super) struct HostFacts {
    /// The kernel's release, or why it will not do.
    pub(super) kernel: Result<String, String>,
    /// Why there can be no ring, if so.
    pub(super) ring: Result<(), String>,
    pub(super) has_cachestat: bool,
    /// Bytes that may be locked, or why they are too few.
    pub(super) memlock: Result<u64, String>,
    /// Descriptors that may be open, or why they are too few.
    pub(super) nofile: Result<u64, String>,
    /// CPUs that this process may use.
    pub(super) cpus: usize,
    /// Cores that the broker is to run on.
    pub(super) cores: usize,
    /// `cpu.max` of the control group.
    pub(super) cpu_max: Option<String>,
    /// `scaling_governor` of each group of CPUs.
    pub(super) governors: Vec<String>,
    pub(super) clock_source: Option<String>,
    pub(super) clock_sources: Option<String>,
    /// Whether somebody keeps the clock; none where that cannot be told.
    pub(super) is_synchronised: Option<bool>,
}

/// Memory, and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct MemoryFacts {
    /// `/proc/meminfo`.
    pub(super) meminfo: String,
    /// `memory.max` of the control group.
    pub(super) limit: Option<String>,
    /// `/proc/swaps`.
    pub(super) swaps: String,
    pub(super) swappiness: Option<String>,
    /// `/sys/kernel/mm/transparent_hugepage/enabled`.
    pub(super) huge_pages: Option<String>,
    /// What the cores plan by, together.
    pub(super) planned_bytes: u64,
}

/// A data directory and what is under it.
#[derive(Clone, Debug)]
pub(super) struct DirFacts {
    pub(super) path: PathBuf,
    /// How it was left, or why it cannot be taken.
    pub(super) glance: Result<Glance, String>,
    /// The mount that it is in; the nearest directory that there is stands for one that is missing.
    pub(super) mount: Option<Mount>,
    pub(super) direct: Direct,
    pub(super) space: Option<Space>,
    /// What producers are to leave free.
    pub(super) reserve_bytes: u64,
    /// The disks under the file system; none where it has none, or does not say.
    pub(super) disks: Vec<DiskFacts>,
}

/// Whether files can be read and written past the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Direct {
    Works,
    Missing,
    /// It cannot be tried.
    Unknown(String),
    /// Nothing can be written at all.
    Refused(String),
}

/// A disk, by its files under `/sys/block/NAME/queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskFacts {
    pub(super) name: String,
    pub(super) write_cache: Option<String>,
    pub(super) scheduler: Option<String>,
    pub(super) read_ahead_kb: Option<String>,
    pub(super) rotational: Option<String>,
}

/// Addresses, interfaces and the limits of connections.
#[derive(Clone, Debug)]
pub(super) struct NetworkFacts {
    pub(super) listeners: Vec<ListenerFacts>,
    /// A broker holds one of the data directories, so that it may well be the one that listens.
    pub(super) is_running: bool,
    /// The interfaces that clients of other hosts come through.
    pub(super) interfaces: Vec<InterfaceFacts>,
    pub(super) cpus: usize,
    pub(super) cores: usize,
    pub(super) somaxconn: Option<String>,
    pub(super) syn_backlog: Option<String>,
    /// `net.ipv4.tcp_rmem` and `tcp_wmem`.
    pub(super) receive_buffers: Option<String>,
    pub(super) send_buffers: Option<String>,
    /// `net.ipv4.ip_local_port_range` and `ip_local_reserved_ports`.
    pub(super) ephemeral_ports: Option<String>,
    pub(super) reserved_ports: Option<String>,
}

/// An address to listen on.
#[derive(Clone, Debug)]
pub(super) struct ListenerFacts {
    /// The flag that sets it.
    pub(super) flag: &'static str,
    /// `HOST:PORT`.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) state: ListenerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenerState {
    Free,
    InUse,
    /// Nobody can listen there.
    Impossible(String),
}

/// A network interface that is more than a name.
#[derive(Clone, Debug)]
pub(super) struct InterfaceFacts {
    pub(super) name: String,
    /// `rps_cpus` of each receive queue: which CPUs its packets are handed on to.
    pub(super) receive_queues: Vec<String>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    /// `MAJOR:MINOR`.
    pub(super) device: String,
    pub(super) point: PathBuf,
    pub(super) fs_type: String,
    /// The mount's options and its file system's.
    pub(super) options: Vec<String>,
}

impl Mount {
    /// Whether it was mounted with an option, by its whole text.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// The mount that an absolute path without links lies in, out of `/proc/self/mountinfo`.
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse_mount).filter(|mount| path.starts_with(&mount.point));
    // Of two on one directory the later one hides the other.
    mounts.max_by_key(|mount| mount.point.components().count())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let [_, _, device, _, point, options, ..] = mount.as_slice() else { return None };
    let mut file_system = file_system.split(' ');
    let (fs_type, _source, fs_options) = (file_system.next()?, file_system.next()?, file_system.next()?);
    Some(Mount {
        device: (*device).to_owned(),
        point: PathBuf::from(unescape(point)),
        fs_type: fs_type.to_owned(),
        options: options.split(',').chain(fs_options.split(',')).map(str::to_owned).collect(),
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// A number, where the text is one.
pub(super) fn number(text: &Option<String>) -> Option<u64> {
    text.as_ref()?.parse().ok()
}

/// The word in brackets among several: `none [mq-deadline]`.
pub(super) fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw,discard
30 27 8:17 / /srv/a\\040b rw,relatime shared:2 master:3 - xfs /dev/sdb1 rw,attr2
31 27 0:40 / /srv/data rw - tmpfs tmpfs rw,size=1k
32 27 8:33 / /srv/data rw,relatime - ext4 /dev/sdc1 rw
a line of nothing
";

    #[test]
    fn a_path_is_in_the_deepest_and_latest_mount() {
        let found = |path: &str| {
            let mount = mount_of(MOUNTINFO, Path::new(path)).expect("mounted");
            format!("{} {}", mount.device, mount.fs_type)
        };
        assert_eq!(found("/var/lib/heizer"), "254:0 ext4");
        assert_eq!(found("/srv/a b/data"), "8:17 xfs");
        assert_eq!(found("/srv/data"), "8:33 ext4");
        assert_eq!(found("/srv/database"), "254:0 ext4");
        let root = mount_of(MOUNTINFO, Path::new("/")).expect("mounted");
        assert!(root.has("noatime") && root.has("discard") && !root.has("atime"));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn words_and_numbers_are_read() {
        assert_eq!(chosen("none [mq-deadline] bfq"), Some("mq-deadline"));
        assert_eq!((chosen("none"), chosen("[never")), (None, None));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((number(&text("4096")), number(&text("-1")), number(&None)), (Some(4096), None, None));
    }
}
