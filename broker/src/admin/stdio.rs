//! Standard input and output. Both block for as long as the other side pleases, so threads beside the core carry them.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use heizer_runtime::helper::Helper;

use super::error::CliError;

/// Read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Standard input, a chunk at a time: nothing is read ahead.
pub(super) struct Input(Helper);

impl Input {
    pub(super) fn open() -> Result<Input, CliError> {
        Helper::start("stdin")
            .map(Input)
            .map_err(|error| CliError::stdio("cannot read standard input", &error))
    }

    /// What has come; empty at the end. To be awaited to its end: what is read for a dropped future is lost.
    pub(super) async fn read(&self) -> Result<Bytes, CliError> {
        let read = || {
            let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
            let length = io::stdin().lock().read(&mut chunk)?;
            chunk.truncate(length);
            Ok(chunk.freeze())
        };
        self.0.run(read).await.map_err(|error| CliError::stdio("cannot read standard input", &error))
    }
}

/// Standard output.
pub(super) struct Output(Helper);

impl Output {
    pub(super) fn open() -> Result<Output, CliError> {
        Helper::start("stdout")
            .map(Output)
            .map_err(|error| CliError::stdio("cannot write standard output", &error))
    }

    /// Writes all of it and makes it visible.
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), CliError> {
        let write = move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes)?;
            stdout.flush()
        };
        self.0.run(write).await.map_err(|error| CliError::stdio("cannot write standard output", &error))
    }
}

/// What a verb writes, and what it fails with behind that, if anything.
pub(super) struct Report {
    text: Bytes,
    failure: Option<CliError>,
}

impl Report {
    pub(super) fn new(text: impl Into<Bytes>, failure: Option<CliError>) -> Report {
        Report { text: text.into(), failure }
    }

    /// Writes it.
    pub(super) async fn publish(self) -> Result<(), CliError> {
        if !self.text.is_empty() {
            Output::open()?.write(self.text).await?;
        }
        self.failure.map_or(Ok(()), Err)
    }
}

impl From<String> for Report {
    fn from(text: String) -> Report {
        Report::new(text, None)
    }
}

impl From<Bytes> for Report {
    fn from(text: Bytes) -> Report {
        Report::new(text, None)
    }
}

/// Writes all of it, for a verb that needs no core and may block.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| CliError::stdio("cannot write standard output", &error))
}
