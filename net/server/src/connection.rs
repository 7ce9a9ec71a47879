//! One connection: a single task that reads, runs requests and writes, each without waiting for the others.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures::FutureExt;
use heizer_runtime::fs::FileRegion;
use heizer_runtime::net::Stream;
use heizer_runtime::time::{Sleep, now, sleep, sleep_until};
use heizer_wire::{Reader, RequestHeader};

use crate::budget::MemoryBudget;
use crate::config::Limits;
use crate::frame::{FrameReader, Next};
use crate::metrics::{CloseReason, ServerMetrics, add};
use crate::pipeline::{Admit, Batch, Pipeline};
use crate::service::{ConnectionInfo, Lease, Reply, Request, Service};
use crate::watch::{Order, Watch};

/// A response is handed to the socket in pieces of at most this size, so that a slow peer's progress is seen.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_PARTS: usize = 512;

/// What a connection works with. It belongs to the task that runs the connection.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) watch: Rc<Watch>,
    pub(crate) limits: Rc<Limits>,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Rc<ServerMetrics>,
}

/// Runs a connection to its end and says why it ended.
pub(crate) async fn run<S: Service>(connection: &Connection, service: &Rc<S>) -> CloseReason {
    let pipeline = RefCell::new(Pipeline::new());
    let reason = drive(connection, &pipeline, |request| service.call(request)).await;
    connection.stream.shutdown();
    reason
}

async fn drive<F, C>(connection: &Connection, pipeline: &RefCell<Pipeline<F>>, call: C) -> CloseReason
where
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    let Connection { watch, limits, .. } = connection;
    let mut reader = pin!(Some(read_requests(connection, pipeline, call)));
    let mut writer = pin!(Some(write_replies(connection, pipeline)));
    let mut ordered = watch.ordered.listen();
    let mut grace: Option<Sleep> = None;
    let mut reason = None;
    poll_fn(|cx| {
        while ordered.poll_unpin(cx).is_ready() {
            ordered = watch.ordered.listen();
        }
        loop {
            let revision = pipeline.borrow().revision();
            if watch.order() != Order::Run {
                reason = reason.or(watch.reason());
                reader.set(None);
            }
            if watch.order() == Order::Drop {
                return Poll::Ready(());
            }
            if let Some(read) = reader.as_mut().as_pin_mut()
                && let Poll::Ready(why) = read.poll(cx)
            {
                reason = reason.or(Some(why));
                reader.set(None);
            }
            pipeline.borrow_mut().poll(cx);
            if pipeline.borrow().is_closing() {
                reason = reason.or(Some(CloseReason::Service));
                reader.set(None);
            }
            if reader.is_none() {
                pipeline.borrow_mut().end_requests();
            }
            if let Some(write) = writer.as_mut().as_pin_mut()
                && let Poll::Ready(written) = write.poll(cx)
            {
                writer.set(None);
                if written.is_err() {
                    reason = reason.or(Some(CloseReason::Io));
                    reader.set(None);
                    let mut pipeline = pipeline.borrow_mut();
                    pipeline.break_off();
                    pipeline.end_requests();
                }
            }
            account(connection, pipeline.borrow().in_flight());
            if pipeline.borrow().is_done() && reader.is_none() {
                return Poll::Ready(());
            }
            if reader.is_none() && reason != Some(CloseReason::Drained) {
                let grace = grace.get_or_insert_with(|| sleep(limits.finish_grace));
                if grace.poll_unpin(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            // Each part is polled again until none has moved, so that they need no wakers for one another.
            if pipeline.borrow().revision() == revision {
                return Poll::Pending;
            }
        }
    })
    .await;
    reason.unwrap_or(CloseReason::Peer)
}

fn account(connection: &Connection, in_flight: usize) {
    let before = connection.watch.in_flight.replace(in_flight);
    let current = &connection.metrics.requests_current;
    current.set(current.get() + in_flight as u64 - before as u64);
}

/// Reads until the peer, its bytes or a failure end it.
async fn read_requests<F, C>(connection: &Connection, pipeline: &RefCell<Pipeline<F>>, call: C) -> CloseReason
where
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    let Connection { stream, info, watch, limits, budget, metrics } = connection;
    let mut frames = FrameReader::new(limits.request_bytes_max.min(budget.frame_bytes_max()));
    let mut prepayment = budget.reservation();
    loop {
        match frames.next() {
            Ok(Next::Read) => {
                watch.read_begins(now(), frames.started());
                let (read, buffer) = stream.read(frames.buffer()).await;
                watch.read_ends(now());
                match read {
                    Ok(0) => return CloseReason::Peer,
                    Ok(bytes) => {
                        add(&metrics.bytes_in, bytes as u64);
                        frames.filled(buffer, bytes);
                    }
                    Err(error) => {
                        tracing::debug!(peer = %info.peer, %error, "connection lost");
                        return CloseReason::Io;
                    }
                }
            }
            Ok(Next::Reserve(bytes)) => {
                prepayment.grow(bytes).await;
                frames.reserved(bytes);
            }
            Ok(Next::Frame { body, prepaid }) => {
                watch.frame_ends();
                if !prepaid {
                    prepayment.grow(body.len()).await;
                }
                let reservation = std::mem::replace(&mut prepayment, budget.reservation());
                admitted(pipeline, limits).await;
                let bytes = body.len();
                let mut reader = Reader::new(body);
                let header = match RequestHeader::decode(&mut reader) {
                    Ok(header) => header,
                    Err(error) => {
                        tracing::info!(peer = %info.peer, bytes, "closed: a request without a valid header: {error}");
                        return CloseReason::Malformed;
                    }
                };
                let body = reader.take(reader.remaining()).unwrap_or_default();
                let lease = Lease { _reservation: Some(reservation) };
                add(&metrics.requests, 1);
                let request = Request { header, body, connection: Rc::clone(info), lease };
                let future = call(request);
                pipeline.borrow_mut().push(future, bytes);
            }
            Err(error) => {
                tracing::info!(peer = %info.peer, "closed: {error}");
                return error.reason();
            }
        }
    }
}

