//! The device under a directory: whether its cache loses power, and how to flush it.
//!
//! The flush goes through a file without a name (`O_TMPFILE`) that nobody ever writes to: `fdatasync` has nothing of
//! the file to wait for, and what is left of it on ext4 and xfs is the flush of the device. (A directory would not do:
//! xfs flushes nothing for one that is clean.)

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::driver::Driver;
use super::file::File;
use crate::fs::DeviceSync;

#[derive(Debug)]
pub(crate) struct Device {
    sync: DeviceSync,
    /// The file without a name. Every clone of the descriptor would do; there is one.
    clean: Option<File>,
}

impl Device {
    /// Whatever cannot be found out makes the device one that only a file's own sync is to be trusted with.
    pub(crate) async fn open(driver: &Driver, dir: &Path) -> Device {
        let per_file = Device { sync: DeviceSync::PerFile, clean: None };
        let Ok(clean) = File::unnamed(driver.clone(), dir).await else { return per_file };
        let sync = device_sync(clean.raw_fd());
        // Its own creation is done with, so that no later flush waits for the journal on its account.
        if sync == DeviceSync::PerFile || clean.sync_all().await.is_err() {
            return per_file;
        }
        Device { sync, clean: Some(clean) }
    }

    pub(crate) fn sync(&self) -> DeviceSync {
        self.sync
    }

    pub(crate) async fn flush(&self) -> io::Result<()> {
        match &self.clean {
            Some(clean) => clean.sync_data().await,
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// What the file system of an open, regular file and the device under it promise.
fn device_sync(fd: RawFd) -> DeviceSync {
    let writes_in_place = match magic(fd) {
        Ok(libc::EXT4_SUPER_MAGIC) => true,
        // Blocks shared with a copy of the file move when they are written, which a clean file's sync knows nothing of.
        Ok(libc::XFS_SUPER_MAGIC) => !xfs_shares_blocks(fd),
        _ => false,
    };
    // A mount with data=journal, encryption and the like turn direct writes into buffered ones without a word.
    let Some((major, minor)) = device_of_direct_file(fd).filter(|_| writes_in_place) else {
        return DeviceSync::PerFile;
    };
    match cache_is_volatile(Path::new("/sys/dev/block"), major, minor) {
        true => DeviceSync::SharedFlush,
        false => DeviceSync::NoCache,
    }
}

fn magic(fd: RawFd) -> io::Result<libc::c_long> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs fills the structure it is given where it returns zero; the descriptor is open.
    let stat = unsafe {
        if libc::fstatfs(fd, stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok(stat.f_type)
}

/// Major and minor number of the file's device, where direct writes to the file are what they are called.
fn device_of_direct_file(fd: RawFd) -> Option<(u32, u32)> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_DIOALIGN;
    // SAFETY: the path is a zero-terminated literal; all zeros are a valid statx, which the call fills.
    let stat = unsafe {
        if libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    let direct = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
    direct.then_some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Whether files of this xfs may share blocks (`reflink=1`, the default of its mkfs).
fn xfs_shares_blocks(fd: RawFd) -> bool {
    /// `struct xfs_fsop_geom` of the kernel's `xfs_fs.h`: the flags are its twenty-fourth word.
    const GEOMETRY_BYTES: usize = 256;
    const XFS_IOC_FSGEOMETRY: libc::Ioctl = 0x8100_587e_u32 as libc::Ioctl;
    const FLAGS_WORD: usize = 23;
    const FLAGS_REFLINK: u32 = 1 << 20;
    let mut geometry = [0_u32; GEOMETRY_BYTES / size_of::<u32>()];
    // SAFETY: the request's number says that 256 bytes are written, which is the size of the array.
    let status = unsafe { libc::ioctl(fd, XFS_IOC_FSGEOMETRY, geometry.as_mut_ptr()) };
    status != 0 || geometry[FLAGS_WORD] & FLAGS_REFLINK != 0
}

/// Whether the device, of which `sysfs` is `/sys/dev/block`, holds writes in a cache that loses power. One that is
/// put together of others (device mapper, md), or that does not say, is taken for such a one.
fn cache_is_volatile(sysfs: &Path, major: u32, minor: u32) -> bool {
    // Resolved first: the entry is a link, and a partition's disk is the directory above where it leads.
    let Ok(device) = sysfs.join(format!("{major}:{minor}")).canonicalize() else { return true };
    let disk: PathBuf = match device.join("partition").exists() {
        true => device.parent().map(Path::to_owned).unwrap_or_default(),
        false => device,
    };
    let below = std::fs::read_dir(disk.join("slaves")).map_or(0, Iterator::count);
    if below > 0 || ["dm", "md"].iter().any(|name| disk.join(name).exists()) {
        return true;
    }
    let cache = std::fs::read_to_string(disk.join("queue/write_cache"));
    cache.map_or(true, |text| text.trim() != "write through")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like `/sys/dev/block` for one disk, 8:0, with a partition, 8:1.
    fn sysfs(write_cache: Option<&str>, stacked: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let disk = root.path().join("devices/sda");
        let partition = disk.join("sda1");
        std::fs::create_dir_all(disk.join("queue")).expect("made");
        std::fs::create_dir_all(&partition).expect("made");
        std::fs::write(partition.join("partition"), "1\n").expect("written");
        if let Some(text) = write_cache {
            std::fs::write(disk.join("queue/write_cache"), text).expect("written");
        }
        if let Some(name) = stacked {
            std::fs::create_dir_all(disk.join(name)).expect("made");
        }
        std::os::unix::fs::symlink("devices/sda", root.path().join("8:0")).expect("linked");
        std::os::unix::fs::symlink("devices/sda/sda1", root.path().join("8:1")).expect("linked");
        root
    }

    #[test]
    fn only_a_plain_disk_that_says_write_through_has_no_volatile_cache() {
        let table = [
            (Some("write through\n"), None, false),
            (Some("write back\n"), None, true),
            (Some("write through\n"), Some("dm"), true),
            (Some("write through\n"), Some("md"), true),
            (Some("write through\n"), Some("slaves/sdb"), true),
            (Some("write through\n"), Some("slaves"), false),
            (None, None, true),
        ];
        for (write_cache, stacked, volatile) in table {
            let root = sysfs(write_cache, stacked);
            for minor in [0, 1] {
                let found = cache_is_volatile(root.path(), 8, minor);
                assert_eq!(found, volatile, "{write_cache:?} {stacked:?} 8:{minor}");
            }
            assert!(cache_is_volatile(root.path(), 9, 0), "an unknown device");
        }
    }

    #[test]
    fn the_words_of_the_geometry_are_where_the_kernel_puts_them() {
        // _IOR('X', 126, 256 bytes): direction 2, size, type, number.
        assert_eq!(0x8100_587e_u32, 2 << 30 | 256 << 16 | u32::from(b'X') << 8 | 126);
    }
}
