//! A thread beside a core, for what can only be done by blocking: a command-line verb's standard input and output.
//!
//! The broker's path has no use for it: files and sockets go through the ring.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use futures::channel::oneshot;

use crate::core::{self, Backend, Message};
use crate::ring::Doorbell;

/// Carries out work in the order in which it is given, away from the core. Belongs to the core that started it; its
/// thread ends after it is dropped, once it has no more to do. In a simulation the work is done on the spot.
pub struct Helper {
    /// None in a simulation.
    work: Option<mpsc::Sender<Work>>,
}

type Work = Box<dyn FnOnce() -> Message + Send>;

impl Helper {
    /// Starts a thread of this name.
    pub fn start(name: &str) -> io::Result<Helper> {
        let core = core::current();
        let Backend::Ring(driver) = &core.backend else { return Ok(Helper { work: None }) };
        let (mailboxes, index) = (driver.mailboxes(), usize::from(core.id.0));
        let mut doorbell = Doorbell::new()?;
        let (sender, receiver) = mpsc::channel::<Work>();
        let body = move || {
            for work in receiver {
                let answer = work();
                doorbell.send(&mailboxes[index], answer);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Helper { work: Some(sender) })
    }

    /// Does `work` there and brings its output back. Dropping the future does not stop the work, only its output is
    /// lost. A panic of the work is passed on.
    pub async fn run<F, T>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(queue) = &self.work else { return work() };
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // Sent by the core itself: wakers belong to its thread. Nobody may be waiting any more.
            Box::new(move || drop(sender.send(outcome))) as Message
        };
        queue.send(Box::new(job)).expect("the thread lives as long as its queue");
        match receiver.await.expect("every job is answered") {
            Ok(output) => output,
            Err(payload) => resume_unwind(payload),
        }
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper").field("simulated", &self.work.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{host, sim, time};

    #[test]
    fn the_core_goes_on_while_its_helper_blocks() {
        let (ticks, answers) = host::block_on(|| async {
            let helper = Helper::start("helper").expect("a thread");
            let blocked = helper.run(|| {
                thread::sleep(Duration::from_millis(50));
                thread::current().name().map(str::to_owned)
            });
            let mut blocked = std::pin::pin!(blocked);
            let mut ticks = 0;
            let name = loop {
                let tick = std::pin::pin!(time::sleep(Duration::from_millis(1)));
                match futures::future::select(blocked.as_mut(), tick).await {
                    futures::future::Either::Left((name, _)) => break name,
                    futures::future::Either::Right(_) => ticks += 1,
                }
            };
            let mut answers = vec![name];
            for _ in 0..1_000 {
                answers.push(helper.run(|| None).await);
            }
            (ticks, answers)
        })
        .expect("a core");
        assert!(ticks > 5, "{ticks}");
        assert_eq!((answers.len(), answers[0].as_deref()), (1_001, Some("helper")));
    }

    #[test]
    fn work_that_panics_panics_where_it_was_asked_for() {
        let caught = host::block_on(|| async {
            let helper = Helper::start("helper").expect("a thread");
            let outcome = AssertUnwindSafe(helper.run(|| -> u32 { panic!("on purpose") }));
            let failed = futures::FutureExt::catch_unwind(outcome).await.is_err();
            (failed, helper.run(|| 7).await)
        });
        assert_eq!(caught.expect("a core"), (true, 7));
    }

    #[test]
    fn in_a_simulation_work_is_done_on_the_spot() {
        let output =
            sim::block_on(1, async { Helper::start("helper").expect("nothing to start").run(|| 5).await });
        assert_eq!(output, 5);
    }
}
