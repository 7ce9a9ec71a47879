//! One connection to one broker: versions negotiated, requests pipelined, answers matched by correlation id.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::channel::oneshot;
use heizer_runtime::net::Stream;
use heizer_runtime::sync::Event;
use heizer_runtime::task::spawn;
use heizer_runtime::time::timeout;
use heizer_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use heizer_wire::{
    ApiKey, DecodeError, ErrorCode, Message, Reader, Request, decode_response, encode_request,
};

use crate::error::{ClientError, check};

const READ_BYTES: usize = 16 << 10;
/// An answer that claims more than this is taken for garbage.
const RESPONSE_BYTES_MAX: usize = 1 << 30;
/// Buffers for an answer grow in steps of this many bytes at least.
const READ_STEP_BYTES: usize = 1 << 20;
/// The version of ApiVersions that is asked first; brokers that don't know it answer at version 0.
const API_VERSIONS_VERSION: i16 = 3;
const SOFTWARE_NAME: &str = "heizer-client";

/// A connection to a broker. Clones share it; it is closed when the last one drops.
///
/// Requests are queued in the order of the calls and sent without waiting for earlier answers.
#[derive(Clone)]
pub struct Connection {
    handle: Rc<Handle>,
}

struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by this client"));
    }
}

/// Shared with the reading and the writing task, which end with the connection.
struct Shared {
    addr: String,
    stream: Stream,
    client_id: String,
    request_timeout: Duration,
    versions: RefCell<BTreeMap<i16, (i16, i16)>>,
    correlation_id: Cell<i32>,
    waiting: RefCell<BTreeMap<i32, oneshot::Sender<Bytes>>>,
    outbox: RefCell<Vec<Bytes>>,
    queued: Event,
    /// What was taken out of the outbox is not all in the socket yet.
    writing: Cell<bool>,
    /// Announced when it is.
    written: Event,
    ended: RefCell<Option<Rc<io::Error>>>,
}

impl Connection {
    /// Connects to `addr` (`host:port`) and asks which versions the broker speaks.
    pub async fn connect(
        addr: &str,
        client_id: &str,
        request_timeout: Duration,
    ) -> Result<Connection, ClientError> {
        let failed =
            |source: io::Error| ClientError::Connect { addr: addr.to_owned(), source: Rc::new(source) };
        let resolved = crate::address::resolve(addr)?;
        let stream = match timeout(request_timeout, Stream::connect(resolved)).await {
            Ok(stream) => stream.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        let shared = Rc::new(Shared {
            addr: addr.to_owned(),
            stream,
            client_id: client_id.to_owned(),
            request_timeout,
            versions: RefCell::default(),
            correlation_id: Cell::new(0),
            waiting: RefCell::default(),
            outbox: RefCell::default(),
            queued: Event::default(),
            writing: Cell::new(false),
            written: Event::default(),
            ended: RefCell::new(None),
        });
        drop(spawn(read_answers(Rc::clone(&shared))));
        drop(spawn(write_requests(Rc::clone(&shared))));
        let connection = Connection { handle: Rc::new(Handle { shared }) };
        connection.negotiate().await?;
        Ok(connection)
    }

    /// The broker, as `host:port`.
    pub fn addr(&self) -> &str {
        &self.handle.shared.addr
    }

    /// Whether it has ended; a new one has to be made.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.ended.borrow().is_some()
    }

