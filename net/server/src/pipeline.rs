//! The requests in flight on one connection: futures first polled in request order, completing in any order, their
//! replies leaving in request order (contract P4).

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use heizer_runtime::fs::FileRegion;
use heizer_runtime::time::Instant;

use crate::config::Limits;
use crate::service::Reply;

/// Replies are gathered into one write up to these sizes.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_PARTS: usize = 256;

/// Owned by one connection's task; it never awaits, so a borrow of it is always short.
pub(crate) struct Pipeline<F: Future<Output = Reply>> {
    running: FuturesOrdered<F>,
    /// Frame sizes of what runs, in request order.
    sizes: VecDeque<usize>,
    bytes_running: usize,
    outbox: VecDeque<Queued>,
    /// Replies handed to the writer and not yet written.
    writing: usize,
    /// What those replies hold.
    writing_held: Vec<Box<dyn Any>>,
    /// The longest mute among the replies that are not yet written.
    mute_queued: Duration,
    muted_until: Instant,
    no_more_requests: bool,
    closing: bool,
    broken: bool,
    revision: u64,
}

/// What is sent at once: bytes, and between them parts of files, each before the part of its index.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) files: Vec<(usize, FileRegion)>,
}

impl Batch {
    fn len(&self) -> usize {
        let here: usize = self.parts.iter().map(Bytes::len).sum();
        here + self.files.iter().map(|(_, region)| region.len()).sum::<usize>()
    }

    fn append(&mut self, other: Batch) {
        if self.parts.is_empty() && self.files.is_empty() {
            *self = other;
            return;
        }
        let before = self.parts.len();
        self.files.extend(other.files.into_iter().map(|(at, region)| (before + at, region)));
        self.parts.extend(other.parts);
    }
}

/// A reply whose turn has come.
struct Queued {
    frame: Batch,
    mute: Duration,
    held: Option<Box<dyn Any>>,
}

/// Whether the next request may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Yes.
    Now,
    /// When the pipeline has moved on.
    Later,
    /// At this time (KIP-219).
    At(Instant),
}

impl<F: Future<Output = Reply>> Pipeline<F> {
    pub(crate) fn new() -> Self {
        Pipeline {
            running: FuturesOrdered::new(),
            sizes: VecDeque::new(),
            bytes_running: 0,
            outbox: VecDeque::new(),
            writing: 0,
            writing_held: Vec::new(),
            mute_queued: Duration::ZERO,
            muted_until: Instant::ZERO,
            no_more_requests: false,
            closing: false,
            broken: false,
            revision: 0,
        }
    }

    /// Moves whenever something changed that another part of the connection may wait for.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Requests not yet answered, or whose answer has not left.
    pub(crate) fn in_flight(&self) -> usize {
        self.sizes.len() + self.outbox.len() + self.writing
    }

    pub(crate) fn admit(&self, limits: &Limits, now: Instant) -> Admit {
        let full = self.in_flight() >= limits.requests_in_flight_max
            || (self.bytes_running >= limits.bytes_in_flight_max && !self.sizes.is_empty());
        if full || !self.mute_queued.is_zero() {
            return Admit::Later;
        }
        if self.muted_until > now { Admit::At(self.muted_until) } else { Admit::Now }
    }

    pub(crate) fn push(&mut self, future: F, bytes: usize) {
        assert!(!self.no_more_requests, "no request after the reader has ended");
        self.running.push_back(future);
        self.sizes.push_back(bytes);
        self.bytes_running += bytes;
        self.revision += 1;
    }

