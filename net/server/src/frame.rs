//! Kafka's framing as a state machine without I/O: bytes in; whole frames, a wish for memory, or the reason to
//! close out.
//!
//! Small frames are cut out of the read buffer without a copy. A frame that doesn't fit into it gets a buffer of its
//! own, which takes the bytes straight from the socket; its memory is asked for in steps as bytes arrive, so that a
//! peer that merely claims a length costs nothing.

use bytes::{Buf, Bytes, BytesMut};

use crate::metrics::CloseReason;

/// Capacity of the read buffer of a quiet connection: what each idle connection costs.
pub(crate) const READ_BYTES: usize = 4096;
/// Capacity after a read that filled the buffer: more is waiting in the socket.
const READ_BYTES_BUSY: usize = 32 << 10;
/// An empty read buffer with less room than this is replaced.
const READ_ROOM_MIN: usize = 1024;
const PREFIX_BYTES: usize = 4;
/// Frames up to this size always fit into a read buffer, prefix included.
const SMALL_FRAME_MAX: usize = READ_BYTES - PREFIX_BYTES;
/// Memory for a large frame is asked for in these steps.
const STEP_BYTES: usize = 64 << 10;
/// From this many received bytes on, steps are `STEP_BYTES_FAST`: the peer has shown that it sends.
const FAST_FROM_BYTES: usize = 1 << 20;
const STEP_BYTES_FAST: usize = 256 << 10;
/// A large frame's buffer has room for this much at once, so that nearly every frame is received in its place, and grows
/// to [`GROWTH`] times what has arrived, which bounds both the copying (to a 16th) and the address space that a claim can
/// take. Untouched pages of it are not memory yet.
const FIRST_CAPACITY: usize = 1 << 20;
const GROWTH: usize = 16;
/// API key, version and correlation id: no request is smaller.
const HEADER_BYTES_MIN: usize = 8;

const _: () = assert!(READ_BYTES_BUSY < STEP_BYTES, "what a read buffer holds fits into the first step");
const _: () = assert!(FIRST_CAPACITY >= STEP_BYTES_FAST, "a step always fits");
const _: () = assert!(FAST_FROM_BYTES.is_multiple_of(STEP_BYTES_FAST), "fast steps fit the growing buffer");

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A whole frame, size prefix taken off. `prepaid` says that [`Next::Reserve`] has asked for its memory already.
    Frame { body: Bytes, prepaid: bool },
    /// Reserve so many bytes for the frame that is arriving, then call [`FrameReader::reserved`].
    Reserve(usize),
    /// Read more bytes.
    Read,
}

/// What is wrong with a size prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes is no request")]
    TooShort(i32),
    #[error("a frame of {size} bytes is above the limit of {max}")]
    TooLarge { size: usize, max: usize },
    #[error("a TLS handshake on a plaintext listener")]
    Tls,
    #[error("an HTTP request on a Kafka listener")]
    Http,
}

impl FrameError {
    pub(crate) fn reason(self) -> CloseReason {
        match self {
            FrameError::TooShort(_) => CloseReason::Malformed,
            FrameError::TooLarge { .. } => CloseReason::Oversized,
            FrameError::Tls => CloseReason::Tls,
            FrameError::Http => CloseReason::Http,
        }
    }
}

/// The reading half of one connection's framing.
#[derive(Debug)]
pub(crate) struct FrameReader {
    frame_bytes_max: usize,
    small: BytesMut,
    large: Option<Large>,
    busy: bool,
    first: bool,
}

impl FrameReader {
    pub(crate) fn new(frame_bytes_max: usize) -> FrameReader {
        FrameReader { frame_bytes_max, small: BytesMut::new(), large: None, busy: false, first: true }
    }