/// Waits until the connection may take another request. The connection's task polls this again whenever the
/// pipeline has moved.
async fn admitted<F: Future<Output = Reply>>(pipeline: &RefCell<Pipeline<F>>, limits: &Limits) {
    loop {
        let admit = poll_fn(|_| match pipeline.borrow().admit(limits, now()) {
            Admit::Later => Poll::Pending,
            other => Poll::Ready(other),
        });
        match admit.await {
            Admit::At(time) => sleep_until(time).await,
            Admit::Now | Admit::Later => return,
        }
    }
}

/// Writes replies as their turn comes; ends when there will be no more.
async fn write_replies<F: Future<Output = Reply>>(
    connection: &Connection,
    pipeline: &RefCell<Pipeline<F>>,
) -> std::io::Result<()> {
    let Connection { stream, info, watch, metrics, .. } = connection;
    while let Some(batch) = poll_fn(|_| pipeline.borrow_mut().poll_batch()).await {
        let mut rest = pieces(batch).into_iter().peekable();
        while let Some(piece) = rest.next() {
            let bytes = piece.len();
            watch.write_begins(now());
            let written = match piece {
                // A packet of its own for the few bytes before a file's would be a waste.
                Piece::Here(parts) if matches!(rest.peek(), Some(Piece::File(_))) => {
                    stream.write_all_before_more(parts).await
                }
                Piece::Here(parts) => stream.write_all(parts).await,
                Piece::File(region) => stream.send_file(region).await,
            };
            watch.write_ends(now());
            if let Err(error) = written {
                tracing::debug!(peer = %info.peer, %error, "connection lost");
                return Err(error);
            }
            add(&metrics.bytes_out, bytes as u64);
        }
        pipeline.borrow_mut().batch_written(now());
    }
    Ok(())
}

/// What is handed to the socket at once.
enum Piece {
    Here(Vec<Bytes>),
    File(FileRegion),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Here(parts) => parts.iter().map(Bytes::len).sum(),
            Piece::File(region) => region.len(),
        }
    }
}

