//! The free space of a data directory's file system: a reserve that clients' appends may not touch, and what happens
//! once the disk is full all the same.
//!
//! | | who may append |
//! |---|---|
//! | more than the reserve is free | everybody |
//! | less, from the crossing until [`resume_at`](Gauge::resume_at) | the broker itself, down to half of the reserve |
//! | the disk has refused something (ENOSPC, EDQUOT) and no retry has succeeded yet | nobody |
//!
//! Raft is asked for nothing: its stream appends in any case, and waits where the disk is full. What is in memory by
//! then stays there, in order, and is written when space has come back.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::future;
use heizer_runtime::sync::Event;
use heizer_runtime::{cores, fs, task, time};

use crate::error::StorageError;

/// The reserve is no more than one part in so many of the file system.
const RESERVE_SHARE: u64 = 4;
/// Between two looks no more than one part in so many of the reserve is used up, by all cores together.
const LOOKS_PER_RESERVE: u64 = 4;
/// Bytes between two looks are not fewer than this, however small the reserve.
const LOOK_BYTES_MIN: u64 = 64 << 10;
/// Appends are taken again when so much more than the reserve is free: a part of it, and not less than this.
const RESUME_SHARE: u64 = 4;
const RESUME_BYTES_MIN: u64 = 1 << 20;
/// One file reserves ahead of its end no more than one part in so many of what is free above the reserve.
const AHEAD_SHARE: u64 = 8;
/// What the disk has refused is tried again after this, if nothing is heard of space before.
const RETRY: Duration = Duration::from_secs(1);
/// How often the free space is looked at while appends are refused.
const RECOVERY_LOOK: Duration = Duration::from_millis(250);

/// Who wants to append.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A client, who can try again.
    Client,
    /// The broker for itself: groups' offsets, replicas.
    Own,
}

/// The state of a directory's space, for metrics and log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceStatus {
    /// Bytes free when it was last looked.
    pub free_bytes: u64,
    /// Bytes of the file system; 0 before anybody has asked.
    pub total_bytes: u64,
    /// Bytes that clients' appends leave free.
    pub reserve_bytes: u64,
    /// Bytes that have to become free before clients' appends are taken again; 0 when they are taken.
    pub missing_bytes: u64,
    /// Clients' appends are refused.
    pub refusing: bool,
    /// What the disk has refused last, where it is full to the brim (or a quota is used up).
    pub error: Option<String>,
}

/// What setting the reserve has come to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Bytes asked for.
    pub wanted_bytes: u64,
    /// Bytes that it is: no more than a quarter of the file system.
    pub bytes: u64,
    /// Bytes of the file system.
    pub total_bytes: u64,
}

/// Everything known of the free space, and what follows from it. No I/O, no clock.
#[derive(Debug, Default)]
struct Gauge {
    /// `None`: nobody has set one, and only a disk that is full refuses anything.
    reserve: Option<u64>,
    /// As last seen.
    free: Option<u64>,
    /// Bytes of the file system, as last seen.
    total: u64,
    /// Bytes that this core's files have reserved since.
    used: u64,
    /// Bytes that are appended and have no place on the disk yet.
    owed: u64,
    /// Writers whose last attempt the disk has refused.
    starving: usize,
    refusing: bool,
}

impl Gauge {
    /// Clients are let in again at so many free bytes.
    fn resume_at(&self) -> u64 {
        let reserve = self.reserve.unwrap_or(0);
        reserve.saturating_add((reserve / RESUME_SHARE).max(RESUME_BYTES_MIN))
    }

    /// What is free for more, if only this core has used anything since the last look.
    fn estimate(&self) -> Option<u64> {
        self.free.map(|free| free.saturating_sub(self.used).saturating_sub(self.owed))
    }

    /// A look has found `free` bytes; of those used before it started, `counted` are in that figure. Returns whether
    /// refusing has changed.
    fn looked(&mut self, free: u64, counted: u64) -> bool {
        self.free = Some(free);
        self.used = self.used.saturating_sub(counted);
        self.judge()
    }

    /// A file has reserved `bytes`. Returns whether refusing has changed.
    fn take(&mut self, bytes: u64) -> bool {
        self.used = self.used.saturating_add(bytes);
        self.judge()
    }

    /// What a file owes has changed. Returns whether refusing has.
    fn owe(&mut self, before: u64, after: u64) -> bool {
        self.owed = (self.owed + after).checked_sub(before).expect("no file takes back more than it owed");
        self.judge()
    }