    /// The next thing to do with what has arrived.
    pub(crate) fn next(&mut self) -> Result<Next, FrameError> {
        if let Some(large) = &mut self.large {
            if !large.window_is_full() {
                return Ok(Next::Read);
            }
            large.close_window();
            let wanted = large.wanted();
            if wanted > 0 {
                return Ok(Next::Reserve(wanted));
            }
            let body = std::mem::take(&mut large.body).freeze();
            self.large = None;
            return Ok(Next::Frame { body, prepaid: true });
        }
        let Some(prefix) = self.small.first_chunk::<PREFIX_BYTES>() else { return Ok(Next::Read) };
        let size = check_size(*prefix, self.frame_bytes_max, self.first)?;
        self.first = false;
        if self.small.len() >= PREFIX_BYTES + size {
            self.small.advance(PREFIX_BYTES);
            return Ok(Next::Frame { body: self.small.split_to(size).freeze(), prepaid: false });
        }
        if size <= SMALL_FRAME_MAX {
            return Ok(Next::Read);
        }
        let mut arrived = std::mem::take(&mut self.small);
        arrived.advance(PREFIX_BYTES);
        let large = Large::new(size, arrived);
        let wanted = large.wanted();
        self.large = Some(large);
        Ok(Next::Reserve(wanted))
    }

    /// The memory that [`Next::Reserve`] asked for is there.
    pub(crate) fn reserved(&mut self, bytes: usize) {
        self.large.as_mut().expect("only a large frame asks for memory").open_window(bytes);
    }

    /// Takes the buffer to read into; it has room. Give it back with [`FrameReader::filled`].
    pub(crate) fn buffer(&mut self) -> BytesMut {
        if let Some(large) = &mut self.large {
            return std::mem::take(&mut large.window);
        }
        let buffered = self.small.len();
        let frame = match self.small.first_chunk::<PREFIX_BYTES>() {
            Some(prefix) => PREFIX_BYTES + i32::from_be_bytes(*prefix).max(0) as usize,
            None => PREFIX_BYTES,
        };
        let room = self.small.capacity() - buffered;
        let ample = buffered == 0 && self.small.capacity() > READ_BYTES && !self.busy;
        if buffered + room < frame || (buffered == 0 && room < READ_ROOM_MIN) || ample {
            let mut fresh = BytesMut::with_capacity(if self.busy { READ_BYTES_BUSY } else { READ_BYTES });
            fresh.extend_from_slice(&self.small);
            self.small = fresh;
        }
        std::mem::take(&mut self.small)
    }

    /// Gives the buffer back after `bytes` were read into it.
    pub(crate) fn filled(&mut self, buffer: BytesMut, bytes: usize) {
        if let Some(large) = &mut self.large {
            large.window = buffer;
            return;
        }
        self.busy = bytes > 0 && buffer.len() == buffer.capacity();
        self.small = buffer;
    }

    /// Bytes of an unfinished frame that have arrived, if one has been started.
    pub(crate) fn started(&self) -> Option<usize> {
        match &self.large {
            Some(large) => Some(PREFIX_BYTES + large.arrived()),
            None => Some(self.small.len()).filter(|&arrived| arrived > 0),
        }
    }
}

fn check_size(prefix: [u8; PREFIX_BYTES], max: usize, first: bool) -> Result<usize, FrameError> {
    let claimed = i32::from_be_bytes(prefix);
    let size = match usize::try_from(claimed) {
        Ok(size) if size >= HEADER_BYTES_MIN => size,
        _ => return Err(FrameError::TooShort(claimed)),
    };
    if size <= max {
        return Ok(size);
    }
    // Both are far above any sensible limit when read as a size; only where they are is it worth a guess.
    match &prefix {
        [0x16, 0x03, ..] if first => Err(FrameError::Tls),
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" | b"CONN" if first => {
            Err(FrameError::Http)
        }
        _ => Err(FrameError::TooLarge { size, max }),
    }
}

/// A frame with a buffer of its own: `body` is what has arrived, `window` what may be read into (memory is
/// reserved for it), `beyond` what has address space but no reservation. The three are adjacent parts of one
/// allocation, so that joining them copies nothing.
#[derive(Debug)]
struct Large {
    size: usize,
    body: BytesMut,
    window: BytesMut,
    window_bytes: usize,
    beyond: BytesMut,
}