/// Cuts a batch into writes of bounded size; small ones, nearly all, stay one.
fn pieces(batch: Batch) -> Vec<Piece> {
    let Batch { parts, files } = batch;
    if files.is_empty() {
        return pieces_here(parts);
    }
    let mut pieces = Vec::new();
    let mut parts = parts.into_iter();
    let mut taken = 0;
    for (at, mut region) in files {
        pieces.extend(pieces_here(parts.by_ref().take(at - taken).collect()));
        taken = at;
        while !region.is_empty() {
            pieces.push(Piece::File(region.split_to(region.len().min(PIECE_BYTES))));
        }
    }
    pieces.extend(pieces_here(parts.collect()));
    pieces
}

fn pieces_here(parts: Vec<Bytes>) -> Vec<Piece> {
    let total: usize = parts.iter().map(Bytes::len).sum();
    if total == 0 {
        return Vec::new();
    }
    if total <= PIECE_BYTES && parts.len() <= PIECE_PARTS {
        return vec![Piece::Here(parts)];
    }
    let mut pieces = vec![Vec::new()];
    let mut room = PIECE_BYTES;
    for mut part in parts {
        while !part.is_empty() {
            let full = pieces.last().is_some_and(|piece| piece.len() == PIECE_PARTS);
            if room == 0 || full {
                pieces.push(Vec::new());
                room = PIECE_BYTES;
            }
            let taken = part.split_to(part.len().min(room));
            room -= taken.len();
            pieces.last_mut().expect("never empty").push(taken);
        }
    }
    pieces.into_iter().map(Piece::Here).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use heizer_runtime::fs::{self, CachedFile};
    use heizer_runtime::sim::block_on;

    use super::*;

    fn here(piece: Piece) -> Vec<Bytes> {
        match piece {
            Piece::Here(parts) => parts,
            Piece::File(region) => panic!("{region:?}"),
        }
    }

    #[test]
    fn large_responses_are_cut_into_bounded_pieces_that_join_to_the_same_bytes() {
        let parts: Vec<Bytes> = (0..2000usize).map(|at| Bytes::from(vec![at as u8; at * 3])).collect();
        let whole: Vec<u8> = parts.iter().flatten().copied().collect();
        let cut: Vec<_> = pieces(Batch { parts, files: Vec::new() }).into_iter().map(here).collect();
        assert!(cut.len() > 5);
        for piece in &cut {
            assert!(piece.len() <= PIECE_PARTS && piece.iter().map(Bytes::len).sum::<usize>() <= PIECE_BYTES);
        }
        assert_eq!(cut.into_iter().flatten().flatten().collect::<Vec<u8>>(), whole);
    }

    #[test]
    fn files_keep_their_places_between_the_parts_and_are_cut_as_well() {
        block_on(1, async {
            fs::write_atomic(Path::new("/file"), vec![0; 10]).await.expect("written");
            let file = loop {
                if let Some(file) = CachedFile::open(Path::new("/file")).await.expect("opened") {
                    break file;
                }
            };
            let long = 2 * PIECE_BYTES as u64 + 5;
            let files = vec![(1, file.region(0..3)), (1, file.region(3..long)), (3, file.region(7..9))];
            let parts = ["a", "b", "c"].map(Bytes::from).to_vec();
            let cut: Vec<String> = pieces(Batch { parts, files })
                .into_iter()
                .map(|piece| match piece {
                    Piece::Here(parts) => String::from_utf8(parts.concat()).expect("text"),
                    Piece::File(region) => format!("{:?}", region.range()),
                })
                .collect();
            let mib = PIECE_BYTES;
            let file = [
                format!("3..{}", 3 + mib),
                format!("{}..{}", 3 + mib, 3 + 2 * mib),
                format!("{}..{long}", 3 + 2 * mib),
            ];
            assert_eq!(cut, ["a", "0..3", &file[0], &file[1], &file[2], "bc", "7..9"]);
        });
    }
}
