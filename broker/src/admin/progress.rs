//! How far long work is: on standard error, where that is a terminal.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use heizer_runtime::time::{Instant, now};

/// Work that takes less says nothing.
const SHORT: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(200);

/// A line that is written over until the end, and then removed.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    due: Cell<Instant>,
    shown: Cell<bool>,
}

impl Progress {
    pub(super) fn start() -> Progress {
        Progress {
            terminal: io::stderr().is_terminal(),
            due: Cell::new(now() + SHORT),
            shown: Cell::new(false),
        }
    }

    /// For work whose own output, or input, is on the terminal.
    pub(super) fn silent() -> Progress {
        let mut progress = Progress::start();
        progress.terminal = false;
        progress
    }

    /// Says how far it is, now and then.
    pub(super) fn tell(&self, how_far: fmt::Arguments<'_>) {
        if !self.terminal || now() < self.due.get() {
            return;
        }
        self.due.set(now() + INTERVAL);
        self.shown.set(true);
        eprint!("\r\x1b[K{how_far}");
    }

    /// Makes room for other lines.
    pub(super) fn clear(&self) {
        if self.shown.replace(false) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
