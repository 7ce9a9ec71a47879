//! What the kernel knows about this process.

use std::fs;

/// Ticks of the clock that `/proc/self/stat` counts CPU time in: the kernel's ABI, the same on every architecture.
const USER_HZ: f64 = 100.0;

/// Figures of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Memory in use.
    pub resident_bytes: u64,
    /// CPU time, of user and kernel, in seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl ProcessFigures {
    /// As of now. `/proc` is memory: reading it does no I/O. What cannot be read stays zero.
    pub fn read() -> ProcessFigures {
        ProcessFigures {
            resident_bytes: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|s| resident(&s))
                .unwrap_or(0),
            cpu_seconds: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|s| cpu_seconds(&s))
                .unwrap_or(0.0),
            open_fds: open_fds(),
        }
    }
}

/// The kernel tells how many there are as the length of their directory, since Linux 6.2. Before, they are counted.
fn open_fds() -> u64 {
    const FDS: &str = "/proc/self/fd";
    match fs::metadata(FDS).map(|metadata| metadata.len()) {
        Ok(known) if known > 0 => known,
        // One of them is the listing's own.
        _ => fs::read_dir(FDS).map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_the_kernel_writes() {
        assert_eq!(resident("Name:\theizer\nVmRSS:\t    2048 kB\nThreads:\t3\n"), Some(2 << 20));
        let stat = "71 (a) (b) S 1 71 71 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 1 0 99 1 2";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!((resident(""), cpu_seconds("")), (None, None));
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 0 && figures.cpu_seconds >= 0.0);
        let listed = fs::read_dir("/proc/self/fd").expect("listed").count() as u64;
        // Other tests open and close files meanwhile.
        assert!(figures.open_fds > 0 && figures.open_fds.abs_diff(listed) < 1_000);
    }
}