    fn judge(&mut self) -> bool {
        let before = self.refusing;
        let free = self.estimate();
        if self.starving > 0 || free.is_some_and(|free| free < self.reserve.unwrap_or(0)) {
            self.refusing = true;
        } else if free.is_some_and(|free| free >= self.resume_at()) {
            self.refusing = false;
        }
        before != self.refusing
    }

    /// Whether it is time for a look, of `cores` cores that use the same file system.
    fn wants_look(&self, cores: u64) -> bool {
        let Some(reserve) = self.reserve else { return false };
        let bytes = (reserve / (LOOKS_PER_RESERVE * cores.max(1))).max(LOOK_BYTES_MIN);
        self.free.is_none() || self.used >= bytes
    }

    /// Whether an append may start. It may reach below the line that it has to start above, once: what must not be is
    /// that it is refused for its size while nobody is told that the disk is full.
    fn admits(&self, claim: Claim) -> bool {
        let half = self.reserve.unwrap_or(0) / 2;
        match claim {
            _ if self.starving > 0 => false,
            Claim::Client => !self.refusing,
            Claim::Own => self.estimate().is_none_or(|free| free >= half),
        }
    }

    /// How many bytes a file may reserve ahead of its need.
    fn ahead_max(&self) -> u64 {
        match self.estimate() {
            _ if self.refusing => 0,
            Some(free) => free.saturating_sub(self.reserve.unwrap_or(0)) / AHEAD_SHARE,
            None => u64::MAX,
        }
    }

    fn status(&self, error: Option<String>) -> SpaceStatus {
        let free_bytes = self.free.unwrap_or(0);
        let missing = self.resume_at().saturating_sub(self.estimate().unwrap_or(0));
        let missing_bytes = if self.refusing { missing } else { 0 };
        let reserve_bytes = self.reserve.unwrap_or(0);
        let (total_bytes, refusing) = (self.total, self.refusing);
        SpaceStatus { free_bytes, total_bytes, reserve_bytes, missing_bytes, refusing, error }
    }
}

/// Called when appends begin to be refused, and when they are taken again.
type Hook = Rc<dyn Fn(&SpaceStatus)>;

/// The space of one data directory as one core sees it. Lives on that core, as long as anything in the directory;
/// every log and stream in there counts against it.
pub struct Space {
    me: Weak<Space>,
    path: PathBuf,
    gauge: RefCell<Gauge>,
    /// What the disk has refused last.
    error: RefCell<Option<String>>,
    looking: Cell<bool>,
    recovering: Cell<bool>,
    /// There may be more space than before.
    news: Event,
    hooks: RefCell<Vec<Hook>>,
}