impl Large {
    /// `arrived` is the start of the frame, in the read buffer's memory until the first window opens.
    fn new(size: usize, arrived: BytesMut) -> Large {
        assert!(arrived.len() < size && arrived.len() < STEP_BYTES);
        Large { size, body: BytesMut::new(), window: arrived, window_bytes: 0, beyond: BytesMut::new() }
    }

    fn arrived(&self) -> usize {
        self.body.len() + self.window.len()
    }

    fn window_is_full(&self) -> bool {
        self.window.len() == self.window_bytes
    }

    fn close_window(&mut self) {
        self.body.unsplit(std::mem::take(&mut self.window));
        self.window_bytes = 0;
    }

    /// Bytes to reserve before reading goes on; zero when the frame is whole.
    fn wanted(&self) -> usize {
        let step = if self.body.len() >= FAST_FROM_BYTES { STEP_BYTES_FAST } else { STEP_BYTES };
        let step = step.min(self.size - self.body.len());
        if self.beyond.capacity() > 0 { step.min(self.beyond.capacity()) } else { step }
    }

    fn open_window(&mut self, bytes: usize) {
        let early = std::mem::take(&mut self.window);
        if self.beyond.capacity() == 0 {
            let capacity = (self.body.len() * GROWTH).max(FIRST_CAPACITY).min(self.size);
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(&self.body);
            self.beyond = grown.split_off(self.body.len());
            self.body = grown;
        }
        let rest = self.beyond.split_off(bytes);
        self.window = std::mem::replace(&mut self.beyond, rest);
        self.window.extend_from_slice(&early);
        self.window_bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4 << 20;

    fn frame(size: usize, salt: u8) -> Vec<u8> {
        let mut bytes = (size as i32).to_be_bytes().to_vec();
        bytes.extend((0..size).map(|at| (at as u8).wrapping_mul(31).wrapping_add(salt)));
        bytes
    }

    /// Feeds `input` in reads of at most `chunk` bytes; returns the frames and what was reserved for each.
    fn feed(
        reader: &mut FrameReader,
        mut input: &[u8],
        chunk: usize,
    ) -> Result<Vec<(Bytes, usize)>, FrameError> {
        let mut frames = Vec::new();
        let mut reserved = 0;
        loop {
            match reader.next()? {
                Next::Frame { body, prepaid } => {
                    assert_eq!(prepaid, reserved > 0);
                    frames.push((body, std::mem::take(&mut reserved)));
                }
                Next::Reserve(bytes) => {
                    assert!(bytes <= STEP_BYTES_FAST);
                    reserved += bytes;
                    reader.reserved(bytes);
                }
                Next::Read if input.is_empty() => return Ok(frames),
                Next::Read => {
                    let mut buffer = reader.buffer();
                    let room = buffer.capacity() - buffer.len();
                    assert!(room > 0, "a buffer to read into has room");
                    let bytes = room.min(chunk).min(input.len());
                    buffer.extend_from_slice(&input[..bytes]);
                    input = &input[bytes..];
                    reader.filled(buffer, bytes);
                }
            }
        }
    }

    #[test]
    fn frames_of_every_size_come_out_whole_however_the_bytes_arrive() {
        let sizes =
            [8, 9, 100, 4091, 4092, 4093, 8192, 65_535, 65_536, 65_537, 300_000, 1 << 20, 3_000_001, 12];
        for chunk in [1, 7, 1000, 4096, 100_000, usize::MAX] {
            let input: Vec<u8> =
                sizes.iter().enumerate().flat_map(|(at, &size)| frame(size, at as u8)).collect();
            if chunk == 1 && cfg!(miri) {
                continue;
            }
            let mut reader = FrameReader::new(MAX);
            let frames = feed(&mut reader, &input, chunk).unwrap();
            assert_eq!(frames.len(), sizes.len());
            for (at, ((body, reserved), &size)) in frames.iter().zip(&sizes).enumerate() {
                assert_eq!(body[..], frame(size, at as u8)[4..], "frame {at} in chunks of {chunk}");
                assert!(*reserved == 0 || *reserved == size, "memory is reserved exactly");
                assert!(*reserved > 0 || size < READ_BYTES_BUSY);
            }
            assert_eq!(reader.started(), None);
        }
    }

    #[test]
    fn a_claimed_length_asks_for_one_step_only() {
        let mut reader = FrameReader::new(MAX);
        let mut input = (MAX as i32).to_be_bytes().to_vec();
        input.extend([0; 100]);
        let mut buffer = reader.buffer();
        buffer.extend_from_slice(&input);
        reader.filled(buffer, input.len());
        assert_eq!(reader.next(), Ok(Next::Reserve(STEP_BYTES)));
        reader.reserved(STEP_BYTES);
        assert_eq!(reader.next(), Ok(Next::Read));
        assert_eq!(reader.buffer().capacity(), STEP_BYTES);
    }

    #[test]
    fn a_frame_is_received_in_its_place() {
        let mut reader = FrameReader::new(MAX);
        let input = frame(70_000, 3);
        let mut places = Vec::new();
        let mut rest = &input[..];
        let body = loop {
            match reader.next().unwrap() {
                Next::Frame { body, .. } => break body,
                Next::Reserve(bytes) => reader.reserved(bytes),
                Next::Read => {
                    let mut buffer = reader.buffer();
                    places.push(buffer.as_ptr().addr() + buffer.len());
                    let bytes = (buffer.capacity() - buffer.len()).min(rest.len());
                    buffer.extend_from_slice(&rest[..bytes]);
                    rest = &rest[bytes..];
                    reader.filled(buffer, bytes);
                }
            }
        };
        // The first read went into the small buffer; each of the others where its bytes stay.
        let within = body.as_ptr().addr()..body.as_ptr().addr() + body.len();
        assert!(places.len() > 2 && places[1..].iter().all(|place| within.contains(place)));
    }

    #[test]
    fn a_quiet_connection_keeps_a_small_buffer() {
        let mut reader = FrameReader::new(MAX);
        let input: Vec<u8> = (0..100).flat_map(|salt| frame(1000, salt)).collect();
        feed(&mut reader, &input, usize::MAX).unwrap();
        feed(&mut reader, &frame(10, 0), usize::MAX).unwrap();
        assert!(reader.buffer().capacity() <= READ_BYTES);
    }

    #[test]
    fn bad_sizes_are_told_apart() {
        let error = |bytes: &[u8]| feed(&mut FrameReader::new(MAX), bytes, usize::MAX).unwrap_err();
        assert_eq!(error(&[0xff, 0xff, 0xff, 0xff]), FrameError::TooShort(-1));
        assert_eq!(error(&[0, 0, 0, 0]), FrameError::TooShort(0));
        assert_eq!(error(&[0, 0, 0, 7]), FrameError::TooShort(7));
        assert_eq!(
            error(&[0x7f, 0xff, 0xff, 0xff]),
            FrameError::TooLarge { size: i32::MAX as usize, max: MAX }
        );
        assert_eq!(error(&[0x16, 0x03, 0x01, 0x02, 0x00]), FrameError::Tls);
        assert_eq!(error(b"GET / HTTP/1.1\r\n"), FrameError::Http);
        assert_eq!(error(b"POST /x HTTP/1.1\r\n"), FrameError::Http);
    }

    #[test]
    fn random_bytes_never_panic_and_never_reserve_more_than_they_brought_plus_a_step() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            for _ in 0..64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend(state.to_le_bytes());
            }
            bytes[0] = 0;
            let _ = feed(&mut FrameReader::new(MAX), &bytes, 50);
        }
    }
}
