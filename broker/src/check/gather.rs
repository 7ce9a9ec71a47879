//! Finding out: what cannot be read stays unknown. Blocks.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use heizer_runtime::{host, machine, preflight};

use super::facts::{
    DirFacts, Direct, DiskFacts, Facts, HostFacts, InterfaceFacts, ListenerFacts, ListenerState, MemoryFacts,
    NetworkFacts, mount_of,
};
use crate::config::{BrokerConfig, Endpoint};
use crate::data_dir::Glance;

/// Everything there is to know of this host for a broker with these settings.
pub(super) fn facts(config: &BrokerConfig) -> Facts {
    let cpus = host::available_cpus().len();
    let cores = config.cores.unwrap_or(cpus);
    let mountinfo = read("/proc/self/mountinfo").unwrap_or_default();
    let dirs: Vec<DirFacts> =
        config.log_dirs.iter().map(|path| dir_facts(path, config, cores, &mountinfo)).collect();
    let is_held = |dir: &DirFacts| dir.glance.as_ref().is_ok_and(|glance| glance.holder.is_some());
    let is_running = dirs.iter().any(is_held);
    Facts {
        host: host_facts(cpus, cores),
        memory: memory_facts(config.memory_per_core_bytes.saturating_mul(cores as u64)),
        network: network_facts(config, cpus, cores, is_running),
        dirs,
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What is in a directory, in order; nothing where it is not there.
fn entries(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// A limit of this process's own control group (version 2).
fn control_group(name: &str) -> Option<String> {
    let groups = read("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    read(Path::new("/sys/fs/cgroup").join(own).join(name))
}

fn host_facts(cpus: usize, cores: usize) -> HostFacts {
    let clock = Path::new("/sys/devices/system/clocksource/clocksource0");
    let policies = entries("/sys/devices/system/cpu/cpufreq");
    HostFacts {
        kernel: preflight::check_kernel().map_err(|error| error.to_string()),
        ring: preflight::check_ring().map_err(|error| error.to_string()),
        has_cachestat: machine::has_cachestat(),
        memlock: preflight::check_memlock().map_err(|error| error.to_string()),
        nofile: preflight::check_nofile().map_err(|error| error.to_string()),
        cpus,
        cores,
        cpu_max: control_group("cpu.max"),
        governors: policies.iter().filter_map(|policy| read(policy.join("scaling_governor"))).collect(),
        clock_source: read(clock.join("current_clocksource")),
        clock_sources: read(clock.join("available_clocksource")),
        is_synchronised: machine::is_clock_synchronised().ok(),
    }
}

fn memory_facts(planned_bytes: u64) -> MemoryFacts {
    MemoryFacts {
        meminfo: read("/proc/meminfo").unwrap_or_default(),
        limit: control_group("memory.max"),
        swaps: read("/proc/swaps").unwrap_or_default(),
        swappiness: read("/proc/sys/vm/swappiness"),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled"),
        planned_bytes,
    }
}

fn dir_facts(path: &Path, config: &BrokerConfig, cores: usize, mountinfo: &str) -> DirFacts {
    // Nothing is made here: the nearest directory that there is tells what the missing one would be like.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let nearest = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    let nearest = nearest.unwrap_or(PathBuf::from("/"));
    let mount = mount_of(mountinfo, &nearest);
    let space = machine::space(&nearest).ok();
    // No more than a quarter of the file system, as the storage has it.
    let reserve_max = space.map_or(u64::MAX, |space| space.total_bytes / 4);
    DirFacts {
        path: path.to_owned(),
        glance: Glance::take(path, config.node_id).map_err(|error| error.to_string()),
        direct: direct(&nearest),
        space,
        reserve_bytes: config.disk_reserve(cores).min(reserve_max),
        disks: mount.as_ref().map_or(Vec::new(), |mount| disks(Path::new("/sys/dev/block"), &mount.device)),
        mount,
    }
}

fn direct(directory: &Path) -> Direct {
    match machine::has_direct_io(directory) {
        Ok(true) => Direct::Works,
        Ok(false) => Direct::Missing,
        // The errors of file systems without files that have no name.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => {
            Direct::Unknown(error.to_string())
        }
        Err(error) => Direct::Refused(error.to_string()),
    }
}

/// The disks at the bottom of a device, of which `sysfs` is `/sys/dev/block`.
fn disks(sysfs: &Path, device: &str) -> Vec<DiskFacts> {
    let mut found = Vec::new();
    collect_disks(&sysfs.join(device), &mut found);
    found
}

fn collect_disks(device: &Path, found: &mut Vec<DiskFacts>) {
    // The entry is a link, and a partition's disk is the directory above where it leads.
    let Ok(device) = device.canonicalize() else { return };
    let disk: &Path = match device.join("partition").exists() {
        true => device.parent().unwrap_or(&device),
        false => &device,
    };
    let parts = entries(disk.join("slaves"));
    if !parts.is_empty() {
        return parts.iter().for_each(|part| collect_disks(part, found));
    }
    let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if found.iter().any(|known| known.name == name) {
        return;
    }
    let attribute = |name| read(disk.join("queue").join(name));
    found.push(DiskFacts {
        name,
        write_cache: attribute("write_cache"),
        scheduler: attribute("scheduler"),
        read_ahead_kb: attribute("read_ahead_kb"),
        rotational: attribute("rotational"),
    });
}

fn network_facts(config: &BrokerConfig, cpus: usize, cores: usize, is_running: bool) -> NetworkFacts {
    let mut listeners: Vec<ListenerFacts> =
        config.listeners.iter().map(|endpoint| listener_facts("--listen", endpoint)).collect();
    listeners.push(listener_facts("--admin-listen", &config.admin_listen));
    let addresses: Vec<IpAddr> =
        config.listeners.iter().filter_map(|endpoint| Some(endpoint.resolve().ok()?.ip())).collect();
    let ipv4 = |name: &str| read(Path::new("/proc/sys/net/ipv4").join(name));
    NetworkFacts {
        listeners,
        is_running,
        interfaces: interfaces(&addresses),
        cpus,
        cores,
        somaxconn: read("/proc/sys/net/core/somaxconn"),
        syn_backlog: ipv4("tcp_max_syn_backlog"),
        receive_buffers: ipv4("tcp_rmem"),
        send_buffers: ipv4("tcp_wmem"),
        ephemeral_ports: ipv4("ip_local_port_range"),
        reserved_ports: ipv4("ip_local_reserved_ports"),
    }
}

fn listener_facts(flag: &'static str, endpoint: &Endpoint) -> ListenerFacts {
    let state = match endpoint.resolve().and_then(machine::check_address) {
        Ok(()) => ListenerState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => ListenerState::InUse,
        Err(error) => ListenerState::Impossible(error.to_string()),
    };
    ListenerFacts { flag, address: endpoint.host_port(), port: endpoint.port, state }
}

/// The network cards that connections to these addresses come through.
fn interfaces(addresses: &[IpAddr]) -> Vec<InterfaceFacts> {
    let is_meant = |own: &IpAddr| addresses.iter().any(|wanted| wanted.is_unspecified() || wanted == own);
    let all = machine::interface_addresses().unwrap_or_default();
    let names: BTreeSet<String> =
        all.into_iter().filter(|(_, own)| is_meant(own)).map(|(name, _)| name).collect();
    let sysfs = Path::new("/sys/class/net");
    // What has no device under it, such as the loopback, has no queues of its own either.
    let cards = names.into_iter().filter(|name| sysfs.join(name).join("device").exists());
    cards.map(|name| InterfaceFacts { receive_queues: receive_queues(&sysfs.join(&name)), name }).collect()
}

fn receive_queues(interface: &Path) -> Vec<String> {
    let queues = entries(interface.join("queues"));
    let is_receiving =
        |queue: &&PathBuf| queue.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rx-"));
    queues.iter().filter(is_receiving).map(|queue| read(queue.join("rps_cpus")).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two disks, a partition of the first, and a device that is put together of that and the second.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        make("devices/sda/queue/write_cache", "write back\n");
        make("devices/sda/queue/scheduler", "none [mq-deadline]\n");
        make("devices/sda/queue/rotational", "1\n");
        make("devices/sda/sda1/partition", "1\n");
        make("devices/nvme0n1/queue/write_cache", "write through\n");
        make("devices/dm-0/dm/name", "both\n");
        fs::create_dir(root.path().join("devices/dm-0/slaves")).expect("made");
        symlink("../../sda/sda1", root.path().join("devices/dm-0/slaves/sda1")).expect("linked");
        symlink("../../nvme0n1", root.path().join("devices/dm-0/slaves/nvme0n1")).expect("linked");
        for (device, target) in [("8:0", "sda"), ("8:1", "sda/sda1"), ("254:0", "dm-0")] {
            symlink(format!("devices/{target}"), root.path().join(device)).expect("linked");
        }
        root
    }

    #[test]
    fn disks_are_found_under_partitions_and_what_is_put_together() {
        let root = sysfs();
        let names = |device: &str| {
            let found = disks(root.path(), device);
            found.into_iter().map(|disk| disk.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("8:0"), "sda");
        assert_eq!(names("8:1"), "sda");
        assert_eq!(names("254:0"), "nvme0n1 sda");
        assert_eq!(names("0:40"), "");
        let disk = disks(root.path(), "8:1").remove(0);
        assert_eq!(disk.write_cache.as_deref(), Some("write back"));
        assert_eq!((disk.rotational.as_deref(), disk.read_ahead_kb), (Some("1"), None));
    }

    #[test]
    fn a_missing_directory_is_judged_by_the_nearest_one_above() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b/c");
        let text = path.display().to_string();
        let config = BrokerConfig::from_settings([("log.dirs", text.as_str())]).expect("valid");
        let found = dir_facts(&path, &config, 1, "1 0 254:0 / / rw - ext4 /dev/vda rw\n");
        assert_eq!(found.glance, Ok(Glance::default()));
        assert!(found.space.is_some() && !matches!(found.direct, Direct::Refused(_)));
        assert_eq!(found.mount.expect("the root").fs_type, "ext4");
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 0);
    }
}
