//! What the machine must offer, checked before anything starts: each failing check is one line that says what to do.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use io_uring::{IoUring, Probe, opcode};

/// The oldest kernel with everything the ring uses (`IORING_SETUP_DEFER_TASKRUN`).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Locked memory the scheduler insists on.
const MEMLOCK_MIN_BYTES: u64 = 512 << 10;
/// Below this many descriptors not even a small broker serves its clients.
const NOFILE_MIN: u64 = 1_024;

/// Why the broker cannot run here.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PreflightError {
    #[error(
        "kernel {found} is too old for io_uring as heizer uses it; use Linux {}.{} or newer",
        KERNEL_MIN.0,
        KERNEL_MIN.1
    )]
    Kernel { found: String },
    #[error(
        "io_uring is forbidden on this host (kernel.io_uring_disabled = {value}); run `sysctl -w kernel.io_uring_disabled=0`"
    )]
    Disabled { value: String },
    #[error(
        "io_uring is blocked ({error}), by a container's seccomp profile or kernel.io_uring_disabled; allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Blocked { error: io::Error },
    #[error("io_uring lacks {operation} on kernel {kernel}; use Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1)]
    Operation { operation: &'static str, kernel: String },
    #[error(
        "only {found} bytes may be locked in memory and {MEMLOCK_MIN_BYTES} are needed; raise it with `ulimit -l 8192` or LimitMEMLOCK=infinity in the unit"
    )]
    Memlock { found: u64 },
    #[error(
        "only {found} files may be open and at least {NOFILE_MIN} are needed; raise it with `ulimit -n 65536` or LimitNOFILE=1048576 in the unit"
    )]
    Files { found: u64 },
    #[error("data directory {}: {error}; choose another one with --data-dir or mend its permissions", path.display())]
    DataDir { path: PathBuf, error: io::Error },
}

/// What was found on a machine that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Descriptors this process may open, after raising its soft limit to the hard one.
    pub nofile: u64,
    /// Data directories whose file system has no direct I/O: they are served through the page cache.
    pub buffered: Vec<PathBuf>,
}

/// Checks kernel, io_uring, limits and every data directory, which is created where it is missing.
pub fn check(data_dirs: &[&Path]) -> Result<Report, PreflightError> {
    let kernel = check_kernel()?;
    check_ring()?;
    check_memlock()?;
    let nofile = check_nofile()?;
    let mut buffered = Vec::new();
    for path in data_dirs {
        let direct = check_data_dir(path)
            .map_err(|error| PreflightError::DataDir { path: path.to_path_buf(), error })?;
        if !direct {
            buffered.push(path.to_path_buf());
        }
    }
    Ok(Report { kernel, nofile, buffered })
}

/// The kernel's release, where it is new enough.
pub fn check_kernel() -> Result<String, PreflightError> {
    let release = kernel_release();
    if is_new_enough(&release) { Ok(release) } else { Err(PreflightError::Kernel { found: release }) }
}

/// Asked by a system call: `/proc/sys` may be hidden from a service.
fn kernel_release() -> String {
    let mut names = MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: uname fills the structure where it returns zero, and ends each of its texts with a zero.
    unsafe {
        if libc::uname(names.as_mut_ptr()) != 0 {
            return String::new();
        }
        CStr::from_ptr(names.assume_init_ref().release.as_ptr()).to_string_lossy().into_owned()
    }
}

fn is_new_enough(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= KERNEL_MIN
}

/// Whether this process may have a ring that can do all that is asked of it.
pub fn check_ring() -> Result<(), PreflightError> {
    // Absent before Linux 6.6. 1 leaves it to privileged processes; whether this is one, the attempt below tells.
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let disabled = disabled.trim();
    if disabled == "2" {
        return Err(PreflightError::Disabled { value: disabled.to_owned() });
    }
    let blocked = |error: io::Error| match disabled {
        "1" => PreflightError::Disabled { value: disabled.to_owned() },
        _ => PreflightError::Blocked { error },
    };
    let ring = IoUring::new(2).map_err(blocked)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(blocked)?;
    let needed = [
        (opcode::MsgRingData::CODE, "MSG_RING"),
        (opcode::SendMsg::CODE, "SENDMSG"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::Writev::CODE, "WRITEV"),
        (opcode::RenameAt::CODE, "RENAMEAT"),
        (opcode::UnlinkAt::CODE, "UNLINKAT"),
        (opcode::MkDirAt::CODE, "MKDIRAT"),
        (opcode::Fallocate::CODE, "FALLOCATE"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, operation)) => Err(PreflightError::Operation { operation, kernel: kernel_release() }),
        None => Ok(()),
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills the structure it is given.
    let status = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(status, 0, "limits can always be asked for");
    limit
}

/// Raises the soft limit to the hard one, which needs no privilege.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let mut found = limit(resource);
    if found.rlim_cur < found.rlim_max {
        let wanted = libc::rlimit { rlim_cur: found.rlim_max, rlim_max: found.rlim_max };
        // SAFETY: reads the structure it is given.
        if unsafe { libc::setrlimit(resource, &raw const wanted) } == 0 {
            found = wanted;
        }
    }
    found.rlim_cur
}

/// Bytes that this process may lock in memory, after raising its soft limit to the hard one, where that is enough.
pub fn check_memlock() -> Result<u64, PreflightError> {
    let found = raise(libc::RLIMIT_MEMLOCK);
    if found < MEMLOCK_MIN_BYTES { Err(PreflightError::Memlock { found }) } else { Ok(found) }
}

/// Descriptors that this process may open, after raising its soft limit to the hard one, where that is enough.
pub fn check_nofile() -> Result<u64, PreflightError> {
    let found = raise(libc::RLIMIT_NOFILE);
    if found < NOFILE_MIN { Err(PreflightError::Files { found }) } else { Ok(found) }
}

/// Creates the directory where it is missing and tries to write in it; whether direct I/O works there.
fn check_data_dir(path: &Path) -> io::Result<bool> {
    fs::create_dir_all(path)?;
    let probe = path.join(".heizer-probe");
    drop(fs::OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?);
    let direct = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&probe);
    fs::remove_file(&probe)?;
    match direct {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_major_and_minor() {
        for (release, good) in
            [("6.18.44-fc", true), ("6.1.0", true), ("6.0.19-generic", false), ("7.1", true), ("", false)]
        {
            assert_eq!(is_new_enough(release), good, "{release}");
        }
    }

    #[test]
    fn a_data_directory_below_a_file_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        fs::write(&file, b"").expect("a file");
        let error = check(&[&file.join("data")]).expect_err("no directory can be there");
        assert!(error.to_string().contains("file/data"), "{error}");
    }
}
