//! What the service manager is told of this broker: that it starts, is ready, lives and stops.
//!
//! Every few seconds all cores are called. As long as each answers, a start is given more time, however long the logs
//! take, and the watchdog is fed; a core that is stuck is noticed from outside.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::service_manager::ServiceManager;
use heizer_runtime::{cores, task, time};

/// How often the manager hears of a broker, at least.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// What a broker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Stopping,
}

impl Phase {
    /// What is said in it again and again, for a datagram can be lost.
    fn beat(self) -> &'static str {
        match self {
            // Six intervals.
            Phase::Starting => "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=starting",
            Phase::Ready => "READY=1\nWATCHDOG=1",
            Phase::Stopping => "STOPPING=1\nWATCHDOG=1\nSTATUS=stopping",
        }
    }
}

/// The leading core's connection to the service manager, if there is one.
#[derive(Debug)]
pub struct Supervision {
    told: Option<Rc<Told>>,
}

#[derive(Debug)]
struct Told {
    manager: ServiceManager,
    phase: Cell<Phase>,
}

impl Supervision {
    /// Nobody is told.
    pub fn none() -> Supervision {
        Supervision { told: None }
    }

    /// Tells whoever the environment names, from here on. Call it on the first core, when every core runs.
    pub fn start() -> Supervision {
        let manager = ServiceManager::from_environment().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told anything: NOTIFY_SOCKET is wrong");
            None
        });
        let told = manager.map(|manager| Rc::new(Told { manager, phase: Cell::new(Phase::Starting) }));
        if let Some(told) = &told {
            drop(task::spawn(beat(told.clone())));
        }
        Supervision { told }
    }

    /// Connections are taken.
    pub fn ready(&self, addr: SocketAddr) {
        self.turn(Phase::Ready, &format!("{}\nSTATUS=ready on {addr}", Phase::Ready.beat()));
    }

    /// No more requests are taken.
    pub fn stopping(&self) {
        self.turn(Phase::Stopping, Phase::Stopping.beat());
    }

    fn turn(&self, phase: Phase, lines: &str) {
        if let Some(told) = &self.told {
            told.phase.set(phase);
            told.tell(lines);
        }
    }
}

impl Told {
    fn tell(&self, lines: &str) {
        // What did not arrive is said again with the next beat.
        if let Err(error) = self.manager.tell(lines) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// For ever, or until a core is gone.
async fn beat(told: Rc<Told>) {
    // Two may be lost before the watchdog bites.
    let interval = told.manager.watchdog().map_or(INTERVAL_MAX, |limit| (limit / 3).min(INTERVAL_MAX));
    while cores::call_all(|| async {}).await.is_ok() {
        told.tell(told.phase.get().beat());
        time::sleep(interval).await;
    }
}