    /// The highest version of `R` that both sides speak.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.version_up_to::<R>(i16::MAX)
    }

    /// The range of versions that the broker said it serves of an API, if any.
    pub fn broker_versions(&self, api_key: i16) -> Option<(i16, i16)> {
        self.handle.shared.versions.borrow().get(&api_key).copied()
    }

    fn version_up_to<R: Request>(&self, newest: i16) -> Result<i16, ClientError> {
        let unsupported = || ClientError::Unsupported { addr: self.addr().to_owned(), api: R::KEY };
        let (min, max) = self.broker_versions(R::KEY.into()).ok_or_else(unsupported)?;
        let version = max.min(*R::VERSIONS.end()).min(newest);
        if version < min.max(*R::VERSIONS.start()) { Err(unsupported()) } else { Ok(version) }
    }

    /// Sends a request at the highest common version and returns its answer. It is queued at the call, not at the
    /// first poll.
    pub fn request<R: Request>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<R::Response, ClientError>> + use<R> {
        self.request_with(request, i16::MAX, Duration::ZERO)
    }

    /// As [`Connection::request`], at no newer version than `newest`, and with `extra` time for the broker to wait
    /// before it answers (long polls, group joins).
    pub fn request_with<R: Request>(
        &self,
        request: &R,
        newest: i16,
        extra: Duration,
    ) -> impl Future<Output = Result<R::Response, ClientError>> + use<R> {
        let queued = self.version_up_to::<R>(newest).and_then(|version| {
            let (correlation_id, answer) = self.queue(request, version, true)?;
            Ok((version, correlation_id, answer))
        });
        let connection = self.clone();
        let within = self.handle.shared.request_timeout + extra;
        async move {
            let (version, correlation_id, answer) = queued?;
            let frame = connection.answer(R::KEY, correlation_id, answer, within).await?;
            let decoded =
                decode_response::<R>(frame, version).map_err(|e| connection.malformed(R::KEY, e))?;
            Ok(decoded.1)
        }
    }

    /// Sends a request that has no answer (Produce with acks=0).
    pub fn send_only<R: Request>(&self, request: &R, newest: i16) -> Result<(), ClientError> {
        let version = self.version_up_to::<R>(newest)?;
        self.queue(request, version, false).map(|_| ())
    }

    /// Resolves when nothing that was queued waits for the socket: what holds back whoever waits for no answers.
    pub async fn flushed(&self) -> Result<(), ClientError> {
        let shared = &self.handle.shared;
        loop {
            let written = shared.written.listen();
            if let Some(source) = shared.ended.borrow().as_ref() {
                return Err(self.lost(ApiKey::Produce, source));
            }
            if !shared.writing.get() && shared.outbox.borrow().is_empty() {
                return Ok(());
            }
            written.await;
        }
    }

    fn queue<R: Request>(
        &self,
        request: &R,
        version: i16,
        answered: bool,
    ) -> Result<(i32, oneshot::Receiver<Bytes>), ClientError> {
        let shared = &self.handle.shared;
        if let Some(source) = shared.ended.borrow().as_ref() {
            return Err(self.lost(R::KEY, source));
        }
        let correlation_id = shared.correlation_id.get();
        shared.correlation_id.set(correlation_id.wrapping_add(1));
        let (sender, receiver) = oneshot::channel();
        if answered {
            shared.waiting.borrow_mut().insert(correlation_id, sender);
        }
        let frame = encode_request(correlation_id, version, Some(&shared.client_id), request);
        shared.outbox.borrow_mut().extend(frame);
        shared.queued.notify_all();
        Ok((correlation_id, receiver))
    }

    async fn answer(
        &self,
        api: ApiKey,
        correlation_id: i32,
        answer: oneshot::Receiver<Bytes>,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        // Whatever ends the wait, nobody is left waiting for this answer.
        let _leave = scope_end(|| drop(self.handle.shared.waiting.borrow_mut().remove(&correlation_id)));
        match timeout(within, answer).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(oneshot::Canceled)) => {
                let unknown = Rc::new(io::Error::from(io::ErrorKind::ConnectionAborted));
                let source = self.handle.shared.ended.borrow().as_ref().map_or(unknown, Rc::clone);
                Err(self.lost(api, &source))
            }
            Err(_) => {
                let after_ms = within.as_millis() as u64;
                // Answers come in order: behind one that doesn't come, none will. The next caller connects anew.
                self.handle.shared.end(io::ErrorKind::TimedOut.into());
                Err(ClientError::Timeout { addr: self.addr().to_owned(), api, after_ms })
            }
        }
    }

    fn lost(&self, api: ApiKey, source: &Rc<io::Error>) -> ClientError {
        ClientError::Lost { addr: self.addr().to_owned(), api, source: Rc::clone(source) }
    }

    fn malformed(&self, api: ApiKey, source: DecodeError) -> ClientError {
        ClientError::Decode { addr: self.addr().to_owned(), api, source }
    }

    async fn negotiate(&self) -> Result<(), ClientError> {
        let api = ApiKey::ApiVersions;
        let request = software();
        let (correlation_id, answer) = self.queue(&request, API_VERSIONS_VERSION, true)?;
        let frame = self.answer(api, correlation_id, answer, self.handle.shared.request_timeout).await?;
        let response = decode_api_versions(frame).map_err(|error| self.malformed(api, error))?;
        if ErrorCode::from_code(response.error_code) != ErrorCode::UnsupportedVersion {
            check(self.addr(), api, || "the connection".to_owned(), response.error_code, None)?;
        }
        let versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        *self.handle.shared.versions.borrow_mut() = versions;
        if self.broker_versions(ApiKey::Metadata.into()).is_some() {
            return Ok(());
        }
        // An old broker told only how to ask ApiVersions itself (contract P1): ask again at its version.
        let response = self.request(&request).await?;
        check(self.addr(), api, || "the connection".to_owned(), response.error_code, None)?;
        let versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        *self.handle.shared.versions.borrow_mut() = versions;
        Ok(())
    }
}

