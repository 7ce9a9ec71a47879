//! A node's disk: directories and files that outlive its crashes, as far as they were synced.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::inode::Inode;
use super::lies::DiskLie;
use super::rng::Seeded;
use crate::buf::BLOCK_BYTES;
use crate::fs::{DeviceSync, DirEntry};

type InodeId = u64;

const ROOT: InodeId = 0;

/// What can go wrong with a disk and how fast it is. The default is a healthy one of 1 TiB.
///
/// Errors and short transfers are honest: whoever heeds what is reported comes to no harm. Lost, misdirected and corrupt
/// ones are lies, of which nothing is reported; [`Sim::disk_lies`](super::Sim::disk_lies) has them.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// Reads that fail with EIO, per million.
    pub read_error_ppm: u32,
    /// Writes that fail with EIO after some of their sectors, per million.
    pub write_error_ppm: u32,
    /// Syncs that fail with EIO and lose what they were to sync, per million.
    pub sync_error_ppm: u32,
    /// Writes and creations that fail with ENOSPC, per million.
    pub no_space_ppm: u32,
    /// Reads and writes carried out in two pieces, one after the other, per million: what a ring sees as a transfer that
    /// came out short, and goes on with. Anything may happen between the two, the end of the process included.
    pub short_transfer_ppm: u32,
    /// Writes that are reported as done although nothing is written, per million. The file gets its new length.
    pub lost_write_ppm: u32,
    /// Writes that are reported as done but put their bytes at another block of the same file or of another file of
    /// this disk, per million. The right place keeps its old bytes; no file but the one written to gets longer.
    pub misdirected_write_ppm: u32,
    /// Reads that return what lies at another block of the same file or of another one, per million.
    pub misdirected_read_ppm: u32,
    /// Reads that return one bit flipped, per million. The disk is unharmed.
    pub corrupt_read_ppm: u32,
    /// Bytes in all.
    pub capacity_bytes: u64,
    /// How many times slower than normal.
    pub slowness: u32,
}

impl Default for DiskFaults {
    fn default() -> Self {
        DiskFaults {
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            no_space_ppm: 0,
            short_transfer_ppm: 0,
            lost_write_ppm: 0,
            misdirected_write_ppm: 0,
            misdirected_read_ppm: 0,
            corrupt_read_ppm: 0,
            capacity_bytes: 1 << 40,
            slowness: 1,
        }
    }
}

/// Directories by id, entries by name. A directory without entries may be absent.
type Tree = BTreeMap<InodeId, BTreeMap<String, InodeId>>;

enum Kind {
    Directory,
    File(Rc<RefCell<Inode>>),
}

/// One atomic change of directories: a name in one of them, or in two for a rename.
struct Change {
    edits: Vec<Edit>,
}

struct Edit {
    directory: InodeId,
    name: String,
    to: Option<InodeId>,
}