impl Space {
    pub(crate) fn new(path: &Path) -> Rc<Space> {
        Rc::new_cyclic(|me| Space {
            me: me.clone(),
            path: path.to_owned(),
            gauge: RefCell::default(),
            error: RefCell::default(),
            looking: Cell::new(false),
            recovering: Cell::new(false),
            news: Event::new(),
            hooks: RefCell::default(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From here on clients' appends leave `wanted_bytes` free, or a quarter of the file system where that is less:
    /// a small one must be of some use too. Call [`look`](Self::look) every second or so from then on: others use
    /// the disk as well. An error is the file system's.
    pub async fn set_reserve(&self, wanted_bytes: u64) -> io::Result<Reserve> {
        let total_bytes = fs::total_bytes(&self.path).await?;
        self.gauge.borrow_mut().total = total_bytes;
        let bytes = wanted_bytes.min(total_bytes / RESERVE_SHARE);
        self.gauge.borrow_mut().reserve = Some(bytes);
        self.look().await?;
        Ok(Reserve { wanted_bytes, bytes, total_bytes })
    }

    /// Asks the file system how much is free.
    pub async fn look(&self) -> io::Result<()> {
        let counted = self.gauge.borrow().used;
        let free = fs::free_bytes(&self.path).await?;
        let before = self.gauge.borrow().free;
        let turned = self.gauge.borrow_mut().looked(free, counted);
        if before.is_some_and(|before| free > before) {
            self.news.notify_all();
        }
        self.tell(turned);
        Ok(())
    }

    /// As [`look`](Self::look), and asks how large the file system is by now: for somebody who shows both.
    pub async fn measure(&self) -> io::Result<()> {
        let total = fs::total_bytes(&self.path).await?;
        self.gauge.borrow_mut().total = total;
        self.look().await
    }

    /// As of the last look.
    pub fn status(&self) -> SpaceStatus {
        self.gauge.borrow().status(self.error.borrow().clone())
    }

    /// Has `hook` called, on this core, when appends begin to be refused and when they are taken again; at once, where
    /// they are refused already.
    pub fn on_turn(&self, hook: Rc<dyn Fn(&SpaceStatus)>) {
        self.hooks.borrow_mut().push(hook.clone());
        if self.is_refusing() {
            hook(&self.status());
        }
    }

    /// Whether clients' appends are refused.
    pub fn is_refusing(&self) -> bool {
        self.gauge.borrow().refusing
    }

    /// Whether the disk has refused something that no retry has brought through yet.
    pub(crate) fn is_starving(&self) -> bool {
        self.gauge.borrow().starving > 0
    }

    /// Whether an append may start.
    pub(crate) fn admits(&self, claim: Claim) -> bool {
        self.gauge.borrow().admits(claim)
    }

    /// How many bytes a file may reserve ahead of its need.
    pub(crate) fn ahead_max(&self) -> u64 {
        self.gauge.borrow().ahead_max()
    }

    /// A file has reserved `bytes`.
    pub(crate) fn take(&self, bytes: u64) {
        let turned = self.gauge.borrow_mut().take(bytes);
        self.after(turned);
    }

    /// A file owed `before`: bytes that are appended to it and have no place on the disk yet; now it owes `after`.
    pub(crate) fn owe(&self, before: u64, after: u64) {
        if before != after {
            let turned = self.gauge.borrow_mut().owe(before, after);
            self.after(turned);
        }
    }

    /// A file that owed `bytes` is gone.
    pub(crate) fn forget(&self, bytes: u64) {
        // No task comes from here, where the core may be about to end; the next look judges.
        self.gauge.borrow_mut().owed -= bytes;
    }

    fn after(&self, turned: bool) {
        if self.gauge.borrow().wants_look(cores::count() as u64) {
            self.look_soon();
        }
        if turned {
            let space = self.me();
            drop(task::spawn(async move {
                // Not from here, where a log may be in the middle of an append: a task may start at once.
                task::yield_now().await;
                space.tell(true);
            }));
        }
    }

    /// The disk has refused what the caller must write. Nobody appends until the caller, having succeeded or given
    /// up, drops what this returns.
    pub(crate) fn starve(&self, error: &StorageError) -> Starving {
        *self.error.borrow_mut() = Some(error.to_string());
        self.gauge.borrow_mut().starving += 1;
        // The turn is told with a fresh figure.
        self.look_soon();
        self.recover_soon();
        Starving { space: self.me() }
    }

    /// Waits until it makes sense to try again what the disk has refused.
    pub(crate) async fn retry_due(&self) {
        let news = self.news.listen();
        future::select(pin!(time::sleep(RETRY)), news).await;
    }

    fn me(&self) -> Rc<Space> {
        self.me.upgrade().expect("called through an Rc")
    }

    /// Looks in a task of its own, unless one is about to.
    fn look_soon(&self) {
        if self.looking.replace(true) {
            return;
        }
        let space = self.me();
        drop(task::spawn(async move {
            // The caller may be in the middle of an append, and a look end without waiting for anything.
            task::yield_now().await;
            space.look_or_say().await;
            space.looking.set(false);
        }));
    }

    async fn look_or_say(&self) {
        if let Err(error) = self.look().await {
            tracing::debug!(dir = %self.path.display(), %error, "the free space cannot be told");
            // Those who starve are heard all the same.
            let turned = self.gauge.borrow_mut().judge();
            self.tell(turned);
        }
    }

    fn tell(&self, turned: bool) {
        if !turned {
            return;
        }
        let status = self.status();
        if status.refusing {
            self.recover_soon();
        } else {
            *self.error.borrow_mut() = None;
            self.news.notify_all();
        }
        let hooks = self.hooks.borrow().clone();
        hooks.iter().for_each(|hook| hook(&status));
    }

    /// Sees to it that a task looks until appends are taken again.
    fn recover_soon(&self) {
        if self.recovering.replace(true) {
            return;
        }
        let weak = self.me.clone();
        drop(task::spawn(async move {
            loop {
                time::sleep(RECOVERY_LOOK).await;
                let Some(space) = weak.upgrade() else { return };
                space.look_or_say().await;
                if !space.is_refusing() && !space.is_starving() {
                    space.recovering.set(false);
                    return;
                }
            }
        }));
    }
}

/// A writer that the disk has refused.
pub(crate) struct Starving {
    space: Rc<Space>,
}

impl Drop for Starving {
    fn drop(&mut self) {
        // The task that looks lets clients in again, once enough is free.
        self.space.gauge.borrow_mut().starving -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn gauge(reserve: u64, free: u64) -> Gauge {
        let mut gauge = Gauge { reserve: Some(reserve), ..Gauge::default() };
        gauge.looked(free, 0);
        gauge
    }

    #[test]
    fn clients_leave_the_reserve_and_the_broker_itself_half_of_it() {
        let table = [
            // MiB free, client, own
            (100, true, true),
            (64, true, true),
            (63, false, true),
            (32, false, true),
            (31, false, false),
            (0, false, false),
        ];
        for (free, client, own) in table {
            let gauge = gauge(64 * MIB, free * MIB);
            assert_eq!(gauge.admits(Claim::Client), client, "client, {free} MiB free");
            assert_eq!(gauge.admits(Claim::Own), own, "own, {free} MiB free");
        }
    }

    #[test]
    fn what_is_used_between_two_looks_counts_against_the_last_one() {
        let mut gauge = gauge(64 * MIB, 100 * MIB);
        assert!(!gauge.wants_look(2));
        assert!(!gauge.take(8 * MIB));
        assert!(gauge.wants_look(2), "an eighth of the reserve, of two cores");
        assert!(!gauge.wants_look(1));
        assert!(gauge.take(29 * MIB), "below the reserve, without a look");
        assert!(!gauge.admits(Claim::Client));
        assert!(!gauge.looked(63 * MIB, 37 * MIB), "the look finds no more");
        assert_eq!(gauge.used, 0);
    }

    #[test]
    fn what_is_appended_and_has_no_place_yet_counts_until_it_has() {
        let mut gauge = gauge(64 * MIB, 100 * MIB);
        assert!(!gauge.owe(0, 36 * MIB));
        assert!(!gauge.looked(100 * MIB, 0), "a look does not see it");
        assert!(gauge.owe(0, 1), "below the reserve");
        assert!(!gauge.admits(Claim::Client) && gauge.admits(Claim::Own));
        gauge.take(37 * MIB);
        gauge.owe(36 * MIB + 1, 0);
        assert_eq!(gauge.estimate(), Some(63 * MIB), "once, not twice");
    }

    #[test]
    fn refusing_ends_well_above_where_it_began() {
        let mut gauge = gauge(64 * MIB, 63 * MIB);
        assert_eq!(gauge.status(None).missing_bytes, 17 * MIB);
        assert!(!gauge.looked(70 * MIB, 0), "not yet");
        assert!(gauge.refusing && !gauge.admits(Claim::Client));
        assert!(gauge.looked(80 * MIB, 0));
        assert!(gauge.admits(Claim::Client));
        assert_eq!(gauge.status(None).missing_bytes, 0);
    }

    #[test]
    fn a_full_disk_refuses_everybody_until_what_it_refused_is_written() {
        let mut gauge = gauge(0, 100 * MIB);
        gauge.starving = 1;
        assert!(gauge.judge());
        assert!(!gauge.admits(Claim::Own) && !gauge.admits(Claim::Client));
        assert_eq!(gauge.ahead_max(), 0);
        assert!(!gauge.looked(100 * MIB, 0), "free bytes are not all that can be missing");
        gauge.starving = 0;
        assert!(gauge.judge());
        assert!(gauge.admits(Claim::Client));
    }

    #[test]
    fn without_a_reserve_nothing_is_looked_at_and_nothing_refused() {
        let mut gauge = Gauge::default();
        assert!(!gauge.take(u64::MAX) && !gauge.wants_look(1));
        assert!(gauge.admits(Claim::Client));
        assert_eq!(gauge.ahead_max(), u64::MAX);
    }

    #[test]
    fn a_measure_tells_how_large_the_file_system_is_and_how_much_is_free() {
        heizer_runtime::sim::block_on(1, async {
            let space = Space::new(Path::new("/"));
            assert_eq!(space.status().total_bytes, 0);
            space.measure().await.expect("a healthy disk");
            let SpaceStatus { free_bytes, total_bytes, refusing, .. } = space.status();
            assert!(free_bytes > 0 && total_bytes >= free_bytes && !refusing);
        });
    }

    #[test]
    fn reserving_ahead_takes_a_part_of_what_is_above_the_reserve() {
        assert_eq!(gauge(64 * MIB, 144 * MIB).ahead_max(), 10 * MIB);
        assert_eq!(gauge(64 * MIB, 60 * MIB).ahead_max(), 0);
    }
}