/// Asks for versions and features, and says who asks.
pub(crate) fn software() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: SOFTWARE_NAME.into(),
        client_software_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// A broker that doesn't know our version answers with an error in a version 0 body (contract P1).
fn decode_api_versions(frame: Bytes) -> Result<ApiVersionsResponse, DecodeError> {
    let mut peek = Reader::new(frame.clone());
    peek.i32()?;
    let unsupported = peek.i16()? == ErrorCode::UnsupportedVersion.code();
    let mut reader = Reader::new(frame);
    reader.i32()?;
    ApiVersionsResponse::decode(&mut reader, if unsupported { 0 } else { API_VERSIONS_VERSION })
}

impl Shared {
    /// The first reason counts; everybody who waits learns it.
    fn end(&self, reason: io::Error) {
        if self.ended.borrow().is_none() {
            *self.ended.borrow_mut() = Some(Rc::new(reason));
        }
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        drop(waiting);
        self.stream.shutdown();
        self.queued.notify_all();
        self.written.notify_all();
    }
}

async fn write_requests(shared: Rc<Shared>) {
    loop {
        let queued = shared.queued.listen();
        if shared.ended.borrow().is_some() {
            return;
        }
        let parts = std::mem::take(&mut *shared.outbox.borrow_mut());
        if parts.is_empty() {
            queued.await;
            continue;
        }
        shared.writing.set(true);
        if let Err(error) = shared.stream.write_all(parts).await {
            return shared.end(error);
        }
        shared.writing.set(false);
        shared.written.notify_all();
    }
}

async fn read_answers(shared: Rc<Shared>) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        let wanted = match next_frame(&mut buffer) {
            Ok(Ok(frame)) => {
                let Some(correlation_id) = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id)) else {
                    return shared.end(io::ErrorKind::InvalidData.into());
                };
                let waiting = shared.waiting.borrow_mut().remove(&correlation_id);
                if let Some(waiting) = waiting {
                    // Whoever asked may have stopped waiting.
                    let _ = waiting.send(frame);
                }
                continue;
            }
            Ok(Err(wanted)) => wanted,
            Err(error) => return shared.end(error),
        };
        if buffer.capacity() - buffer.len() < READ_BYTES.min(wanted) {
            buffer.reserve(wanted.clamp(READ_BYTES, READ_STEP_BYTES.max(buffer.len())));
        }
        let (read, returned) = shared.stream.read(buffer).await;
        buffer = returned;
        match read {
            Ok(0) => return shared.end(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => return shared.end(error),
        }
    }
}

/// The next whole frame without its size, or how many bytes it lacks.
fn next_frame(buffer: &mut BytesMut) -> io::Result<Result<Bytes, usize>> {
    let Some(size) = buffer.first_chunk::<4>() else { return Ok(Err(READ_BYTES)) };
    let size = usize::try_from(i32::from_be_bytes(*size)).unwrap_or(usize::MAX);
    if size > RESPONSE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of impossible size"));
    }
    if buffer.len() - 4 < size {
        return Ok(Err(4 + size - buffer.len()));
    }
    buffer.advance(4);
    Ok(Ok(buffer.split_to(size).freeze()))
}

/// Runs `end` when dropped.
fn scope_end<F: FnMut()>(end: F) -> impl Drop {
    struct ScopeEnd<F: FnMut()>(F);
    impl<F: FnMut()> Drop for ScopeEnd<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    ScopeEnd(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_as_they_become_whole() {
        let mut buffer = BytesMut::new();
        assert_eq!(next_frame(&mut buffer).unwrap(), Err(READ_BYTES));
        buffer.extend_from_slice(&[0, 0, 0, 3, 1]);
        assert_eq!(next_frame(&mut buffer).unwrap(), Err(2));
        buffer.extend_from_slice(&[2, 3, 0, 0, 0, 0, 9]);
        assert_eq!(next_frame(&mut buffer).unwrap().unwrap(), [1, 2, 3][..]);
        assert_eq!(next_frame(&mut buffer).unwrap().unwrap(), [][..]);
        buffer.extend_from_slice(&[0xff, 0xff, 0xff]);
        assert!(next_frame(&mut buffer).is_ok(), "0x09ffffff is large, and below the limit");
        buffer[0] = 0xff;
        assert!(next_frame(&mut buffer).is_err());
    }
}