/// The state behind a node's [`SimDisk`](super::fs::SimDisk).
pub(super) struct Disk {
    pub(super) faults: DiskFaults,
    /// Below these paths lie devices that have died: every operation fails with EIO.
    pub(super) dead: Vec<PathBuf>,
    pub(super) device_sync: DeviceSync,
    /// All that it has told so far.
    pub(super) lies: Vec<DiskLie>,
    inodes: BTreeMap<InodeId, Kind>,
    last_inode: InodeId,
    /// What lookups see.
    current: Tree,
    /// What a crash leaves for certain.
    durable: Tree,
    /// What leads from `durable` to `current`, oldest first.
    pending: Vec<Change>,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            faults: DiskFaults::default(),
            dead: Vec::new(),
            device_sync: DeviceSync::PerFile,
            lies: Vec::new(),
            inodes: BTreeMap::from([(ROOT, Kind::Directory)]),
            last_inode: ROOT,
            current: Tree::new(),
            durable: Tree::new(),
            pending: Vec::new(),
        }
    }

    /// Whether the device that `path` lies on answers at all.
    pub(super) fn check_device(&self, path: &Path) -> io::Result<()> {
        if self.dead.iter().any(|dead| names(path).starts_with(&names(dead))) {
            return Err(errno(libc::EIO));
        }
        Ok(())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Rc<RefCell<Inode>>> {
        match &self.inodes[&self.lookup(path)?] {
            Kind::File(inode) => Ok(inode.clone()),
            Kind::Directory => Err(errno(libc::EISDIR)),
        }
    }

    /// Every file there is or may come back, and nothing else.
    pub(super) fn files(&self) -> impl Iterator<Item = &Rc<RefCell<Inode>>> {
        self.inodes.values().filter_map(|kind| match kind {
            Kind::File(inode) => Some(inode),
            Kind::Directory => None,
        })
    }

    /// Where lookups find `inode`, if they do.
    pub(super) fn path_of(&self, inode: &Rc<RefCell<Inode>>) -> Option<PathBuf> {
        let is_it = |kind: &Kind| matches!(kind, Kind::File(candidate) if Rc::ptr_eq(candidate, inode));
        let mut id = *self.inodes.iter().find(|(_, kind)| is_it(kind))?.0;
        let mut names = Vec::new();
        while id != ROOT {
            let (&directory, name) = self.current.iter().find_map(|(directory, entries)| {
                let name = entries.iter().find(|(_, entry)| **entry == id)?.0;
                Some((directory, name))
            })?;
            names.push(name);
            id = directory;
        }
        Some(Path::new("/").join(names.into_iter().rev().collect::<PathBuf>()))
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Rc<RefCell<Inode>>> {
        let (directory, name) = self.place(path)?;
        let inode = Rc::new(RefCell::new(Inode::default()));
        let id = self.insert(Kind::File(inode.clone()));
        self.change(vec![Edit { directory, name, to: Some(id) }]);
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = ROOT;
        for name in names(path) {
            directory = match self.entry(directory, &name) {
                Some(id) if self.is_dir(id) => id,
                Some(_) => return Err(errno(libc::ENOTDIR)),
                None => {
                    let id = self.insert(Kind::Directory);
                    self.change(vec![Edit { directory, name, to: Some(id) }]);
                    id
                }
            };
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        if self.is_dir(self.lookup(path)?) {
            return Err(errno(libc::EISDIR));
        }
        let (directory, name) = self.place(path)?;
        self.change(vec![Edit { directory, name, to: None }]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let id = match self.lookup(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if !self.is_dir(id) {
            return Err(errno(libc::ENOTDIR));
        }
        let (directory, name) = self.place(path)?;
        self.empty(id);
        self.change(vec![Edit { directory, name, to: None }]);
        Ok(())
    }

    fn empty(&mut self, directory: InodeId) {
        for (name, id) in self.current.get(&directory).cloned().unwrap_or_default() {
            if self.is_dir(id) {
                self.empty(id);
            }
            self.change(vec![Edit { directory, name, to: None }]);
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.lookup(from)?;
        let (old_directory, old_name) = self.place(from)?;
        let (directory, name) = self.place(to)?;
        if let Some(target) = self.entry(directory, &name) {
            if target == id {
                return Ok(());
            }
            match (self.is_dir(id), self.is_dir(target)) {
                (false, true) => return Err(errno(libc::EISDIR)),
                (true, false) => return Err(errno(libc::ENOTDIR)),
                (true, true) if self.current.get(&target).is_some_and(|entries| !entries.is_empty()) => {
                    return Err(errno(libc::ENOTEMPTY));
                }
                _ => {}
            }
        }
        if self.is_dir(id) && names(to).starts_with(&names(from)) {
            return Err(errno(libc::EINVAL));
        }
        self.change(vec![
            Edit { directory: old_directory, name: old_name, to: None },
            Edit { directory, name, to: Some(id) },
        ]);
        Ok(())
    }

    /// Makes the pending changes of one directory durable, and with them whatever they build on.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.lookup(path)?;
        if !self.is_dir(id) {
            return Err(errno(libc::ENOTDIR));
        }
        // Backwards: a rename between directories must not overtake an earlier change of the other one.
        let mut directories = BTreeSet::from([id]);
        let mut synced = Vec::new();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if change.touches(&directories) {
                directories.extend(change.directories());
                synced.push(change);
            } else {
                left.push(change);
            }
        }
        synced.iter().rev().for_each(|change| apply(&mut self.durable, change));
        left.reverse();
        self.pending = left;
        self.forget_unreachable();
        Ok(())
    }

    /// Makes everything durable that was done so far.
    pub(super) fn sync_all(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
        self.forget_unreachable();
        for file in self.files() {
            let mut file = file.borrow_mut();
            let upto = file.begin_sync();
            file.end_sync(upto);
        }
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let id = self.lookup(path)?;
        if !self.is_dir(id) {
            return Err(errno(libc::ENOTDIR));
        }
        let entries = self.current.get(&id).into_iter().flatten();
        let describe = |(name, id): (&String, &InodeId)| match &self.inodes[id] {
            Kind::Directory => DirEntry { name: name.clone(), is_dir: true, len: 0 },
            Kind::File(inode) => DirEntry { name: name.clone(), is_dir: false, len: inode.borrow().len() },
        };
        Ok(entries.map(describe).collect())
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.lookup(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let used = |id: &InodeId| match &self.inodes[id] {
            Kind::Directory => 0,
            Kind::File(inode) => blocks(inode.borrow().len()),
        };
        let entries = self.current.values().flat_map(BTreeMap::values);
        self.faults.capacity_bytes.saturating_sub(entries.map(used).sum())
    }

    /// Whether a file of `len` bytes may grow to `new_len`.
    pub(super) fn check_space(&self, len: u64, new_len: u64) -> io::Result<()> {
        let growth = blocks(new_len).saturating_sub(blocks(len));
        if growth > 0 && growth > self.free_bytes() {
            return Err(errno(libc::ENOSPC));
        }
        Ok(())
    }

    /// The machine dies. Each directory keeps its durable state and, of what was done to it since, the first few
    /// changes; a rename happened in both its directories or in neither. Every file loses some of what was unsynced.
    pub(super) fn crash(&mut self, rng: &Seeded) {
        let survival = rng.survival();
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            if change.touches(&cut) || !rng.chance(survival) {
                cut.extend(change.directories());
            } else {
                apply(&mut self.durable, &change);
            }
        }
        self.current = self.durable.clone();
        self.forget_unreachable();
        for kind in self.inodes.values() {
            if let Kind::File(inode) = kind {
                inode.borrow_mut().crash(rng);
            }
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        names(path).iter().try_fold(ROOT, |directory, name| {
            if !self.is_dir(directory) {
                return Err(errno(libc::ENOTDIR));
            }
            self.entry(directory, name).ok_or_else(|| errno(libc::ENOENT))
        })
    }

    /// The directory that holds `path`, and its name there.
    fn place(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(|| errno(libc::EBUSY))?;
        let directory = self.lookup(&names.iter().collect::<PathBuf>())?;
        if !self.is_dir(directory) {
            return Err(errno(libc::ENOTDIR));
        }
        Ok((directory, name))
    }

    fn entry(&self, directory: InodeId, name: &str) -> Option<InodeId> {
        self.current.get(&directory)?.get(name).copied()
    }

    fn is_dir(&self, id: InodeId) -> bool {
        matches!(self.inodes[&id], Kind::Directory)
    }

    fn insert(&mut self, kind: Kind) -> InodeId {
        self.last_inode += 1;
        self.inodes.insert(self.last_inode, kind);
        self.last_inode
    }

    fn change(&mut self, edits: Vec<Edit>) {
        let change = Change { edits };
        apply(&mut self.current, &change);
        self.pending.push(change);
    }

    /// Drops what neither lookups nor a crash can bring back. Open files keep their own contents.
    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        reachable.extend(self.current.values().chain(self.durable.values()).flat_map(BTreeMap::values));
        let pending = self.pending.iter().flat_map(|change| &change.edits);
        reachable.extend(pending.flat_map(|edit| edit.to.into_iter().chain([edit.directory])));
        self.inodes.retain(|id, _| reachable.contains(id));
        for tree in [&mut self.current, &mut self.durable] {
            tree.retain(|directory, entries| !entries.is_empty() && self.inodes.contains_key(directory));
        }
    }
}

impl Change {
    fn directories(&self) -> impl Iterator<Item = InodeId> {
        self.edits.iter().map(|edit| edit.directory)
    }

    fn touches(&self, directories: &BTreeSet<InodeId>) -> bool {
        self.directories().any(|directory| directories.contains(&directory))
    }
}

fn apply(tree: &mut Tree, change: &Change) {
    for edit in &change.edits {
        let entries = tree.entry(edit.directory).or_default();
        match edit.to {
            Some(id) => entries.insert(edit.name.clone(), id),
            None => entries.remove(&edit.name),
        };
    }
}

/// The components of a path from the root; relative paths start there too.
fn names(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}

fn blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_BYTES as u64)
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