    /// Polls what runs and queues the replies whose turn has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        while !self.closing
            && let Poll::Ready(Some(reply)) = self.running.poll_next_unpin(cx)
        {
            self.revision += 1;
            let bytes = self.sizes.pop_front().expect("one size per future");
            self.bytes_running -= bytes;
            match reply {
                Reply::Send { frame: parts, files, mute, held } => {
                    self.queue(Queued { frame: Batch { parts, files }, mute, held });
                }
                Reply::Nothing { mute } if mute.is_zero() => {}
                Reply::Nothing { mute } => self.queue(Queued { frame: Batch::default(), mute, held: None }),
                Reply::Close => self.close(),
            }
        }
    }

    fn queue(&mut self, reply: Queued) {
        if !self.broken {
            self.mute_queued = self.mute_queued.max(reply.mute);
            self.outbox.push_back(reply);
        }
    }

    fn close(&mut self) {
        self.closing = true;
        self.no_more_requests = true;
        self.running = FuturesOrdered::new();
        self.sizes.clear();
        self.bytes_running = 0;
    }

    /// The service has asked for the end of the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn end_requests(&mut self) {
        self.no_more_requests = true;
    }

    /// Writing has failed: what runs may finish, its replies are dropped.
    pub(crate) fn break_off(&mut self) {
        self.broken = true;
        self.outbox.clear();
        self.writing = 0;
        self.writing_held.clear();
        self.mute_queued = Duration::ZERO;
    }

    /// Nothing runs, nothing is left to send, nothing more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.no_more_requests && self.in_flight() == 0
    }

    /// The replies to send next; `None` when there will be no more.
    pub(crate) fn poll_batch(&mut self) -> Poll<Option<Batch>> {
        assert_eq!(self.writing, 0, "one batch is written at a time");
        if self.outbox.is_empty() {
            return if self.is_done() { Poll::Ready(None) } else { Poll::Pending };
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && batch.parts.len() < BATCH_PARTS
            && let Some(Queued { frame, held, .. }) = self.outbox.pop_front()
        {
            self.writing_held.extend(held);
            bytes += frame.len();
            batch.append(frame);
            self.writing += 1;
        }
        Poll::Ready(Some(batch))
    }

    /// The last batch has left: whatever mute its replies carried begins now.
    pub(crate) fn batch_written(&mut self, now: Instant) {
        self.writing = 0;
        self.writing_held.clear();
        self.revision += 1;
        if !self.mute_queued.is_zero() {
            self.muted_until = self.muted_until.max(now + self.mute_queued);
            self.mute_queued = self.outbox.iter().map(|reply| reply.mute).max().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt;
    use futures::channel::oneshot;
    use futures::future::LocalBoxFuture;

    use super::*;

    type Boxed = LocalBoxFuture<'static, Reply>;

    fn pending() -> (oneshot::Sender<Reply>, Boxed) {
        let (sender, receiver) = oneshot::channel::<Reply>();
        (sender, receiver.map(|reply| reply.unwrap_or(Reply::Close)).boxed_local())
    }

    fn poll(pipeline: &mut Pipeline<Boxed>) {
        pipeline.poll(&mut Context::from_waker(futures::task::noop_waker_ref()));
    }

    fn answer(text: &'static str) -> Reply {
        Reply::send(vec![Bytes::from_static(text.as_bytes())])
    }

    /// What would be written now.
    fn batch(pipeline: &mut Pipeline<Boxed>) -> Vec<Bytes> {
        match pipeline.poll_batch() {
            Poll::Ready(Some(batch)) => {
                assert!(batch.files.is_empty());
                pipeline.batch_written(Instant::ZERO);
                batch.parts
            }
            _ => Vec::new(),
        }
    }

    // contract P4
    #[test]
    fn replies_leave_in_request_order_and_together() {
        let mut pipeline = Pipeline::new();
        let (first, future) = pending();
        pipeline.push(future, 1);
        let (second, future) = pending();
        pipeline.push(future, 1);
        let (third, future) = pending();
        pipeline.push(future, 1);
        third.send(answer("3")).unwrap();
        poll(&mut pipeline);
        assert!(batch(&mut pipeline).is_empty());
        first.send(answer("1")).unwrap();
        poll(&mut pipeline);
        assert_eq!(batch(&mut pipeline), ["1"]);
        second.send(answer("2")).unwrap();
        poll(&mut pipeline);
        assert_eq!(batch(&mut pipeline), ["2", "3"]);
        assert_eq!(pipeline.in_flight(), 0);
    }

    #[test]
    fn what_a_reply_holds_is_dropped_when_it_has_left_or_cannot() {
        let mut pipeline: Pipeline<Boxed> = Pipeline::new();
        let held = Rc::new(());
        let reply = |held: &Rc<()>| {
            let reply = Reply::send_holding(vec![Bytes::from_static(b"x")], held.clone());
            async move { reply }.boxed_local()
        };
        pipeline.push(reply(&held), 1);
        poll(&mut pipeline);
        assert!(matches!(pipeline.poll_batch(), Poll::Ready(Some(_))));
        assert_eq!(Rc::strong_count(&held), 2, "it is being written");
        pipeline.batch_written(Instant::ZERO);
        assert_eq!(Rc::strong_count(&held), 1);
        pipeline.push(reply(&held), 1);
        poll(&mut pipeline);
        assert_eq!(Rc::strong_count(&held), 2, "it waits for its turn");
        pipeline.break_off();
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[test]
    fn limits_hold_by_count_and_by_bytes_and_a_single_large_request_passes() {
        let limits = Limits { requests_in_flight_max: 2, bytes_in_flight_max: 100, ..Limits::default() };
        let mut pipeline = Pipeline::new();
        assert_eq!(pipeline.admit(&limits, Instant::ZERO), Admit::Now);
        let (large, future) = pending();
        pipeline.push(future, 1000);
        assert_eq!(pipeline.admit(&limits, Instant::ZERO), Admit::Later);
        large.send(Reply::nothing()).unwrap();
        poll(&mut pipeline);
        assert_eq!(pipeline.admit(&limits, Instant::ZERO), Admit::Now);
        let futures = [pending(), pending()];
        let senders: Vec<_> = futures
            .into_iter()
            .map(|(sender, future)| {
                pipeline.push(future, 1);
                sender
            })
            .collect();
        assert_eq!(pipeline.admit(&limits, Instant::ZERO), Admit::Later);
        drop(senders);
    }

    // KIP-219, contract P5
    #[test]
    fn a_mute_holds_requests_back_from_the_moment_its_reply_has_left() {
        let limits = Limits::default();
        let mut pipeline = Pipeline::new();
        let (sender, future) = pending();
        pipeline.push(future, 1);
        sender
            .send(Reply::Send { frame: vec![], files: vec![], mute: Duration::from_millis(50), held: None })
            .unwrap();
        poll(&mut pipeline);
        assert_eq!(pipeline.admit(&limits, Instant::ZERO), Admit::Later);
        assert!(pipeline.poll_batch().is_ready());
        pipeline.batch_written(Instant::from_millis(10));
        assert_eq!(pipeline.admit(&limits, Instant::from_millis(10)), Admit::At(Instant::from_millis(60)));
        assert_eq!(pipeline.admit(&limits, Instant::from_millis(60)), Admit::Now);
    }

    #[test]
    fn close_lets_earlier_replies_leave_and_drops_later_requests() {
        let mut pipeline = Pipeline::new();
        let (first, future) = pending();
        pipeline.push(future, 1);
        pipeline.push(async { Reply::Close }.boxed_local(), 1);
        let (later, future) = pending();
        pipeline.push(future, 1);
        poll(&mut pipeline);
        assert!(!pipeline.is_closing(), "the first is not answered yet");
        first.send(answer("1")).unwrap();
        poll(&mut pipeline);
        assert!(pipeline.is_closing());
        assert!(later.is_canceled());
        assert_eq!(batch(&mut pipeline), ["1"]);
        assert!(pipeline.is_done());
        assert!(matches!(pipeline.poll_batch(), Poll::Ready(None)));
    }
}
